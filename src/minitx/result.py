"""result.json: all of a run that is worth a number, in one typed record; its schema is this class."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict

STATUSES = ("finished", "interrupted", "terminated", "diverged")


class TestScore(TypedDict):
    """Score one test set; signatures are sacreBLEU's own."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    sentences: int
    role_accuracy_pct: NotRequired[float]
    phenomena_bleu: NotRequired[dict[str, float]]
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
    decode: dict[str, float]
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
    versions: dict[str, str]
    hardware: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read and check a result. Errors: ValueError naming the file and what is wrong."""
        values = json.loads(path.read_text())
        names = {f.name for f in fields(cls)}
        if values.keys() != names:
            raise ValueError(f"{path}: keys differ from the schema: {sorted(values.keys() ^ names)}")
        if values["status"] not in STATUSES:
            raise ValueError(f"{path}: status {values['status']!r} is none of {', '.join(STATUSES)}")
        return cls(**values)
