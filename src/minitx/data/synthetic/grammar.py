"""Draw sentences of the embedded corpus at random.

A clause is drawn from its verb outwards: the verb's classes choose its subject and objects, and where both
may be animate, either noun may fill either role. What would leave a sentence with two readings is not drawn:
nothing follows a relative clause that could belong to it, and a relative clause that lacks its object is
drawn only where case or number tells it from one that lacks its subject.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from minitx.data.synthetic import pools
from minitx.data.synthetic.german import form
from minitx.data.synthetic.lexicon import Adjective, Adverb, Conjunction, Noun, Verb
from minitx.data.synthetic.syntax import Clause, NounPhrase, Part, Place, Sentence

T = TypeVar("T")
Triple = tuple[str, str, str]
"""Subject, verb, object, by their English citation forms; the object is empty where there is none."""

PHENOMENA = (
    "accusative", "dative", "genitive", "adjective", "inversion", "verb_final",
    "separable", "bracket", "relative", "coordination", "negation", "question",
)  # fmt: skip
"""What a sentence may show.

`accusative`: an object that its form marks as one; `inversion`: something other than the subject opens a
statement; `separable`: a verb has a separable prefix; `bracket`: a participle or an infinitive ends a clause.
"""


class NoChoice(Exception):
    """No word fits; the sentence is to be drawn anew."""


class Grammar:
    """Draw sentences whose every (subject, verb, object) triple is `allowed`.

    `triples` and `phenomena` tell what was drawn since the last `clear`.
    """

    def __init__(self, random: Random, allowed: Callable[[Triple], bool]) -> None:
        self._random = random.random
        self._allowed = allowed
        self._tenses = pools.TENSES["now"]
        self.triples: set[Triple] = set()
        self.phenomena: set[str] = set()

    def clear(self) -> None:
        """Forget what was drawn."""
        self.triples.clear()
        self.phenomena.clear()

    def begin(self) -> None:
        """Start a new sentence and choose its time, to which all its clauses keep."""
        self.clear()
        self._tenses = pools.TENSES["now" if self._random() < 0.6 else "then"]

    def sentence(self) -> Sentence:
        """Draw an ordinary sentence; raise NoChoice when a draw leads nowhere."""
        self.begin()
        draw = self._random()
        if draw < 0.12:
            return (Part(None, self.clause(question=True)),)
        if draw < 0.22:
            self.phenomena.add("inversion")
            return self.link(pools.SUBORDINATORS), Part(None, self.clause(opening=False))
        if draw < 0.32:
            return Part(None, self.clause()), self.link(pools.SUBORDINATORS)
        if draw < 0.42:
            return (Part(None, self.report()),)
        if draw < 0.50:
            return Part(None, self.clause()), self.link(pools.COORDINATORS)
        if draw < 0.56:
            return (Part(None, self.shared_subject()),)
        return (Part(None, self.clause()),)

    def link(self, conjunctions: Sequence[Conjunction]) -> Part:
        """Draw a further clause and what joins it to its neighbour."""
        conjunction = self._choose(conjunctions)
        subordinate = conjunction.kind == "subordinating"
        self.phenomena.add("verb_final" if subordinate else "coordination")
        return Part(conjunction, self.clause(opening=not subordinate))

    def clause(self, opening: bool = True, question: bool = False) -> Clause:
        """Draw a main or subordinate clause; only a main clause may have an adverb for its `opening`."""
        if self._random() < 0.08:
            noun = self._choose(pools.ALL_NOUNS)
            return self._description(self._phrase(noun, relative=0.1), question)
        verb = self._choose(pools.ACTIONS)
        return self._action(verb, self._subject(verb), opening=opening, question=question)

    def report(self) -> Clause:
        """Draw a clause that reports another one: "The man says that the dog sleeps"."""
        verb = self._choose(pools.REPORTS)
        self.phenomena.add("verb_final")
        outer = self._action(verb, self._subject(verb), opening=True)
        return outer._replace(complement=(pools.COMPLEMENTIZERS[verb.frame], self.clause(opening=False)))

    def shared_subject(self) -> Clause:
        """Draw two actions of one subject: "The dog sees the cat and chases the mouse"."""
        verb = self._choose(pools.ACTIONS)
        kind = self._choose(sorted(verb.subjects))
        subject = self._phrase(self._actor(pools.NOUNS[kind], verb))
        self.phenomena.add("coordination")
        other = self._fitting(pools.TAKES_SUBJECT[kind], lambda candidate: candidate is not verb)
        second = self._plain(other, subject, self._tenses[0])
        return self._plain(verb, subject, self._tenses[0])._replace(second=second)

    def _description(self, subject: NounPhrase, question: bool = False) -> Clause:
        """Draw "The dog is tired" around "the dog"."""
        verb, tense = self._choose(pools.COPULAS), self._tenses[0]
        adjectives = pools.ADJECTIVES[subject.noun.kind]
        predicate = self._fitting(adjectives, lambda word: self._fits([subject.noun], verb, word.en))
        self._record([subject.noun], verb, predicate.en)
        if question:
            self.phenomena.add("question")
        negated = self._negates(tense, [subject])
        time = None if negated else self._sometimes(0.2, pools.ADVERBS["time"][tense])
        return Clause(
            subject, verb, tense, predicate=predicate, time=time, negated=negated, question=question
        )

    def _action(
        self, verb: Verb, subject: NounPhrase, opening: bool = False, question: bool = False
    ) -> Clause:
        """Draw what surrounds a verb and its subject."""
        tense = self._choose(self._tenses)
        tree = self._plain(verb, subject, tense, relative=0.14)
        if question:
            self.phenomena.add("question")
            asked = self._sometimes(0.3, pools.ADVERBS["question"][tense])
            negated = not asked and self._negates(tense, [subject, *tree.objects])
            return tree._replace(question=True, opening=asked, negated=negated)
        if opening and self._random() < 0.25:
            tree = tree._replace(opening=self._opening(tense))
        if self._negates(tense, [subject, *tree.objects]):
            return tree._replace(negated=True)
        # "must eat no cake" forbids, "muss keinen Kuchen essen" excuses: no negation under a modal.
        if verb.frame == "acc" and tense != "modal" and self._random() < 0.06:
            return tree._replace(objects=(self._none(tree.objects[0]),))
        return self._adverbs(tree)

    def _plain(self, verb: Verb, subject: NounPhrase, tense: str, relative: float = 0.0) -> Clause:
        """Draw a clause of subject, verb and objects."""
        modal = self._choose(pools.MODALS) if tense == "modal" else None
        nouns = [subject.noun, subject.partner.noun] if subject.partner else [subject.noun]
        objects = self._objects(verb, nouns, relative)
        if verb.prefix:
            self.phenomena.add("separable")
        if tense in ("perfect", "modal"):
            self.phenomena.add("bracket")
        return Clause(subject, verb, tense, modal, objects)

    def _opening(self, tense: str) -> Adverb:
        self.phenomena.add("inversion")
        times = pools.ADVERBS["time"][tense] if self._random() < 0.5 else []
        return self._choose(times or pools.ADVERBS["opening"][tense])

    def _adverbs(self, tree: Clause) -> Clause:
        """Add adverbials, none of them where a relative or reported clause could claim it."""
        verb, tense = tree.verb, tree.tense
        time = middle = manner = None
        place: Adverb | Place | None = None
        draw = self._random()
        if draw < 0.12 and not tree.subject.relative:
            middle = self._choose(pools.ADVERBS["middle"][tense])
        if any(phrase.relative for phrase in tree.objects) or verb in pools.REPORTS:
            return tree._replace(middle=middle)
        if 0.12 < draw < 0.24 and not tree.opening:
            time = self._choose(pools.ADVERBS["time"][tense])
        # German says these before an indefinite object and behind a definite one; only the latter is drawn.
        free = not verb.en_preposition and all(p.determiner in pools.IDENTIFYING for p in tree.objects)
        animate = tree.subject.noun.kind in ("person", "animal")
        active = animate and not any("animal" in kinds for kinds in verb.objects)
        if free and active and not middle and self._random() < 0.2:
            manner = self._choose(pools.ADVERBS["manner"][tense])
        elif free and self._random() < 0.3:
            place = self._place(tense)
        return tree._replace(time=time, middle=middle, manner=manner, place=place)

    def _place(self, tense: str) -> Adverb | Place:
        if self._random() < 0.25:
            return self._choose(pools.ADVERBS["place"][tense])
        preposition = self._choose(pools.PREPOSITIONS)
        if preposition.case == "dat":
            self.phenomena.add("dative")
        noun = self._choose(pools.NOUNS[self._choose(sorted(preposition.kinds))])
        return Place(preposition, self._phrase(noun, rich=0.15))

    def _negates(self, tense: str, phrases: Sequence[NounPhrase]) -> bool:
        """Decide on "not", drawn only among definite phrases and without a modal: there it has one scope."""
        if tense == "modal" or self._random() > 0.24:
            return False
        if any(p.determiner not in pools.IDENTIFYING or p.relative or p.partner for p in phrases):
            return False
        self.phenomena.add("negation")
        return True

    def _none(self, phrase: NounPhrase) -> NounPhrase:
        """Turn "the dog" into "no dog" where nothing else makes it definite."""
        if phrase.relative or phrase.owner:
            return phrase
        self.phenomena.add("negation")
        return phrase._replace(determiner=pools.DETERMINERS["no"])

    def _actor(self, nouns: Sequence[Noun], verb: Verb) -> Noun:
        """Choose a subject; that of a verb without objects is a triple by itself."""
        if verb.objects:
            return self._choose(nouns)
        return self._fitting(nouns, lambda noun: self._fits([noun], verb, ""))

    def _subject(self, verb: Verb) -> NounPhrase:
        nouns = pools.NOUNS[self._choose(sorted(verb.subjects))]
        noun = self._actor(nouns, verb)
        if not verb.objects or self._random() > 0.06:
            return self._phrase(noun, relative=0.13)
        self.phenomena.add("coordination")
        partner = self._choose([other for other in nouns if other is not noun])
        first, second = (NounPhrase(n, self._choose(pools.DEFINITE)) for n in (noun, partner))
        return first._replace(partner=second)

    def _objects(self, verb: Verb, subjects: list[Noun], relative: float) -> tuple[NounPhrase, ...]:
        if not verb.objects:
            if not self._fits(subjects, verb, ""):
                raise NoChoice
            self._record(subjects, verb, "")
        taken = list(subjects)
        phrases: list[NounPhrase] = []
        for kinds, case in zip(verb.objects, verb.cases, strict=True):
            nouns = pools.NOUNS[self._choose(sorted(kinds))]
            noun = self._fitting(nouns, lambda n: n not in taken and self._fits(subjects, verb, n.en))
            taken.append(noun)
            self._record(subjects, verb, noun.en)
            last = len(phrases) == len(verb.objects) - 1 and not verb.en_preposition
            phrases.append(self._phrase(noun, relative=relative if last else 0.0))
            self._mark(phrases[-1], case)
        return tuple(phrases)

    def _mark(self, phrase: NounPhrase, case: str) -> None:
        if case == "dat":
            self.phenomena.add("dative")
        elif form(phrase.noun, phrase.plural) == "m":
            self.phenomena.add("accusative")

    def _phrase(self, noun: Noun, relative: float = 0.0, rich: float = 0.3) -> NounPhrase:
        """Draw what surrounds a noun; `relative` is the chance of a clause, `rich` that of adjectives."""
        plural = self._random() < 0.3
        determiner = self._choose(pools.PLURAL if plural else pools.SINGULAR)
        adjectives: tuple[Adjective, ...] = ()
        degree = owner = None
        if self._random() < rich:
            adjectives, degree = self._adjectives(noun)
        if noun.kind != "person" and self._random() < rich / 2:
            determiner, owner = pools.DETERMINERS["the"], self._owner()
        phrase = NounPhrase(noun, determiner, plural, adjectives, degree, owner)
        if owner or self._random() >= relative:
            return phrase
        self.phenomena |= {"relative", "verb_final"}
        return phrase._replace(relative=self._relative(phrase))

    def _adjectives(self, noun: Noun) -> tuple[tuple[Adjective, ...], Adverb | None]:
        self.phenomena.add("adjective")
        words = pools.ADJECTIVES[noun.kind]
        first = self._choose(words)
        degree = self._sometimes(0.15, pools.ADVERBS["degree"]["present"])
        if degree or self._random() < 0.85:
            return (first,), degree
        return (first, self._choose([word for word in words if word is not first])), None

    def _owner(self) -> NounPhrase:
        self.phenomena.add("genitive")
        noun, plural = self._choose(pools.NOUNS["person"]), self._random() < 0.2
        adjectives = (self._choose(pools.ADJECTIVES["person"]),) if self._random() < 0.15 else ()
        return NounPhrase(noun, self._choose(pools.DEFINITE), plural, adjectives)

    def _relative(self, head: NounPhrase) -> Clause:
        """Draw a clause that lacks the subject or the object, which its head noun supplies."""
        kind = head.noun.kind
        if pools.TAKES_OBJECT[kind] and self._random() < 0.35:
            return self._object_relative(head, self._choose(pools.TAKES_OBJECT[kind]))
        gap = NounPhrase(head.noun, head.determiner, head.plural)
        if self._random() < 0.12 or not pools.TAKES_SUBJECT[kind]:
            return self._description(gap)._replace(gap="subject", time=None)
        verb = self._choose(pools.TAKES_SUBJECT[kind])
        return self._plain(verb, gap, self._choose(self._tenses))._replace(gap="subject")

    def _object_relative(self, head: NounPhrase, verb: Verb) -> Clause:
        nouns = pools.NOUNS[self._choose(sorted(verb.subjects))]
        noun = self._fitting(nouns, lambda n: n is not head.noun and self._fits([n], verb, head.noun.en))
        subject = self._phrase(noun, rich=0.1)
        masculine = "m" in (form(head.noun, head.plural), form(noun, subject.plural))
        if verb.cases == ("acc",) and not masculine and head.plural == subject.plural:
            raise NoChoice  # "die Frau, die die Katze sieht": who sees whom?
        self._record([noun], verb, head.noun.en)
        self._mark(head, verb.cases[0])
        if verb.prefix:
            self.phenomena.add("separable")
        gap = NounPhrase(head.noun, head.determiner, head.plural)
        return Clause(subject, verb, self._tenses[0], objects=(gap,), gap="object")

    def _fits(self, subjects: Sequence[Noun], verb: Verb, object_: str) -> bool:
        return all(self._allowed((subject.en, verb.en, object_)) for subject in subjects)

    def _record(self, subjects: Sequence[Noun], verb: Verb, object_: str) -> None:
        self.triples.update((subject.en, verb.en, object_) for subject in subjects)

    def _choose(self, items: Sequence[T]) -> T:
        return items[int(self._random() * len(items))]

    def _sometimes(self, chance: float, items: Sequence[T]) -> T | None:
        return self._choose(items) if items and self._random() < chance else None

    def _fitting(self, items: Sequence[T], fits: Callable[[T], bool]) -> T:
        """Choose among what fits: by luck first, which in training nearly always suffices, then by search."""
        for _ in range(3):
            item = self._choose(items)
            if fits(item):
                return item
        remaining = [item for item in items if fits(item)]
        if not remaining:
            raise NoChoice
        return self._choose(remaining)
