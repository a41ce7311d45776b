"""What a run's updates cost the machine: seconds by phase, how busy it was, and whether others were busy."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from minitx.data.datamodule import TranslationData
from minitx.profiling.peak import Peak, synchronize
from minitx.profiling.provenance import NO_COMMIT
from minitx.profiling.utilisation import Usage, Watch, combine
from minitx.training.callbacks import RunContext
from minitx.training.state import RunState
from minitx.training.task import TranslationTask

PHASES = ("forward", "backward", "optimizer")
MEASURED = ("busy_pct", "other_cpu_pct", "energy_wh", "gpu_memory_gib")


class Telemetry(pl.Callback):
    """Note in the run's state what training took, before each checkpoint, so that a resumed run counts on from it."""

    def __init__(self, run: RunContext, data: TranslationData, watch: Watch) -> None:
        self.run, self.data, self.watch = run, data, watch
        self.split_before = dict(run.state.split_s)
        self.usage_before = None if run.state.usage is None else Usage(**run.state.usage)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        goal = self.run.state.at_target
        just_reached = goal is not None and "energy_wh" not in goal
        if self.run.state.step % self.run.cfg.checkpoint.every_n_steps == 0 or just_reached:
            self.note(pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(pl_module.device)
        self.note(pl_module)

    def note(self, task: pl.LightningModule) -> None:
        """Add what this process has measured to what was known before it."""
        assert isinstance(task, TranslationTask)
        seen, state = split(task, self.data), self.run.state
        state.split_s = {name: self.split_before.get(name, 0.0) + seconds for name, seconds in seen.items()}
        usage = combine(self.run.ranks.all_gather(self.watch.usage()))
        usage = usage if self.usage_before is None else self.usage_before + usage
        state.usage = asdict(usage)
        if state.at_target is not None:
            state.at_target.setdefault("energy_wh", usage.energy_wh)


def split(task: TranslationTask, data: TranslationData) -> dict[str, float]:
    """Return the seconds spent so far waiting for data, and those of each phase of the updates."""
    return {"data": data.wait_s, **dict.fromkeys(PHASES, 0.0), **task.phases.seconds()}


def measured(state: RunState, sections: Mapping[str, float], peak: Peak) -> dict[str, Any]:
    """Return what result.json says about the machine: each figure, or None and in `not_measured` the reason.

    sections: of the run's clock, in seconds, which add up to all that it took.
    `not_measured` also says why there is no `git_sha`, where there is none.
    """
    mfu_pct = peak.mfu_pct(state.flop, state.train_s)
    usage = state.usage or {"reasons": dict.fromkeys(MEASURED, "no update was trained")}
    reasons = dict(usage["reasons"])
    if peak.tflops is None:
        reasons["peak_tflops"] = reasons["mfu_pct"] = peak.source
    elif mfu_pct is None:
        reasons["mfu_pct"] = ("the model does not count its operations" if state.flop is None else
                              "it would be above 100 %" if state.flop else "no update was trained")
    if state.git_sha is None:
        reasons["git_sha"] = NO_COMMIT
    return {"mfu_pct": mfu_pct, "peak_tflops": peak.tflops, "peak_source": peak.source if peak.tflops else None,
            **{name: usage.get(name) for name in MEASURED}, "time_split": time_split(state, sections),
            "not_measured": reasons}


def time_split(state: RunState, sections: Mapping[str, float]) -> dict[str, float]:
    """Split the run's seconds into parts that add up to them. sections: as of `measured`

    A fetch that the GPU's work hid costs nothing, so the wait for data is at most what the phases leave of training.
    """
    phases = {name: state.split_s.get(name, 0.0) for name in PHASES}
    left_s = max(0.0, state.train_s - sum(phases.values()))
    data_s = min(state.split_s.get("data", 0.0), left_s)
    parts = {"startup": sections.get("startup", 0.0), "data": data_s, **phases,
             "evaluation": sections.get("eval", 0.0), "checkpoint": sections.get("checkpoint", 0.0)}
    return parts | {"other": max(0.0, sum(sections.values()) - sum(parts.values()))}
