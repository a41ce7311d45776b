"""Runs side by side: the settings in which they differ, the order they stand in, and their table."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from minitx.config.fields import nearest, show
from minitx.runs.overview import CHOICES, RunOverview
from minitx.utils.errors import UserError
from minitx.utils.tables import aligned

# Settings that do not make a run another system: where a run is kept, how it is shown, and what the text recommended.
NOT_COMPARED = ("seed.", "run_dir.", "resume.", "debug.", "logger.", "data.recommends.", "trainer.price_per_hour.")

# --- in what they differ


def differences(runs: Sequence[RunOverview]) -> list[dict[str, Any]]:
    """Return, for each run, the settings in which it differs from another run, the seed apart.

    What follows from a choice is left out: that another model has other widths, or that another text is learned at
    another rate. So a setting is compared among runs that share the choices which decide it.
    """
    differing: list[dict[str, Any]] = [{} for _ in runs]
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        if f"{key}.".startswith(NOT_COMPARED):
            continue
        alike: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, run in enumerate(runs):
            alike[tuple(show(run.settings.get(name)) for name in _decided_by(key))].append(number)
        for numbers in alike.values():
            values = [runs[number].settings.get(key) for number in numbers]
            if any(value != values[0] for value in values):
                for number, value in zip(numbers, values, strict=True):
                    differing[number][key] = value
    return differing


def _decided_by(key: str) -> tuple[str, ...]:
    """Name the settings on which the default of another depends."""
    if key in ("experiment", "model"):
        return ()
    if key in CHOICES:
        return ("experiment",)
    if key == "model.size":
        return CHOICES
    return (*CHOICES, "model.size") if key.startswith("model.") else ("experiment", "data")


def words(settings: Mapping[str, Any]) -> str:
    """Write settings as on a command line."""
    return " ".join(f"{key}={show(value)}" for key, value in settings.items())


def system_names(runs: Sequence[RunOverview]) -> list[str]:
    """Name each run's system, which its seeds share: by its model where that is enough, else by all differences."""
    differing = [words(settings) for settings in differences(runs)]
    models = [str(run.settings["model"]) for run in runs]
    if len(set(zip(differing, models, strict=True))) == len(set(models)):
        return models
    return [differs or model for differs, model in zip(differing, models, strict=True)]


# --- as a table

FIGURES: dict[str, Callable[[RunOverview], Any]] = {  # by which runs can be sorted and chosen, besides their settings
    "run": lambda run: str(run.path), "seed": lambda run: run.seed, "steps": lambda run: run.steps,
    "valid": lambda run: run.valid_bleu, "test": lambda run: run.test_bleu, "minutes": lambda run: run.minutes,
    "status": lambda run: run.status}  # fmt: skip
BEST_FIRST = ("valid", "test")


def value_of(run: RunOverview, key: str) -> Any:
    """Return a figure or a setting of a run; None where it has none."""
    return FIGURES[key](run) if key in FIGURES else run.settings.get(key)


def require_key(runs: Sequence[RunOverview], key: str) -> None:
    """Refuse a key that is neither a figure nor a setting of any of these runs. Errors: `UserError`"""
    known = list(dict.fromkeys([*FIGURES, *(name for run in runs for name in run.settings)]))
    if key not in known:
        raise UserError(f"{key}: none of these runs has such a key{nearest(key, known)}")


def chosen(runs: Sequence[RunOverview], conditions: Sequence[str]) -> list[RunOverview]:
    """Choose the runs that meet all conditions `KEY=VALUE`; a value may hold `*`. Errors: as `require_key`"""
    for condition in conditions:
        key, _, value = condition.partition("=")
        require_key(runs, key)
        runs = [run for run in runs if _is(value_of(run, key), value)]
    return list(runs)


def _is(value: Any, wanted: str) -> bool:
    try:
        return bool(float(value) == float(wanted))  # 0.001 is 1e-3
    except (TypeError, ValueError):
        return fnmatchcase(show(value), wanted)


def ordered(runs: Sequence[RunOverview], key: str, reverse: bool = False) -> list[RunOverview]:
    """Sort runs: BLEU from the best, all else from the smallest; runs that have no such value come last.

    Errors: as `require_key`
    """
    require_key(runs, key)
    known = [run for run in runs if value_of(run, key) is not None]
    numbers = all(isinstance(value_of(run, key), int | float) for run in known)
    known.sort(key=lambda run: value_of(run, key) if numbers else show(value_of(run, key)),
               reverse=(key in BEST_FIRST) != reverse)
    return [*known, *(run for run in runs if value_of(run, key) is None)]


def grid(runs: Sequence[RunOverview]) -> tuple[list[str], list[list[str]]]:
    """Return the header of the table of these runs, and their lines. Without differences it has no column for them."""
    differing = [words(settings) for settings in differences(runs)]
    cells = [[str(run.path), _figure(run.valid_bleu, ".1f"), _figure(run.test_bleu, ".1f"), differs, show(run.seed),
              _figure(run.steps, ",.0f"), _figure(run.minutes, ".1f"), run.status]
             for run, differs in zip(runs, differing, strict=True)]
    head = ["run", "valid BLEU", "test BLEU", "differs in", "seed", "steps", "minutes", "status"]
    shown = [n for n, name in enumerate(head) if name != "differs in" or any(differing)]
    return [head[n] for n in shown], [[line[n] for n in shown] for line in cells]


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def about(runs: Sequence[RunOverview]) -> str:
    """Say in a sentence what the table's figures are."""
    sets = dict.fromkeys(next(iter(run.test)) for run in runs if run.test)
    of = f"of {' or '.join(sets)}" if sets else "of the first test set, once a run is finished"
    return f"valid BLEU: the best while it trained; test BLEU: {of}; minutes: of training, validation not counted"


def table(runs: Sequence[RunOverview]) -> list[str]:
    """Return the lines of the table of these runs."""
    head, cells = grid(runs)
    align = "".join("<" if name in ("run", "differs in", "status") else ">" for name in head)
    return aligned([head, *cells], align)
