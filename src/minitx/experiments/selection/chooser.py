"""What decisions know, and what is shown meanwhile.

Figures are made once for demands that differ in nothing that figures depend on.
"""

from collections.abc import Mapping
from functools import cache, partial

from minitx.experiments.selection.candidates import Candidate, architectures, config_words
from minitx.experiments.selection.changes import Change, changes, moved_in_turn
from minitx.experiments.selection.decision import Decision, Figures, Knowledge, choose, decide
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.figures import figures_of, structure_of
from minitx.experiments.selection.quality import Text, expected
from minitx.utils.console import Console
from minitx.utils.errors import UserError
from minitx.utils.progress import Progress


class Chooser:
    """Decide, and find what would change that; show on a console what is recorded or measured, and how much is left."""

    def __init__(self, texts: Mapping[str, Text], console: Console) -> None:
        """texts: of which quality was measured"""
        self.console, self.progress = console, Progress(console, 1.0)
        self.made: dict[object, Figures | UserError] = {}
        self.known = Knowledge(self.figures_of, partial(expected, texts=texts), cache(structure_of))

    def decide(self, demands: Demands) -> Decision:
        """Decide. Errors: as `Demands.check`"""
        self.progress = Progress(self.console, float(len(architectures())))
        return decide(demands, self.known, self.progress)

    def changes(self, decision: Decision) -> list[Change]:
        """Return what would change a decision."""
        self.progress = Progress(self.console, float(len(moved_in_turn(decision.demands))))
        return list(changes(decision, partial(choose, known=self.known), self.progress))

    def figures_of(self, candidate: Candidate, demands: Demands) -> Figures:
        """Return a candidate's figures. Errors: `UserError` for a training that is not possible so"""
        key = (config_words(candidate, demands), demands.length, demands.longest, demands.hardware, demands.gpus)
        if key not in self.made:
            self.progress(f"{candidate}, sentences of {demands.length:,} tokens, on {demands.hardware}; "
                          f"{self.progress.done:.0f} of {self.progress.total:.0f} done", 0.0)
            try:
                self.made[key] = figures_of(candidate, demands)
            except UserError as error:
                self.made[key] = error
        found = self.made[key]
        if isinstance(found, UserError):
            raise found
        return found
