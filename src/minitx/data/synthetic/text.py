"""Serve the embedded corpus: an English-German grammar of our own, in which order carries meaning.

- Needs no network and no file outside this package; every set follows from the seed alone, on any platform.
- One English sentence has one German translation and the reverse: a perfect model scores 100 BLEU either way.
- A stable hash holds out a tenth of all (subject, verb, object) triples. Training sentences have none of
  these, all other sets have nothing else: no sentence outside of training can be recalled.
- `minimal_pairs` exchanges subject and object. Both lines hold the same English words, so a model that
  ignores their order gets at most half of the roles right. `pairs_N` has such a clause before others, N words in all.
- `test_shuffled` is the test set with the source's words, but for the first, in random order, and so the same bag of
  tokens: what does a model make of their order?
"""

import ast
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from minitx.data.synthetic import english, german
from minitx.data.synthetic.grammar import PHENOMENA, Grammar, NoChoice, Triple
from minitx.data.synthetic.lexicon import lexicon
from minitx.data.synthetic.pools import COORDINATORS, DETERMINERS, NOUNS, ROLE_VERBS, SUBORDINATORS
from minitx.data.synthetic.syntax import Clause, NounPhrase, Part
from minitx.data.synthetic.syntax import Sentence as Tree

__all__ = [
    "LENGTHS", "PHENOMENA", "Pair", "Sentence", "SyntheticCorpus", "role_accuracy_pct", "role_swaps_pct", "shuffled",
    "word_for_word",
]  # fmt: skip

