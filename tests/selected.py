"""Made-up candidates for decisions: what each takes follows from a few rules that are easy to do by hand."""

from functools import partial

from minitx.experiments.selection.candidates import SAVINGS, Candidate
from minitx.experiments.selection.decision import Decision, Figure, Figures, Knowledge, Structure, decide
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.quality import Curves, Text, expected
from minitx.utils.errors import UserError

PARAMS = {"tiny": 2_000_000, "small": 8_000_000, "base": 60_000_000, "big": 200_000_000}
PURE = ("lstm", "linear_rnn")  # which attend to nothing
SPEED = {"lstm": 2.0, "lstm_attention": 1.0, "linear_rnn": 5.0, "linear_rnn_attention": 4.0}  # beside a Transformer: 3
HELD = dict(zip(SAVINGS, (1.0, 0.5, 0.1), strict=True))  # of activations, by what saves memory
LEARNED = {"lstm": 24.0, "lstm_attention": 37.5, "transformer": 38.5, "transformer_nope": 29.5}


def figures_of(candidate: Candidate, demands: Demands) -> Figures:
    """Larger models are slower in proportion; attention's state grows, and takes a thousandth of a GiB a token.

    Small micro-batches take half the memory, recomputed layers a tenth, for a quarter of the speed.
    """
    params, architecture = PARAMS[candidate.size], candidate.architecture
    if demands.longest > 100_000 and architecture == "transformer":
        raise UserError("too long")
    attends = architecture not in PURE
    speed = SPEED.get(architecture, 3.0) * 8e10 / params * demands.gpus
    held = 1e-3 * demands.longest * HELD[candidate.saving]
    speed *= 0.75 if candidate.saving == SAVINGS[2] else 1.0
    layers = {"tiny": 2, "small": 3, "base": 6, "big": 6}[candidate.size]
    token_ms = layers * (0.1 if architecture.startswith("lstm") else 0.2) + 1e-4 * demands.length * attends
    return Figures(params, "bf16-mixed", attends, 1000 * attends, Figure(speed, False, "speed"),
                   Figure(16 * params / 2**30 + held, False, "bytes"),
                   Figure(token_ms, False, "steps"),
                   Figure(4 * params / 2**30 + 1e-3 * demands.length * attends, True, "state"))


def curves(bleu: float, row: str) -> Curves:
    """Return one seed that learns evenly, up to ten million tokens."""
    return Curves([[(5e6, bleu / 2), (1e7, bleu)]], 8_000_000, [row])


TEXTS = {"captions": Text("captions", 16.0, {name: curves(bleu, f"captions.{name}") for name, bleu in LEARNED.items()}),
         "verses": Text("verses", 38.0, {"transformer": curves(25.0, "verses.transformer"),
                                         "transformer_rope": curves(28.0, "verses.transformer_rope"),
                                         "transformer_nope": curves(12.5, "verses.transformer_nope")})}


def structure_of(architecture: str, streaming: bool) -> Structure:
    """Whatever attends carries a state that grows."""
    return Structure(architecture not in PURE, architecture not in PURE, not architecture.startswith("lstm"))


KNOWN = Knowledge(figures_of, partial(expected, texts=TEXTS), structure_of)


def made_up(demands: Demands) -> Decision:
    """Decide by what is made up here."""
    return decide(demands, KNOWN)
