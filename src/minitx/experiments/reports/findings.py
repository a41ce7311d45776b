"""What studies found: claims and verdicts, from files that `minitx study NAME -o results/studies/NAME.json` wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitx.experiments.fits import VERDICTS
from minitx.experiments.reports.plots import machine
from minitx.experiments.reports.study_plots import FIGURES
from minitx.runs.result import DISTURBED_PCT
from minitx.utils.console import duration
from minitx.utils.errors import UserError

StudyResult = Mapping[str, Any]


def read_studies(folder: Path) -> dict[str, StudyResult]:
    """Read each study's file, in the order of `FIGURES`; one that is not there was not made.

    Errors: `UserError` for a file that no study wrote.
    """
    read: dict[str, StudyResult] = {}
    for name in FIGURES:
        if (path := folder / f"{name}.json").exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                if found["study"] != name:
                    raise ValueError(f"it is of the study {found['study']}")
                render(name, found)
            except (ValueError, LookupError, TypeError) as error:
                raise UserError(f"{path}: not what `minitx study {name} -o` writes: {error!r}") from error
            read[name] = found
    return read


def tally(found: StudyResult) -> str:
    """Count the verdicts."""
    verdicts = [claim["holds"] for claim in found["claims"]]
    return ", ".join(f"{word}: {verdicts.count(holds)}" for holds, word in VERDICTS.items() if holds in verdicts)


def conditions(found: StudyResult) -> str:
    """Say on what it was measured, and how long that took."""
    known = found["conditions"]
    other = known["other_cpu_pct"]
    disturbed = other is not None and other > DISTURBED_PCT
    return (f"Size {found['size']}, seed {known['seed']}: {machine(known)}, {known['precision']}, torch "
            f"{known['versions']['torch']}; {duration(known['took_s'])}."
            + (f" Disturbed: other processes took {other:.0f} % of the cores." if disturbed else "")
            + (" Measured with code that is in no commit." if known["git_dirty"] is not False else ""))


def claims(found: StudyResult) -> list[list[str]]:
    """Return a line of cells for each claim, heads first."""
    return [["claim", "asked", "measured", "verdict"],
            *([claim["claim"], claim["expected"], f"{claim['measured']} ({claim['why']})", VERDICTS[claim["holds"]]]
              for claim in found["claims"])]


def render(name: str, found: StudyResult | None) -> str:
    """Write a study's claims as Markdown, or how they are come by."""
    if found is None:
        return f"Not measured yet: `{command(name)}`, and then `minitx report`, put it here."
    head, *lines = (f"| {' | '.join(line)} |" for line in claims(found))
    return "\n".join([head, "|---" * 4 + "|", *lines, "", conditions(found), "", "```", command(name, found), "```"])


def command(name: str, found: StudyResult | None = None) -> str:
    """Return the command that measures it again."""
    size, seed = ("smoke", 1) if found is None else (found["size"], found["conditions"]["seed"])
    asked = (f" --size {size}" if size != "smoke" else "") + (f" --seed {seed}" if seed != 1 else "")
    return f"minitx study {name}{asked} -o results/studies/{name}.json"
