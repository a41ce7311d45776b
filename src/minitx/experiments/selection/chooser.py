"""What decisions know: figures are made once for demands that differ in nothing that figures depend on."""

from collections.abc import Mapping
from functools import cache, partial

from minitx.experiments.selection.candidates import Candidate, config_words
from minitx.experiments.selection.decision import Figures, Knowledge
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.figures import figures_of, structure_of
from minitx.experiments.selection.quality import Text, expected
from minitx.utils.console import Console
from minitx.utils.errors import UserError


def knowledge(texts: Mapping[str, Text], console: Console) -> Knowledge:
    """Return where figures, qualities and structures come from; what is being recorded or measured is shown."""
    made: dict[object, Figures | UserError] = {}

    def figures(candidate: Candidate, demands: Demands) -> Figures:
        key = (config_words(candidate, demands), demands.length, demands.longest, demands.hardware, demands.gpus)
        if key not in made:
            console.live(f"{len(made) + 1}: {candidate}, sentences of {demands.length:,} tokens, on "
                         f"{demands.hardware} ...")
            try:
                made[key] = figures_of(candidate, demands)
            except UserError as error:
                made[key] = error
        found = made[key]
        if isinstance(found, UserError):
            raise found
        return found

    return Knowledge(figures, partial(expected, texts=texts), cache(structure_of))
