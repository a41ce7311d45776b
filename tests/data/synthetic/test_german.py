"""German as the textbook has it: paradigms first, then clauses, each against a sentence written by hand."""

from dataclasses import replace

import pytest

from minitx.data.synthetic import english, german
from minitx.data.synthetic.lexicon import CASES, Adjective, Adverb, Noun, Verb, lexicon
from minitx.data.synthetic.pools import DETERMINERS
from minitx.data.synthetic.syntax import Clause, NounPhrase, Part, Place, Sentence

WORDS = lexicon()
NOUNS = {noun.en: noun for noun in WORDS.nouns}
VERBS = {verb.en: verb for verb in WORDS.verbs}
ADJECTIVES = {adjective.en: adjective for adjective in WORDS.adjectives}
ADVERBS = {adverb.en: adverb for adverb in WORDS.adverbs}
CONJUNCTIONS = {conjunction.en: conjunction for conjunction in WORDS.conjunctions}
PREPOSITIONS = {preposition.en: preposition for preposition in WORDS.prepositions}
MODALS = {modal.en: modal for modal in WORDS.modals}


def np(words: str, plural: bool = False, **rest: object) -> NounPhrase:
    """Build a noun phrase from English citation forms: determiner, adjectives, noun."""
    determiner, *adjectives, noun = words.split()
    article = DETERMINERS[determiner.strip("-")]
    phrase = NounPhrase(NOUNS[noun], article, plural, tuple(ADJECTIVES[word] for word in adjectives))
    return phrase._replace(**rest)  # type: ignore[arg-type]


def say(*parts: Clause | tuple[str, Clause]) -> tuple[str, str]:
    """Say clauses, each behind its conjunction if it has one, in both languages."""
    tree: Sentence = tuple(
        Part(None, part) if isinstance(part, Clause) else Part(CONJUNCTIONS[part[0]], part[1])
        for part in parts
    )
    return english.sentence(tree), german.sentence(tree)


DOG, CAT, BOY = np("the dog"), np("the cat"), np("the boy")
SEES = Clause(DOG, VERBS["see"], objects=(CAT,))
SLEEPS = Clause(DOG, VERBS["sleep"])
CALLS = Clause(np("the woman"), VERBS["call"], objects=(BOY,))


