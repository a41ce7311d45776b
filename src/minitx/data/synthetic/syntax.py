"""Describe a sentence once, for both languages: who does what to whom, and nothing of the order of the words.

`english` and `german` turn these trees into words; a tree has one reading and, in each language, one wording.
"""

import re
from typing import NamedTuple

from minitx.data.synthetic.lexicon import Adjective, Adverb, Conjunction, Determiner, Modal, Noun, Preposition, Verb


class NounPhrase(NamedTuple):
    """A noun with its determiner and adjectives."""

    noun: Noun
    determiner: Determiner
    plural: bool = False
    adjectives: tuple[Adjective, ...] = ()
    degree: Adverb | None = None
    """Grades the first adjective: "a very old dog"."""
    owner: "NounPhrase | None" = None
    """Stands in the genitive; the phrase itself is then definite."""
    partner: "NounPhrase | None" = None
    """The second half of "the dog and the cat"."""
    relative: "Clause | None" = None

    @property
    def takes_plural_verb(self) -> bool:
        """Tell whether a verb agrees with it in the plural."""
        return self.plural or self.partner is not None


class Place(NamedTuple):
    """A preposition and what it governs."""

    preposition: Preposition
    phrase: NounPhrase


class Clause(NamedTuple):
    """Who does what to whom, when and where."""

    subject: NounPhrase
    verb: Verb
    tense: str = "present"
    """`present`, `past`, `perfect`, or `modal`."""
    modal: Modal | None = None
    objects: tuple[NounPhrase, ...] = ()
    predicate: Adjective | None = None
    opening: Adverb | None = None
    """Stands before the verb and so, in German, drives the subject behind it."""
    time: Adverb | None = None
    middle: Adverb | None = None
    manner: Adverb | None = None
    place: Adverb | Place | None = None
    negated: bool = False
    question: bool = False
    gap: str = ""
    """In a relative clause, the role its head noun plays: `subject` or `object`."""
    second: "Clause | None" = None
    """Shares the subject: "the dog sees the cat and chases the mouse"."""
    complement: "tuple[Conjunction, Clause] | None" = None


class Part(NamedTuple):
    """A clause and what links it to the one before."""

    link: Conjunction | None
    clause: Clause


Sentence = tuple[Part, ...]
"""Clauses in order. A first part with a link is a subordinate clause in front of its main clause."""


def spell(words: list[str], mark: str) -> str:
    """Join words into a sentence: commas once and never last, a capital first, `mark` at the end."""
    text = re.sub(r"( ,)+", ",", " ".join(words)).rstrip(",")
    return text[0].upper() + text[1:] + mark
