"""Claims and verdicts of studies, read from the files that `minitx study NAME -o results/studies/NAME.json` writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitx.experiments.fits import VERDICTS
from minitx.experiments.reports.plots import machine
from minitx.experiments.reports.study_plots import FIGURES
from minitx.runs.result import disturbance
from minitx.utils.console import duration
from minitx.utils.errors import UserError
from minitx.utils.tables import markdown

StudyResult = Mapping[str, Any]
PREDICTS = {"gpu"}  # studies that measure nothing


def read_studies(folder: Path) -> dict[str, StudyResult]:
    """Read the studies whose file is there, in the order of `FIGURES`. Errors: `UserError` for any other file."""
    studies: dict[str, StudyResult] = {}
    for name in FIGURES:
        if (path := folder / f"{name}.json").exists():
            try:
                study = json.loads(path.read_text(encoding="utf-8"))
                if study["study"] != name:
                    raise ValueError(f"it is of the study {study['study']}")
                render(name, study)
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise UserError(f"{path}: not what `minitx study {name} -o` writes: {error!r}") from error
            studies[name] = study
    return studies


def verb(name: str) -> str:
    """Return what a study has done to its numbers."""
    return "predicted" if name in PREDICTS else "measured"


def tally(study: StudyResult) -> str:
    """Count the verdicts."""
    verdicts = [claim["holds"] for claim in study["claims"]]
    return ", ".join(f"{word}: {verdicts.count(holds)}" for holds, word in VERDICTS.items() if holds in verdicts)


def conditions(study: StudyResult) -> str:
    """Say on what it was measured, and how long that took; of a study that measures nothing, that it did not."""
    known, did = study["conditions"], verb(study["study"]).capitalize()
    others = disturbance(known["other_cpu_pct"])
    committed = "" if known["git_dirty"] is False else f" {did} with code that is in no commit."
    made_with = f"torch {known['versions']['torch']}; {duration(known['took_s'])}."
    if study["study"] in PREDICTS:
        return f"Size {study['size']}: computed with {made_with} No time of this machine is in it.{committed}"
    return (f"Size {study['size']}, seed {known['seed']}: {machine(known)}, {known['precision']}, {made_with}"
            + ("" if others is None else f" Disturbed: {others}.") + committed)


def claims(study: StudyResult) -> list[list[str]]:
    """Return the cells of a header, and then of each claim; with what was predicted, if anything was."""
    head, cells = ["claim", "asked", verb(study["study"]), "verdict"], list[list[str]]()
    foreseen = any(claim.get("predicted") for claim in study["claims"])  # files that were made earlier have no such key
    for claim in study["claims"]:
        outcome = f"{claim['measured']} ({claim['why']})", VERDICTS[claim["holds"]]
        cells.append([claim["claim"], claim["expected"], *([claim.get("predicted") or "-"] if foreseen else []),
                      *outcome])
    return [[*head[:2], *(["predicted"] if foreseen else []), *head[2:]], *cells]


def render(name: str, study: StudyResult | None) -> str:
    """Write a study's claims as Markdown, or how to measure them."""
    if study is None:
        return f"Not {verb(name)} yet: `{command(name)}`, and then `minitx report`, put it here."
    head, *lines = claims(study)
    return "\n".join([markdown(head, lines), "", conditions(study), "", "```", command(name, study), "```"])


def command(name: str, study: StudyResult | None = None) -> str:
    """Return the command that measures it again."""
    size, seed = ("smoke", 1) if study is None else (study["size"], study["conditions"]["seed"])
    options = (f" --size {size}" if size != "smoke" else "") + (f" --seed {seed}" if seed != 1 else "")
    return f"minitx study {name}{options} -o results/studies/{name}.json"
