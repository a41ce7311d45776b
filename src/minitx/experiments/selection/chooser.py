"""A chooser for many questions of one kind: what was recorded or measured for one of them serves the next."""

from collections.abc import Callable, Mapping
from functools import partial

from minitx.experiments.selection.candidates import Candidate, config_words
from minitx.experiments.selection.decision import Decision, Figures, decide
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.figures import figures_of
from minitx.experiments.selection.quality import Text, expected
from minitx.utils.console import Console
from minitx.utils.errors import UserError


def chooser(texts: Mapping[str, Text], console: Console) -> Callable[[Demands], Decision]:
    """Return what decides: figures are made once for demands that differ in nothing that figures depend on."""
    known: dict[object, Figures | UserError] = {}

    def figures(candidate: Candidate, demands: Demands) -> Figures:
        key = config_words(candidate, demands), demands.length, demands.longest, demands.hardware, demands.gpus
        if key not in known:
            console.live(f"{candidate}: sentences of {demands.length:,} tokens, on {demands.hardware} ...")
            try:
                known[key] = figures_of(candidate, demands)
            except UserError as error:
                known[key] = error
        found = known[key]
        if isinstance(found, UserError):
            raise found
        return found

    return partial(decide, figures_of=figures, quality_of=partial(expected, texts=texts))
