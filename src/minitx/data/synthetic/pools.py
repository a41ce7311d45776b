"""Sort the lexicon into the pools that `grammar` draws from."""

from minitx.data.synthetic.lexicon import Adverb, Conjunction, Determiner, lexicon

_WORDS = lexicon()

KINDS = sorted({noun.kind for noun in _WORDS.nouns})
NOUNS = {kind: [noun for noun in _WORDS.nouns if noun.kind == kind] for kind in KINDS}
ALL_NOUNS = _WORDS.nouns
ADJECTIVES = {kind: [word for word in _WORDS.adjectives if kind in word.kinds] for kind in KINDS}
PREPOSITIONS = _WORDS.prepositions
MODALS = _WORDS.modals

COPULAS = [verb for verb in _WORDS.verbs if verb.frame == "be"]
REPORTS = [verb for verb in _WORDS.verbs if verb.frame in ("that", "whether")]
ACTIONS = [verb for verb in _WORDS.verbs if verb not in COPULAS and verb not in REPORTS]
TAKES_SUBJECT = {kind: [verb for verb in ACTIONS if kind in verb.subjects] for kind in KINDS}
TAKES_OBJECT = {
    kind: [verb for verb in ACTIONS if verb.frame in ("acc", "dat") and kind in verb.objects[0]]
    for kind in KINDS
}
ROLE_VERBS = [
    verb
    for verb in ACTIONS
    if verb.frame == "acc" and not verb.prefix and verb.subjects == verb.objects[0] >= {"animal"}
]
"""Verbs whose subject and object can be exchanged."""

DETERMINERS = {determiner.en: determiner for determiner in _WORDS.determiners}


def _weighted(weights: str) -> list[Determiner]:
    """Repeat each determiner by its weight, so that a plain choice obeys it."""
    pairs = (item.split(":") for item in weights.split())
    return [DETERMINERS[word] for word, weight in pairs for _ in range(int(weight))]


SINGULAR = _weighted("the:11 a:5 this:1 every:1 my:1 our:1")
PLURAL = _weighted("the:10 :3 these:2 my:1 our:1 two:1 three:1 many:1 some:1")
DEFINITE = _weighted("the:4 my:1 our:1")
IDENTIFYING = {DETERMINERS[word] for word in ("the", "this", "these", "my", "our")}


def _conjunctions(kind: str) -> list[Conjunction]:
    return [word for word in _WORDS.conjunctions if word.kind == kind]


COORDINATORS = _conjunctions("coordinating")
SUBORDINATORS = _conjunctions("subordinating")
COMPLEMENTIZERS = {word.en: word for word in _conjunctions("complement")}

TENSES = {"now": ("present", "present", "present", "perfect", "perfect", "modal"), "then": ("past",)}
"""A sentence keeps to one time; its clauses choose among that time's tenses, the plainest first."""


def _adverbs(kind: str) -> dict[str, list[Adverb]]:
    return {
        tense: [word for word in _WORDS.adverbs if word.kind == kind and tense in word.tenses]
        for tense in ("present", "past", "perfect", "modal")
    }


_KINDS = ("time", "opening", "middle", "manner", "place", "question", "degree")
ADVERBS = {kind: _adverbs(kind) for kind in _KINDS}
