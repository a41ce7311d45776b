"""Read the words of the embedded corpus from `lexicon.tsv`.

- No two content words share an English form of any kind or a German citation form. Function words do share
  German ones (`in` and `into` are `in`); there the case or the verb decides.
- One verb, one frame: what a verb governs never varies, so its objects are known from the verb alone.
- A semantic class is a plain word (`person`, `food`); a group such as `animate` stands for several of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Case = Literal["nom", "acc", "dat", "gen"]
Gender = Literal["m", "f", "n"]

PATH = Path(__file__).with_name("lexicon.tsv")
GROUPS = {
    "animate": ("person", "animal"),
    "thing": ("food", "text", "clothing", "vehicle", "tool", "instrument"),
    "spot": ("ground", "platform"),
}
GROUPS["any"] = (*GROUPS["animate"], *GROUPS["thing"], "place", *GROUPS["spot"])


def expand(classes: str) -> frozenset[str]:
    """Replace each group among `classes` by its members."""
    return frozenset(name for word in classes.split() for name in GROUPS.get(word, (word,)))


# eq=False: entries are unique, so identity compares them, and hashing one costs nothing.
@dataclass(frozen=True, slots=True, eq=False)
class Noun:
    """A noun, its plural, and in German its gender, declension and what it may do."""

    en: str
    en_plural: str
    de: str
    gender: Gender
    de_genitive: str
    de_plural: str
    kind: str

    @property
    def weak(self) -> bool:
        """Tell whether the noun takes -(e)n in every case but the nominative singular."""
        return self.gender == "m" and self.de_genitive.endswith("n")


@dataclass(frozen=True, slots=True, eq=False)
class Verb:
    """A verb in the tenses that the grammar uses, and what it takes."""

    en: str
    en_third: str
    en_past: str
    en_participle: str
    prefix: str
    de: str
    """The infinitive without its separable prefix, which is also the third person plural; `sein` excepted."""
    de_third: str
    de_past: str
    de_participle: str
    auxiliary: str
    frame: str
    cases: tuple[Case, ...]
    en_preposition: str
    de_preposition: str
    subjects: frozenset[str]
    objects: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Adjective:
    """An adjective; in German the stem that endings follow."""

    en: str
    de: str
    stem: str
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Adverb:
    """An adverb and where it may stand."""

    en: str
    de: str
    kind: str
    tenses: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Determiner:
    """An article or the like, and how adjectives decline after it."""

    en: str
    de: str
    declension: str
    number: str


@dataclass(frozen=True, slots=True, eq=False)
class Preposition:
    """A preposition and the case that it governs."""

    en: str
    de: str
    case: Case
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Conjunction:
    """A conjunction, coordinating or subordinating."""

    en: str
    de: str
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Modal:
    """A modal verb."""

    en: str
    de: str
    de_third: str
    de_plural: str


@dataclass(frozen=True)
class Lexicon:
    """All words, by part of speech."""

    nouns: tuple[Noun, ...]
    verbs: tuple[Verb, ...]
    adjectives: tuple[Adjective, ...]
    adverbs: tuple[Adverb, ...]
    determiners: tuple[Determiner, ...]
    prepositions: tuple[Preposition, ...]
    conjunctions: tuple[Conjunction, ...]
    modals: tuple[Modal, ...]


def _rows(part_of_speech: str) -> Iterator[list[str]]:
    for line in PATH.read_text(encoding="utf-8").splitlines():
        name, *fields = line.split("\t")
        if name == part_of_speech:
            yield ["" if field == "-" else field for field in fields]


CASES: tuple[Case, ...] = ("nom", "acc", "dat", "gen")


def _frame(frame: str) -> tuple[tuple[Case, ...], str, str]:
    """Split a frame into the governed cases, the English preposition and the German one."""
    en_preposition, _, governed = frame.rpartition(":")
    names = governed.split("+")
    de_preposition = names[0] if en_preposition and names[0] not in CASES else ""
    return tuple(case for name in names for case in CASES if case == name), en_preposition, de_preposition


def _verb(fields: list[str]) -> Verb:
    en, en_third, en_past, en_participle, infinitive, *german, frame, subjects = fields[:11]
    prefix, _, stem = infinitive.rpartition("|")
    objects = tuple(expand(kinds) for kinds in fields[11:] if kinds)
    third, past, participle, auxiliary = german
    return Verb(
        en, en_third, en_past, en_participle, prefix, stem, third, past, participle, auxiliary,
        frame, *_frame(frame), expand(subjects), objects,
    )  # fmt: skip


def _noun(fields: list[str]) -> Noun:
    en, en_plural, de, gender, genitive, plural, kind = fields
    genders: dict[str, Gender] = {"m": "m", "f": "f", "n": "n"}
    return Noun(en, en_plural, de, genders[gender], genitive, plural, kind)


def _preposition(fields: list[str]) -> Preposition:
    en, de, case, kinds = fields
    return Preposition(en, de, "dat" if case == "dat" else "acc", expand(kinds))


@cache
def lexicon() -> Lexicon:
    """Read the lexicon once."""
    return Lexicon(
        nouns=tuple(map(_noun, _rows("noun"))),
        verbs=tuple(map(_verb, _rows("verb"))),
        adjectives=tuple(
            Adjective(en, de, stem, expand(kinds)) for en, de, stem, kinds in _rows("adjective")
        ),
        adverbs=tuple(
            Adverb(en, de, kind, frozenset(tenses.split())) for en, de, kind, tenses in _rows("adverb")
        ),
        determiners=tuple(Determiner(*fields) for fields in _rows("determiner")),
        prepositions=tuple(map(_preposition, _rows("preposition"))),
        conjunctions=tuple(Conjunction(*fields) for fields in _rows("conjunction")),
        modals=tuple(Modal(*fields) for fields in _rows("modal")),
    )
