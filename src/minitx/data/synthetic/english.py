"""Say a tree of `syntax` in English."""

import re

from minitx.data.synthetic.lexicon import Verb
from minitx.data.synthetic.syntax import Clause, NounPhrase, Place, Sentence, spell


def article(next_word: str) -> str:
    """Choose "a" or "an" by the sound that follows."""
    return "an" if re.match(r"(?!uni|use)[aeiou]|hon", next_word) else "a"


def possessive(word: str, plural: bool) -> str:
    """Add the ending of the possessive."""
    return word + ("'" if plural and word.endswith("s") else "'s")


def noun_phrase(phrase: NounPhrase) -> list[str]:
    """Say a noun phrase with its partner and relative clause."""
    words = [phrase.degree.en] if phrase.degree else []
    for number, adjective in enumerate(phrase.adjectives):
        words += [","] * (number > 0) + [adjective.en]
    words.append(phrase.noun.en_plural if phrase.plural else phrase.noun.en)
    if phrase.owner:
        *before, owner = noun_phrase(phrase.owner)
        words[:0] = [*before, possessive(owner, phrase.owner.plural)]
    elif phrase.determiner.en:
        words.insert(0, article(words[0]) if phrase.determiner.en == "a" else phrase.determiner.en)
    if phrase.partner:
        words += ["and", *noun_phrase(phrase.partner)]
    if phrase.relative:
        human = "who" if phrase.relative.gap == "subject" else "whom"
        words += [human if phrase.noun.kind == "person" else "that", *clause(phrase.relative)]
    return words


def verb_group(verb: Verb, tense: str, plural: bool, modal: str, support: bool) -> tuple[str, str]:
    """Split a verb into (auxiliary, main verb), either possibly empty; `support` asks for "do"."""
    if modal:
        return modal, verb.en
    if tense == "perfect":
        return "have" if plural else "has", verb.en_participle
    if verb.en == "be":
        forms = {"present": ("is", "are"), "past": ("was", "were")}
        return forms[tense][plural], ""
    if tense == "past":
        return ("did", verb.en) if support else ("", verb.en_past)
    if support:
        return "do" if plural else "does", verb.en
    return "", verb.en if plural else verb.en_third


def clause(tree: Clause) -> list[str]:
    """Say a clause; a relative clause leaves out the noun phrase that its gap names."""
    plural = tree.subject.takes_plural_verb
    modal = tree.modal.en if tree.modal else ""
    auxiliary, main = verb_group(tree.verb, tree.tense, plural, modal, tree.negated or tree.question)
    subject = [] if tree.gap == "subject" else noun_phrase(tree.subject)
    words = [tree.opening.en] if tree.opening else []
    words += [auxiliary, *subject] if tree.question else [*subject, auxiliary]
    words += ["not"] * tree.negated + ([tree.middle.en] if tree.middle else []) + [main]
    if tree.predicate:
        words.append(tree.predicate.en)
    if tree.gap != "object":
        for phrase in tree.objects:
            words += [tree.verb.en_preposition, *noun_phrase(phrase)]
    if tree.manner:
        words.append(tree.manner.en)
    if isinstance(tree.place, Place):
        words += [tree.place.preposition.en, *noun_phrase(tree.place.phrase)]
    elif tree.place:
        words.append(tree.place.en)
    if tree.time:
        words.append(tree.time.en)
    if tree.second:
        words += ["and", *clause(tree.second._replace(gap="subject"))]
    if tree.complement:
        link, inner = tree.complement
        words += [link.en, *clause(inner)]
    return [word for word in words if word]


def sentence(tree: Sentence) -> str:
    """Say a whole sentence; a comma before each further main clause shows what belongs together."""
    words: list[str] = []
    for number, (link, part) in enumerate(tree):
        if link:
            words += [","] * (number > 0 and link.kind == "coordinating") + [link.en]
        words += clause(part)
        if number == 0 and link:
            words.append(",")
    return spell(words, "?" if tree[0].clause.question else ".")
