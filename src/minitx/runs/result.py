"""result.json: all of a run that is worth a number, in one typed record; its schema is this class."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from minitx.utils.errors import UserError

STATUSES = ("finished", "interrupted", "terminated", "diverged")
DISTURBED_PCT = 5.0
SEARCH = ("beam_size", "length_penalty", "precision")  # the keys of the config's decode that a row tells


class TestScore(TypedDict):
    """Score one test set; signatures are sacreBLEU's own; in `moses_signature` the tokenizer is `moses`'s."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    sentences: int
    role_accuracy_pct: NotRequired[float]
    roles_swapped_pct: NotRequired[float]
    phenomena_bleu: NotRequired[dict[str, float]]
    moses_bleu: NotRequired[float]
    moses_signature: NotRequired[str]
    moses_reference_tokens: NotRequired[int]
    dictionary_bleu: NotRequired[float]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Record a run. Times are in seconds of wall clock; tokens are non-padding target tokens, EOS included."""

    status: str
    stop_reason: str
    experiment: str | None
    model: str
    data: str
    src: str
    tgt: str
    seed: int
    world_size: int
    device: str
    precision: str
    threads: int
    params: int
    steps: int
    epochs: float
    tokens: int
    nonfinite_steps: int
    horizon_steps: int | None
    best_valid_bleu: float | None
    best_step: int | None
    valid_loss: float | None
    test: dict[str, TestScore]
    decode: dict[str, Any]
    train_s: float
    eval_s: float
    checkpoint_s: float
    wall_s: float
    target_bleu: float | None
    time_to_target_s: float | None
    tgt_tokens_per_s: float | None
    padding_efficiency_pct: float
    peak_memory_gib: float
    git_sha: str | None
    git_dirty: bool | None
    config_sha256: str
    data_sha256: str
    tokenizer_sha256: str
    cleaning: dict[str, Any]
    init_from_sha256: str | None
    versions: dict[str, str]
    hardware: dict[str, Any]
    environment: dict[str, str]
    mfu_pct: float | None
    peak_tflops: float | None
    peak_source: str | None
    busy_pct: float | None
    other_cpu_pct: float | None
    energy_wh: float | None
    gpu_memory_gib: float | None
    time_split: dict[str, float]
    not_measured: dict[str, str]  # why a figure is None, by its name
    device_hours: float | None
    cost: float | None
    at_target: dict[str, float | None] | None
    averaged_steps: list[int] | None  # what the weights that serve are the mean of; None = those of `best_step`

    @property
    def system(self) -> str:
        """Name what was trained; its seeds share the name."""
        return system_name(self.experiment, self.model)

    @property
    def disturbed(self) -> bool:
        """Tell whether others took more of the cores, while it trained, than its times bear."""
        return disturbance(self.other_cpu_pct) is not None

    def json(self) -> str:
        """Return the text of result.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read and check a result. Errors: `UserError` naming the file and what is wrong."""
        try:
            return cls.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
        except ValueError as error:
            raise UserError(f"{path}: not JSON: {error}") from error

    @classmethod
    def parse(cls, values: Any, where: str) -> "Result":
        """Check a mapping: its keys are the fields, all of them. Errors: `UserError` beginning with `where`."""
        if not isinstance(values, Mapping):
            raise UserError(f"{where}: holds no result, a mapping of keys")
        names = {f.name for f in fields(cls)}
        wrong = {"missing": names - values.keys(), "unknown": values.keys() - names}
        if any(wrong.values()):
            which = "; ".join(f"{how} {', '.join(sorted(keys))}" for how, keys in wrong.items() if keys)
            raise UserError(f"{where}: not a result of this version: {which}")
        if values["status"] not in STATUSES:
            raise UserError(f"{where}: status {values['status']!r} is none of {', '.join(STATUSES)}")
        return cls(**values)


def disturbance(other_cpu_pct: float | None) -> str | None:
    """Say how much of the cores other processes took; None if no more than times bear, or if it is not known."""
    if other_cpu_pct is None or other_cpu_pct <= DISTURBED_PCT:
        return None
    return f"other processes took {other_cpu_pct:.0f} % of the cores"


def system_name(experiment: str | None, model: str) -> str:
    """Name a system by its experiment and, where that does not end with it, its model."""
    if experiment is None:
        return model
    return experiment if experiment.endswith(f"_{model}") else f"{experiment}.{model}"


def searched(decode: Mapping[str, Any]) -> str:
    """Say how test sets were searched. decode: a result's"""
    words = f"beam {decode['beam_size']}, length penalty {decode['length_penalty']}"
    return words if decode.get("precision") is None else f"{words}, {decode['precision']}"