# Columns: nominative, accusative, dative, genitive.
@pytest.mark.parametrize(
    ("words", "plural", "expected"),
    [
        ("the dog", False, "der Hund, den Hund, dem Hund, des Hundes"),
        ("the cat", False, "die Katze, die Katze, der Katze, der Katze"),
        ("the child", False, "das Kind, das Kind, dem Kind, des Kindes"),
        ("the child", True, "die Kinder, die Kinder, den Kindern, der Kinder"),
        ("the car", True, "die Autos, die Autos, den Autos, der Autos"),
        ("the woman", True, "die Frauen, die Frauen, den Frauen, der Frauen"),
        ("a dog", False, "ein Hund, einen Hund, einem Hund, eines Hundes"),
        ("a cat", False, "eine Katze, eine Katze, einer Katze, einer Katze"),
        ("a child", False, "ein Kind, ein Kind, einem Kind, eines Kindes"),
        ("the boy", False, "der Junge, den Jungen, dem Jungen, des Jungen"),
        ("the student", False, "der Student, den Studenten, dem Studenten, des Studenten"),
        ("the neighbour", False, "der Nachbar, den Nachbarn, dem Nachbarn, des Nachbarn"),
        ("the bus", False, "der Bus, den Bus, dem Bus, des Busses"),
        ("the prison", True, "die Gefängnisse, die Gefängnisse, den Gefängnissen, der Gefängnisse"),
        ("this dog", False, "dieser Hund, diesen Hund, diesem Hund, dieses Hundes"),
        ("this child", False, "dieses Kind, dieses Kind, diesem Kind, dieses Kindes"),
        ("every cat", False, "jede Katze, jede Katze, jeder Katze, jeder Katze"),
        ("our dog", False, "unser Hund, unseren Hund, unserem Hund, unseres Hundes"),
        ("no dog", True, "keine Hunde, keine Hunde, keinen Hunden, keiner Hunde"),
        ("two dog", True, "zwei Hunde, zwei Hunde, zwei Hunden, zwei Hunde"),
        # weak adjective endings
        ("the old man", False, "der alte Mann, den alten Mann, dem alten Mann, des alten Mannes"),
        ("the old woman", False, "die alte Frau, die alte Frau, der alten Frau, der alten Frau"),
        ("the old house", False, "das alte Haus, das alte Haus, dem alten Haus, des alten Hauses"),
        ("the old man", True, "die alten Männer, die alten Männer, den alten Männern, der alten Männer"),
        # mixed
        ("a old man", False, "ein alter Mann, einen alten Mann, einem alten Mann, eines alten Mannes"),
        ("a old woman", False, "eine alte Frau, eine alte Frau, einer alten Frau, einer alten Frau"),
        ("a old house", False, "ein altes Haus, ein altes Haus, einem alten Haus, eines alten Hauses"),
        ("my old cow", True, "meine alten Kühe, meine alten Kühe, meinen alten Kühen, meiner alten Kühe"),
        # strong
        ("- old man", True, "alte Männer, alte Männer, alten Männern, alter Männer"),
        ("many old cow", True, "viele alte Kühe, viele alte Kühe, vielen alten Kühen, vieler alter Kühe"),
        # stems that change before an ending
        ("the dark hat", False, "der dunkle Hut, den dunklen Hut, dem dunklen Hut, des dunklen Hutes"),
        ("a high hill", False, "ein hoher Hügel, einen hohen Hügel, einem hohen Hügel, eines hohen Hügels"),
        ("the tired bear", False, "der müde Bär, den müden Bären, dem müden Bären, des müden Bären"),
        ("a expensive hat", False, "ein teurer Hut, einen teuren Hut, einem teuren Hut, eines teuren Hutes"),
    ],
)  # fmt: skip
def test_noun_phrases_decline(words: str, plural: bool, expected: str) -> None:
    assert ", ".join(" ".join(german.noun_phrase(np(words, plural), case)) for case in CASES) == expected


@pytest.mark.parametrize(
    ("verb", "present", "presents", "past", "pasts", "perfect"),
    [
        ("see", "sieht", "sehen", "sah", "sahen", "hat gesehen"),
        ("help", "hilft", "helfen", "half", "halfen", "hat geholfen"),
        ("chase", "jagt", "jagen", "jagte", "jagten", "hat gejagt"),
        ("wait", "wartet", "warten", "wartete", "warteten", "hat gewartet"),
        ("go", "geht", "gehen", "ging", "gingen", "ist gegangen"),
        ("visit", "besucht", "besuchen", "besuchte", "besuchten", "hat besucht"),
        ("know", "weiß", "wissen", "wusste", "wussten", "hat gewusst"),
        ("be", "ist", "sind", "war", "waren", "ist gewesen"),
        ("become", "wird", "werden", "wurde", "wurden", "ist geworden"),
        ("call", "ruft an", "rufen an", "rief an", "riefen an", "hat angerufen"),
        ("arrive", "kommt an", "kommen an", "kam an", "kamen an", "ist angekommen"),
        ("imitate", "ahmt nach", "ahmen nach", "ahmte nach", "ahmten nach", "hat nachgeahmt"),
    ],
)
def test_verbs_conjugate(
    verb: str, present: str, presents: str, past: str, pasts: str, perfect: str
) -> None:
    forms = [
        " ".join(german.verb_forms(VERBS[verb], tense, plural)).strip()
        for tense, plural in [(tense, plural) for tense in ("present", "past") for plural in (False, True)]
        + [("perfect", False)]
    ]
    assert forms == [present, presents, past, pasts, perfect]


def test_relative_pronouns_agree_with_the_noun_and_take_the_case_of_their_clause() -> None:
    pronouns = [[german.RELATIVE[case, form] for form in ("m", "f", "n", "p")] for case in CASES]
    assert pronouns == [
        ["der", "die", "das", "die"],
        ["den", "die", "das", "die"],
        ["dem", "der", "dem", "denen"],
        ["dessen", "deren", "dessen", "deren"],
    ]


def relative(head: NounPhrase, clause: Clause, gap: str) -> NounPhrase:
    return head._replace(relative=clause._replace(gap=gap))