Pair = tuple[str, str]
LENGTHS = (10, 20, 50, 100, 200)
"""English words a sentence, met exactly."""
ORDINARY = range(4, 17)
LONGER = 0.5  # of the training text, where it has longer sentences than these
EVALUATION_SIZE, LENGTH_SIZE, MINIMAL_PAIRS, LONG_PAIRS = 1000, 200, 500, 100
HELD_OUT = 10
"""One triple in so many is kept from training."""
_SOURCES = (
    "lexicon.tsv", "lexicon.py", "syntax.py", "english.py", "german.py",
    "pools.py", "grammar.py", "text.py",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentence:
    """An English sentence (`src`) and its German translation (`tgt`)."""

    src: str
    tgt: str
    phenomena: frozenset[str]
    triples: frozenset[Triple]


class SyntheticCorpus:
    """Generate each set on first use."""

    def __init__(self, seed: int, train_size: int, train_words: int = ORDINARY[-1]) -> None:
        """train_words: of the longest training sentence."""
        self.seed = seed
        self.train_size, self.train_words = train_size, train_words
        lengths, pairs = (f"length_{words}" for words in LENGTHS), (f"pairs_{words}" for words in LENGTHS[1:])
        self.split_names = ("train", "valid", "test", "minimal_pairs", *lengths, *pairs, "test_shuffled")
        self._cache: dict[str, list[Sentence]] = {}
        self._held_out: dict[Triple, bool] = {}

    def sentences(self, split: str) -> list[Sentence]:
        """Give a set in its fixed order; raise KeyError on an unknown name."""
        if split not in self.split_names:
            raise KeyError(f"no set {split!r}; there are {', '.join(self.split_names)}")
        if split not in self._cache:
            self._cache[split] = self._generate(split)
        return self._cache[split]

    def pairs(self, split: str, src: str, limit: int | None = None) -> list[Pair]:
        """Give a set's sentences in the source language, and their translations; limit: only the first so many."""
        pairs = [(sentence.src, sentence.tgt) for sentence in self.sentences(split)[:limit]]
        pairs = pairs if src == "en" else [(german, english) for english, german in pairs]
        if split != "test_shuffled":
            return pairs
        random = Random(f"minitx {self.seed} {split}")
        return [(shuffled(source, random), target) for source, target in pairs]

    @property
    def fingerprint(self) -> str:
        """Hash all that the text depends on (sha256, hex): the lexicon, the grammar's code, the seed and the size.

        Imports and docstrings of the code are left out, so neither moving a module nor describing it better makes the
        same text another one.
        """
        parts = self.seed, self.train_size, self.train_words, _sources_sha256()
        return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()

    def held_out(self, triple: Triple) -> bool:
        """Tell whether a triple is kept from training."""
        known = self._held_out.get(triple)
        if known is None:
            digest = hashlib.blake2b(f"{self.seed} {' '.join(triple)}".encode(), digest_size=8).digest()
            known = self._held_out[triple] = int.from_bytes(digest, "big") % HELD_OUT == 0
        return known

    def _generate(self, split: str) -> list[Sentence]:
        random = Random(f"minitx {self.seed} {split}")
        if split == "train":
            grammar = Grammar(random, lambda triple: not self.held_out(triple))
            return [self._training_sentence(grammar, random) for _ in range(self.train_size)]
        grammar = Grammar(random, self.held_out)
        if split == "minimal_pairs":
            return _minimal_pairs(random, self.held_out, MINIMAL_PAIRS)
        if split.startswith("pairs_"):
            return _minimal_pairs(random, self.held_out, LONG_PAIRS, int(split.removeprefix("pairs_")))
        if split == "test_shuffled":
            return self.sentences("test")
        if split.startswith("length_"):
            words = int(split.removeprefix("length_"))
            return _distinct(lambda: _of_length(grammar, random, words), LENGTH_SIZE, set())
        seen = {sentence.src for sentence in self.sentences("valid")} if split == "test" else set()
        return _distinct(lambda: _ordinary(grammar), EVALUATION_SIZE, seen)

    def _training_sentence(self, grammar: Grammar, random: Random) -> Sentence:
        """Draw an ordinary sentence or, of a text that has them, a longer one: lengths evenly over their logarithm."""
        shortest = ORDINARY[-1] + 1
        if self.train_words < shortest or random.random() >= LONGER:
            return _ordinary(grammar)
        return _of_length(grammar, random, int(shortest * ((self.train_words + 1) / shortest) ** random.random()))


@cache
def _sources_sha256() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        source = Path(__file__).with_name(name).read_text(encoding="utf-8")
        digest.update((code_of(source) if name.endswith(".py") else source).encode())
    return digest.hexdigest()


def code_of(source: str) -> str:
    """Return a module's source without imports, docstrings and empty lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if (isinstance(node, ast.Import | ast.ImportFrom)
                or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(filter(str.strip, lines))


def _sentence(tree: Tree, phenomena: set[str], triples: set[Triple]) -> Sentence:
    return Sentence(english.sentence(tree), german.sentence(tree), frozenset(phenomena), frozenset(triples))


def _distinct(draw: Callable[[], Sentence], size: int, seen: set[str]) -> list[Sentence]:
    sentences: list[Sentence] = []
    while len(sentences) < size:
        sentence = draw()
        if sentence.src not in seen:
            seen.add(sentence.src)
            sentences.append(sentence)
    return sentences


def _ordinary(grammar: Grammar) -> Sentence:
    while True:
        try:
            tree = grammar.sentence()
        except NoChoice:
            continue
        sentence = _sentence(tree, grammar.phenomena, grammar.triples)
        if sentence.src.count(" ") + 1 in ORDINARY:
            return sentence


def _of_length(grammar: Grammar, random: Random, words: int) -> Sentence:
    """Join clauses until the sentence has exactly so many words."""
    grammar.begin()
    return _sentence(*_filled(grammar, random, [], words))


def _filled(grammar: Grammar, random: Random, parts: list[Part], missing: int) -> tuple[Tree, set[str], set[Triple]]:
    """Add clauses of so many words, and tell what was drawn; the shortest part is "and dogs sleep"."""
    parts = list(parts)
    phenomena: set[str] = set()
    triples: set[Triple] = set()
    while missing:
        after_main = bool(parts) and (parts[-1].link is None or parts[-1].link.kind == "coordinating")
        conjunctions = SUBORDINATORS if after_main and random.random() < 0.5 else COORDINATORS
        grammar.clear()
        try:
            part = grammar.link(conjunctions) if parts else Part(None, grammar.clause())
        except NoChoice:
            continue
        length = _words(part)
        if length == missing or length <= missing - 5:
            parts.append(part)
            missing -= length
            phenomena |= grammar.phenomena
            triples |= grammar.triples
    return tuple(parts), phenomena, triples


def _words(part: Part) -> int:
    return sum(word != "," for word in english.clause(part.clause)) + (part.link is not None)


def _minimal_pairs(random: Random, held_out: Callable[[Triple], bool], pairs: int, words: int = 0) -> list[Sentence]:
    """Draw pairs of sentences that differ in who does it to whom, and in nothing else.

    words: of each, with other clauses after that one; 0 = with none
    """
    grammar = Grammar(random, held_out)
    animate = NOUNS["person"] + NOUNS["animal"]
    seen: set[tuple[str, frozenset[str]]] = set()
    sentences: list[Sentence] = []
    while len(sentences) < 2 * pairs:
        verb, first, second = random.choice(ROLE_VERBS), random.choice(animate), random.choice(animate)
        triples = [(first.en, verb.en, second.en), (second.en, verb.en, first.en)]
        key = verb.en, frozenset((first.en, second.en))
        if first is second or key in seen or not all(map(held_out, triples)):
            continue
        seen.add(key)
        tense, plural = random.choice(("present", "past", "perfect")), random.random() < 0.3
        same_article = english.article(first.en) == english.article(second.en)
        article = DETERMINERS["a" if not plural and same_article and random.random() < 0.4 else "the"]
        phrases = [NounPhrase(noun, article, plural) for noun in (first, second)]
        mains = [Part(None, Clause(subject, verb, tense, objects=(object_,)))
                 for subject, object_ in (phrases, phrases[::-1])]
        rest: tuple[Tree, set[str], set[Triple]] = ((), set(), set())
        if words:
            grammar.begin()
            rest = _filled(grammar, random, mains[:1], words - _words(mains[0]))
        for main, triple in zip(mains, triples, strict=True):
            phenomena = rest[1] | ({"bracket"} if tense == "perfect" else set())
            if german.form(main.clause.objects[0].noun, plural) == "m":
                phenomena.add("accusative")
            sentences.append(_sentence((main, *rest[0][1:]), phenomena, rest[2] | {triple}))
    return sentences


def shuffled(sentence: str, random: Random) -> str:
    """Put a sentence's words in random order, but for the first and the mark at the end.

    Only the first has a capital: wherever it went, other tokens would stand for it. So the tokens stay the same bag.
    """
    first, *others = sentence[:-1].split()
    random.shuffle(others)
    return " ".join([first, *others]) + sentence[-1:]


@cache
def _dictionary() -> dict[str, str]:
    """Map each English form to the one German form it most often has."""
    words = lexicon()
    entries = {
        "the": "die", "a": "ein", "an": "ein", "not": "nicht", "who": "der", "whom": "den", "to": "zu",
        "do": "tun", "does": "tut", "did": "tat", "has": "hat", "have": "haben",
        "are": "sind", "were": "waren",
    }  # fmt: skip
    for uninflected in (words.prepositions, words.conjunctions, words.adverbs, words.adjectives):
        entries |= {word.en: word.de for word in uninflected}
    for determiner in words.determiners:
        agreement: german.Form = "p" if determiner.number == "plural" else "m"
        entries.setdefault(determiner.en, german.determiner_form(determiner, "nom", agreement))
    for modal in words.modals:
        entries[modal.en] = modal.de_third
    for verb in words.verbs:
        entries[verb.en_participle] = verb.de_participle
        entries[verb.en_past] = f"{verb.de_past} {verb.prefix}".rstrip()
        entries[verb.en] = verb.prefix + verb.de
        entries[verb.en_third] = f"{verb.de_third} {verb.prefix}".rstrip()
        if verb.de_preposition:
            entries.setdefault(verb.en_preposition, verb.de_preposition)
    for noun in words.nouns:
        entries |= {noun.en: noun.de, noun.en_plural: noun.de_plural, noun.en + "'s": noun.de_genitive}
        entries[english.possessive(noun.en_plural, plural=True)] = noun.de_plural
    return entries


def word_for_word(sentence: str) -> str:
    """Translate word by word with a dictionary and keep the order: the baseline that a model has to beat."""
    found = [
        _dictionary().get(word.rstrip(","), word) + "," * word.endswith(",")
        for word in (sentence[:1].lower() + sentence[1:-1]).split()
    ]
    text = " ".join(found) + sentence[-1:]
    return text[:1].upper() + text[1:]


# German "an" is a prefix, and then the last word; English "an" is not.
_ARTICLES = {"the", "a", "an", "der", "die", "das", "den", "ein", "eine", "einen"}


def _roles(sentence: str) -> tuple[str, ...]:
    """List the noun phrases of a minimal-pair sentence, with "*" for whatever stands before or between."""
    words = iter((sentence[:1].lower() + sentence[1:]).rstrip(".").split())
    found: list[str] = []
    for word in words:
        following = next(words, "") if word in _ARTICLES else ""
        if following or word in _ARTICLES - {"an"}:
            found.append(f"{word} {following}")
        elif word[:1].isupper():
            found.append(word)
        elif found[-1:] != ["*"]:
            found.append("*")
    return tuple(found[:-1] if found[-1:] == ["*"] else found)


def role_accuracy_pct(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Give the share of minimal-pair sentences whose subject and object are the reference's.

    Article and noun must agree to the letter on both sides of the verb, and no noun phrase may be missing or
    added; the verb itself is free. Of a sentence of several clauses the first counts, which a comma ends.
    Raises ValueError on no sentences or unequal numbers of them.
    """
    if not references:
        raise ValueError("role accuracy needs at least one sentence")

    def right(found: str, wanted: str) -> bool:
        if "," in wanted:
            found, wanted = (text.partition(",")[0] + "." for text in (found, wanted))
        return _roles(found) == _roles(wanted)

    return 100 * sum(right(*pair) for pair in zip(hypotheses, references, strict=True)) / len(references)


def role_swaps_pct(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Give the share of minimal-pair sentences whose subject and object are those of the pair's other sentence."""
    return role_accuracy_pct(hypotheses, [references[row ^ 1] for row in range(len(references))])
