"""Inflect German words and say a tree of `syntax` in German.

- The finite verb stands second in a main clause, first in a question, last in a subordinate clause.
- The middle field runs: time, frequency, dative, accusative, manner, `nicht`, place, governed phrase,
  predicate.
- The bracket closes with the separable prefix, the participle or the infinitive; a relative clause on an
  object and a complement clause follow it.
- Every subordinate clause stands between commas; main clauses joined by `und` or `aber` are parted by one.

Source of the paradigms: Duden, Die Grammatik, chapters on the noun, the adjective and the verb.
"""

from typing import Literal

from minitx.data.synthetic.lexicon import CASES, Adjective, Case, Determiner, Modal, Noun, Verb
from minitx.data.synthetic.syntax import Clause, NounPhrase, Place, Sentence, spell

Form = Literal["m", "f", "n", "p"]
"""A gender, or `p` for the plural, which has none."""
Order = Literal["first", "second", "last"]
Paradigm = dict[tuple[Case, Form], str]


def _paradigm(rows: str) -> Paradigm:
    forms: tuple[Form, ...] = ("m", "f", "n", "p")
    cells = iter(rows.replace("/", "").split())
    return {(case, column): next(cells).strip("-") for case in CASES for column in forms}


# Columns: masculine, feminine, neuter, plural. Rows: nominative, accusative, dative, genitive.
DEFINITE = _paradigm("der die das die / den die das die / dem der dem den / des der des der")
RELATIVE = _paradigm("der die das die / den die das die / dem der dem denen / dessen deren dessen deren")
DER_WORD = _paradigm("er e es e / en e es e / em er em en / es er es er")
EIN_WORD = _paradigm("- e - e / en e - e / em er em en / es er es er")
STRONG = _paradigm("er e es e / en e es e / em er em en / en er en er")
WEAK = _paradigm("e e e en / en e e en / en en en en / en en en en")
MIXED = _paradigm("er e es en / en e es en / en en en en / en en en en")

DETERMINER_ENDINGS = {"der-word": DER_WORD, "ein-word": EIN_WORD, "quantifier": DER_WORD}
ADJECTIVE_ENDINGS = {"definite": WEAK, "der-word": WEAK, "ein-word": MIXED}  # any other: STRONG
CONTRACTIONS = {("in", "dem"): "im", ("in", "das"): "ins", ("von", "dem"): "vom"}


def form(noun: Noun, plural: bool) -> Form:
    """Give the column of a paradigm that agrees with the noun."""
    return "p" if plural else noun.gender


def noun_form(noun: Noun, case: Case, plural: bool) -> str:
    """Decline a noun."""
    if plural:
        return noun.de_plural + "n" if case == "dat" and noun.de_plural[-1] not in "ns" else noun.de_plural
    if case == "gen" or (noun.weak and case != "nom"):
        return noun.de_genitive
    return noun.de


def determiner_form(determiner: Determiner, case: Case, agreement: Form) -> str:
    """Decline an article or its like; without a determiner, give an empty string."""
    if determiner.declension == "definite":
        return DEFINITE[case, agreement]
    endings = DETERMINER_ENDINGS.get(determiner.declension)
    return determiner.de + (endings[case, agreement] if endings else "")


def adjective_form(adjective: Adjective, declension: str, case: Case, agreement: Form) -> str:
    """Decline an adjective after a determiner of the given declension."""
    return adjective.stem + ADJECTIVE_ENDINGS.get(declension, STRONG)[case, agreement]


def finite(verb: Verb, tense: str, plural: bool) -> str:
    """Conjugate a verb in the third person, without its prefix; `tense` is `present` or `past`."""
    if tense == "past":
        if not plural:
            return verb.de_past
        return verb.de_past + ("n" if verb.de_past.endswith("e") else "en")
    if not plural:
        return verb.de_third
    return "sind" if verb.de == "sein" else verb.de


def verb_forms(verb: Verb, tense: str, plural: bool, modal: Modal | None = None) -> tuple[str, str]:
    """Split a verb into (finite verb, what closes the bracket), the latter possibly empty."""
    if modal:
        return modal.de_plural if plural else modal.de_third, verb.prefix + verb.de
    if tense == "perfect":
        singular_form, plural_form = ("ist", "sind") if verb.auxiliary == "sein" else ("hat", "haben")
        return plural_form if plural else singular_form, verb.de_participle
    return finite(verb, tense, plural), verb.prefix