SUBJECT_RELATIVE = relative(DOG, SEES, "subject")
OBJECT_RELATIVE = relative(BOY, CALLS, "object")
DATIVE_RELATIVE = relative(np("the child", True), Clause(DOG, VERBS["help"], objects=(CAT,)), "object")
TODAY, OFTEN, CAREFULLY = ADVERBS["today"], ADVERBS["often"], ADVERBS["carefully"]
GIVES = Clause(np("the teacher"), VERBS["give"], objects=(np("the child"), np("a book")))
IN_GARDEN = Place(PREPOSITIONS["in"], np("the garden"))


@pytest.mark.parametrize(
    ("parts", "source", "target"),
    [
        # roles
        ([SEES], "The dog sees the cat.", "Der Hund sieht die Katze."),
        ([SEES._replace(subject=CAT, objects=(DOG,))], "The cat sees the dog.", "Die Katze sieht den Hund."),
        ([GIVES], "The teacher gives the child a book.", "Der Lehrer gibt dem Kind ein Buch."),
        ([Clause(CAT, VERBS["help"], objects=(BOY,))],
         "The cat helps the boy.", "Die Katze hilft dem Jungen."),
        # verb second
        ([SEES._replace(opening=TODAY)], "Today the dog sees the cat.", "Heute sieht der Hund die Katze."),
        ([SEES._replace(time=TODAY)], "The dog sees the cat today.", "Der Hund sieht heute die Katze."),
        ([SEES._replace(middle=OFTEN)], "The dog often sees the cat.", "Der Hund sieht oft die Katze."),
        ([SEES._replace(manner=CAREFULLY)],
         "The dog sees the cat carefully.", "Der Hund sieht die Katze sorgfältig."),
        # the bracket
        ([CALLS], "The woman calls the boy.", "Die Frau ruft den Jungen an."),
        ([CALLS._replace(tense="past")], "The woman called the boy.", "Die Frau rief den Jungen an."),
        ([CALLS._replace(tense="perfect")],
         "The woman has called the boy.", "Die Frau hat den Jungen angerufen."),
        ([CALLS._replace(tense="modal", modal=MODALS["can"])],
         "The woman can call the boy.", "Die Frau kann den Jungen anrufen."),
        # verb last
        ([SLEEPS, ("because", CALLS)],
         "The dog sleeps because the woman calls the boy.",
         "Der Hund schläft, weil die Frau den Jungen anruft."),
        ([SLEEPS, ("although", CALLS._replace(tense="perfect"))],
         "The dog sleeps although the woman has called the boy.",
         "Der Hund schläft, obwohl die Frau den Jungen angerufen hat."),
        ([("while", CALLS._replace(tense="modal", modal=MODALS["must"])), SLEEPS],
         "While the woman must call the boy, the dog sleeps.",
         "Während die Frau den Jungen anrufen muss, schläft der Hund."),
        ([Clause(np("the woman"), VERBS["say"], complement=(CONJUNCTIONS["that"], SEES))],
         "The woman says that the dog sees the cat.", "Die Frau sagt, dass der Hund die Katze sieht."),
        # questions and negation
        ([SEES._replace(question=True)], "Does the dog see the cat?", "Sieht der Hund die Katze?"),
        ([SEES._replace(question=True, opening=ADVERBS["why"], tense="past")],
         "Why did the dog see the cat?", "Warum sah der Hund die Katze?"),
        ([SEES._replace(negated=True)], "The dog does not see the cat.", "Der Hund sieht die Katze nicht."),
        ([CALLS._replace(negated=True, tense="perfect")],
         "The woman has not called the boy.", "Die Frau hat den Jungen nicht angerufen."),
        ([Clause(DOG, VERBS["be"], predicate=ADJECTIVES["tired"], negated=True)],
         "The dog is not tired.", "Der Hund ist nicht müde."),
        ([SEES._replace(objects=(np("no cat"),))], "The dog sees no cat.", "Der Hund sieht keine Katze."),
        # relative clauses: commas, case of the pronoun, extraposition behind the bracket
        ([SLEEPS._replace(subject=SUBJECT_RELATIVE)],
         "The dog that sees the cat sleeps.", "Der Hund, der die Katze sieht, schläft."),
        ([SLEEPS._replace(subject=OBJECT_RELATIVE)],
         "The boy whom the woman calls sleeps.", "Der Junge, den die Frau anruft, schläft."),
        ([SLEEPS._replace(subject=DATIVE_RELATIVE)],
         "The children whom the dog helps sleep.", "Die Kinder, denen der Hund hilft, schlafen."),
        ([CALLS._replace(objects=(OBJECT_RELATIVE,), tense="perfect"), ("and", SLEEPS)],
         "The woman has called the boy whom the woman calls, and the dog sleeps.",
         "Die Frau hat den Jungen angerufen, den die Frau anruft, und der Hund schläft."),
        # coordination
        ([SLEEPS, ("but", SEES)], "The dog sleeps, but the dog sees the cat.",
         "Der Hund schläft, aber der Hund sieht die Katze."),
        ([SLEEPS._replace(subject=np("the dog", partner=CAT))],
         "The dog and the cat sleep.", "Der Hund und die Katze schlafen."),
        ([SEES._replace(second=SLEEPS)],
         "The dog sees the cat and sleeps.", "Der Hund sieht die Katze und schläft."),
        # genitive, commas between adjectives, prepositions and their articles
        ([SLEEPS._replace(subject=np("the old dog", owner=np("the student")))],
         "The student's old dog sleeps.", "Der alte Hund des Studenten schläft."),
        ([SLEEPS._replace(subject=np("the dog", owner=np("the king", True)))],
         "The kings' dog sleeps.", "Der Hund der Könige schläft."),
        ([SLEEPS._replace(subject=np("a old beautiful dog"))],
         "An old, beautiful dog sleeps.", "Ein alter, schöner Hund schläft."),
        ([SLEEPS._replace(place=IN_GARDEN)], "The dog sleeps in the garden.", "Der Hund schläft im Garten."),
        ([Clause(DOG, VERBS["go"], objects=(np("the house"),))],
         "The dog goes into the house.", "Der Hund geht ins Haus."),
        ([Clause(DOG, VERBS["go"], objects=(np("the garden"),), tense="perfect")],
         "The dog has gone into the garden.", "Der Hund ist in den Garten gegangen."),
        ([Clause(DOG, VERBS["dream"], objects=(np("a cat"),))],
         "The dog dreams of a cat.", "Der Hund träumt von einer Katze."),
    ],
)  # fmt: skip
def test_sentences_follow_the_grammar(
    parts: list[Clause | tuple[str, Clause]], source: str, target: str
) -> None:
    assert say(*parts) == (source, target)


