"""Time to quality: what a run had taken when it reached `trainer.target_bleu`, and what that costs."""

from collections.abc import Mapping
from typing import Any

from minitx.config.schema import TrainerConfig
from minitx.runs.result import Result
from minitx.training.state import RunState
from minitx.utils.console import duration

Spent = dict[str, float | None]  # steps, tokens, train_s, wall_s and, once it is known, energy_wh


def spent(then: Mapping[str, Any]) -> Spent:
    """Return what a run had taken by then: by a validation, from its record in metrics.jsonl."""
    return {"steps": then["step"], **{name: then[name] for name in ("tokens", "train_s", "wall_s")}}


def bill(state: RunState, wall_s: float, trainer: TrainerConfig, devices: int) -> dict[str, Any]:
    """Return what result.json says about time to quality: what was spent by then, and what the whole run costs.

    A device is paid for from the command to the end, so start-up and evaluation cost, too.
    """
    def priced(seconds: float) -> Spent:
        hours = devices * seconds / 3600
        return {"device_hours": hours,
                "cost": None if trainer.price_per_hour is None else trainer.price_per_hour * hours}

    by_then = state.at_target
    if by_then is not None:
        assert by_then["wall_s"] is not None
        by_then = {"energy_wh": None, **by_then, **priced(by_then["wall_s"])}
    return {"time_to_target_s": by_then and by_then["train_s"], "at_target": by_then, **priced(wall_s)}


def describe(result: Result) -> str:
    """Say when the goal was reached. A run that ended before is censored: it would take longer, or for ever."""
    goal, by_then = f"validation BLEU {result.target_bleu:g}", result.at_target
    if by_then is None:
        return f"{goal} not reached: it takes more than {duration(result.train_s)} of training (censored)"
    more = {"energy_wh": "{:.1f} Wh", "cost": "cost {:.2f}"}
    figures = "".join(f", {form.format(by_then[name])}" for name, form in more.items() if by_then[name] is not None)
    return (f"{goal} after {duration(by_then['train_s'] or 0)} of training, {duration(by_then['wall_s'] or 0)} in all: "
            f"{by_then['steps']:,} steps, {by_then['tokens']:,} tokens, {by_then['device_hours']:.3f} device-hours"
            f"{figures}")
