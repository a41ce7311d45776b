"""A decision in a file, with all that it was made from, so that it can be made again without recording anything."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from minitx.experiments.selection.candidates import Candidate, architectures
from minitx.experiments.selection.changes import Change
from minitx.experiments.selection.decision import Decision, Figure, Figures, Knowledge, Row, Structure
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.quality import Text, expected
from minitx.experiments.selection.text import as_json
from minitx.utils.errors import UserError


def record(decision: Decision, found: Sequence[Change], known: Knowledge, texts: Mapping[str, Text]) -> dict[str, Any]:
    """Return a decision with the figures of all candidates that were looked at, and the structures of all, for JSON."""
    looked_at = [row for row in (*decision.rows, *decision.tried) if isinstance(row, Row)]
    streaming = decision.demands.streaming
    return as_json(decision, found, texts) | {
        "looked_at": {str(row.candidate): asdict(row.figures) for row in looked_at},
        "structures": {name: asdict(known.structure_of(name, streaming)) for name in architectures()}}


def knowledge_in(found: Mapping[str, Any], texts: Mapping[str, Text]) -> Knowledge:
    """Return what a recorded decision knew; of quality, what is known now."""
    def figures_of(candidate: Candidate, _: Demands) -> Figures:
        if str(candidate) not in found["looked_at"]:
            raise UserError(f"{candidate}: was not looked at when this was decided")
        values: dict[str, Any] = {name: Figure(**value) if isinstance(value, dict) else value
                                  for name, value in found["looked_at"][str(candidate)].items()}
        return Figures(**values)

    def structure_of(architecture: str, _: bool) -> Structure:
        if architecture not in found["structures"]:  # added since: `figures_of` refuses it
            return Structure(attends=True, grows=True)
        return Structure(**found["structures"][architecture])

    return Knowledge(figures_of, partial(expected, texts=texts), structure_of)