def noun_phrase(phrase: NounPhrase, case: Case) -> list[str]:
    """Say a noun phrase in a case, without its relative clause."""
    agreement = form(phrase.noun, phrase.plural)
    declension = phrase.determiner.declension
    words = [determiner_form(phrase.determiner, case, agreement)]
    if phrase.degree:
        words.append(phrase.degree.de)
    for number, adjective in enumerate(phrase.adjectives):
        words += [","] * (number > 0) + [adjective_form(adjective, declension, case, agreement)]
    words.append(noun_form(phrase.noun, case, phrase.plural))
    if phrase.owner:
        words += noun_phrase(phrase.owner, "gen")
    if phrase.partner:
        words += ["und", *noun_phrase(phrase.partner, case)]
    return words if words[0] else words[1:]


def prepositional_phrase(preposition: str, phrase: NounPhrase, case: Case) -> list[str]:
    """Say a noun phrase after a preposition, merged with a following article where German does so."""
    article, *rest = noun_phrase(phrase, case)
    contracted = CONTRACTIONS.get((preposition, article))
    return [contracted, *rest] if contracted else [preposition, article, *rest]


def relative_clause(phrase: NounPhrase) -> list[str]:
    """Say the relative clause of a noun phrase between commas, or nothing where it has none."""
    tree = phrase.relative
    if not tree:
        return []
    case: Case = "nom" if tree.gap == "subject" else tree.verb.cases[0]
    return [",", RELATIVE[case, form(phrase.noun, phrase.plural)], *clause(tree, "last"), ","]


def clause(tree: Clause, order: Order) -> list[str]:
    """Say a clause with its finite verb first, second or last."""
    verb, closing = verb_forms(tree.verb, tree.tense, tree.subject.takes_plural_verb, tree.modal)
    subject: list[str] = []
    if tree.gap != "subject":
        subject = [*noun_phrase(tree.subject, "nom"), *relative_clause(tree.subject)]
    field, after = _middle_field(tree)
    if order == "last":
        bound = tree.tense in ("present", "past")  # the prefix joins the verb again: "weil er anruft"
        words = [*subject, *field, *([closing + verb] if bound else [closing, verb])]
    elif tree.opening:
        words = [tree.opening.de, verb, *subject, *field, closing]
    elif order == "first":
        words = [verb, *subject, *field, closing]
    else:
        words = [*subject, verb, *field, closing]
    words += after
    if tree.second:
        words += ["und", *clause(tree.second._replace(gap="subject"), "second")]
    if tree.complement:
        link, inner = tree.complement
        words += [",", link.de, *clause(inner, "last"), ","]
    return [word for word in words if word]


def _middle_field(tree: Clause) -> tuple[list[str], list[str]]:
    """Say what stands inside the verb bracket, and the relative clauses that follow it."""
    field = [adverb.de for adverb in (tree.time, tree.middle) if adverb]
    governed: list[str] = []
    after: list[str] = []
    if tree.gap != "object":
        for phrase, case in zip(tree.objects, tree.verb.cases, strict=True):
            if tree.verb.de_preposition:
                governed += prepositional_phrase(tree.verb.de_preposition, phrase, case)
            else:
                field += noun_phrase(phrase, case)
            after += relative_clause(phrase)
    if tree.manner:
        field.append(tree.manner.de)
    if tree.negated:
        field.append("nicht")
    if isinstance(tree.place, Place):
        preposition, phrase = tree.place
        field += prepositional_phrase(preposition.de, phrase, preposition.case)
    elif tree.place:
        field.append(tree.place.de)
    field += governed
    if tree.predicate:
        field.append(tree.predicate.de)
    return field, after


def sentence(tree: Sentence) -> str:
    """Say a whole sentence."""
    words: list[str] = []
    verb_first = tree[0].clause.question
    for number, (link, part) in enumerate(tree):
        subordinate = link is not None and link.kind == "subordinating"
        if link:
            words += [",", link.de] if number else [link.de]
        words += clause(part, "last" if subordinate else "first" if verb_first else "second")
        if subordinate:
            words.append(",")
        verb_first = subordinate and number == 0  # a clause in front fills the first place of the main clause
    return spell(words, "?" if tree[0].clause.question else ".")