def english_forms(entry: Noun | Verb | Adjective | Adverb) -> set[str]:
    if isinstance(entry, Noun):
        return {entry.en, entry.en_plural}
    if isinstance(entry, Verb):
        return {entry.en, entry.en_third, entry.en_past, entry.en_participle}
    return {entry.en}


def test_no_two_entries_share_an_english_form_or_a_german_citation_form() -> None:
    entries: list[Noun | Verb | Adjective | Adverb] = [*WORDS.nouns, *WORDS.verbs]
    entries += [*WORDS.adjectives, *WORDS.adverbs]
    assert len(entries) >= 400
    forms = [form for entry in entries for form in english_forms(entry)]
    assert len(forms) == len(set(forms))
    citations = [e.prefix + e.de if isinstance(e, Verb) else e.de for e in entries]
    assert len(citations) == len(set(citations))


def test_english_tenses_and_numbers_differ() -> None:
    assert all(noun.en != noun.en_plural for noun in WORDS.nouns)
    assert all(len({verb.en, verb.en_third, verb.en_past}) == 3 for verb in WORDS.verbs)


def test_nouns_are_capitalised_and_other_words_are_not() -> None:
    assert all(form.istitle() for noun in WORDS.nouns for form in (noun.de, noun.de_plural, noun.de_genitive))
    assert all(verb.de.islower() for verb in WORDS.verbs)
    assert all(adjective.de.islower() for adjective in WORDS.adjectives)


def test_weak_nouns_are_known_by_their_genitive() -> None:
    assert NOUNS["boy"].weak
    assert NOUNS["bear"].weak
    assert not NOUNS["dog"].weak
    assert not replace(NOUNS["boy"], gender="n").weak
