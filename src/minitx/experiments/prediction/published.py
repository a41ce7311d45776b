"""What others measured on GPUs: kernels (DeepBench), LSTMs on cuDNN (of a change to PyTorch) and whole trainings
(NVIDIA), as files of results/published.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Product:
    """A product that was timed: [rows, inner] @ [inner, columns]."""

    dtype: str  # "half" or "float", as in `Kernel`
    rows: int
    columns: int
    inner: int
    us: float


@dataclass(frozen=True)
class LSTMLayer:
    """A layer of cuDNN's LSTM that was timed, without the product of its inputs."""

    dtype: str
    hidden: int
    sentences: int
    steps: int
    forward_us: float
    backward_us: float
    weights_us: float


@dataclass(frozen=True)
class LSTMRun:
    """Layers of cuDNN's LSTM in one call, unpacked; small: by its kernel for narrow states, the others step by step."""

    dtype: str
    steps: int
    sentences: int
    d_in: int
    d_hidden: int
    layers: int
    forward_ms: float
    backward_ms: float
    small_forward_ms: float
    small_backward_ms: float

    def step_us(self, ms: float) -> float:
        """Return what one of these times comes to for a step of a layer."""
        return 1e3 * ms / self.steps / self.layers


@dataclass(frozen=True)
class Training:
    """A training whose speed was published, and what of ours is the same: words of a config, shapes of a batch."""

    system: str
    words: tuple[str, ...]
    device: str
    gpus: int
    precision: str  # "half", "tf32", "fp32"
    sentences: int  # of one GPU's batch
    src_len: int
    tgt_len: int
    counted: int  # tokens of one GPU's batch that `tokens_per_s` counts
    tokens_per_s: float  # of all GPUs
    source: str

    @property
    def update_s(self) -> float:
        """Return the seconds of one update."""
        return self.counted * self.gpus / self.tokens_per_s


def kernels(folder: Path, device: str) -> tuple[list[Product], list[LSTMLayer]]:
    """Read what DeepBench measured on a device. folder: results/published"""
    found = json.loads((folder / f"deepbench_{device}.json").read_text(encoding="utf-8"))
    products = [Product(dtype, rows, columns, inner, us)
                for dtype, rows, columns, inner, _, us in found["products"]["values"]]
    return products, [LSTMLayer(*values) for values in found["lstm_layers"]["values"]]


def lstm_runs(folder: Path) -> list[LSTMRun]:
    """Read how long LSTMs took on cuDNN, step by step and by the kernel for narrow states."""
    found = json.loads((folder / "cudnn_steps.json").read_text(encoding="utf-8"))
    return [LSTMRun(*values) for values in found["lstms"]["values"]]


def trainings(folder: Path) -> list[Training]:
    """Read the published speeds of trainings. folder: results/published"""
    found = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return [_training(found, dict(zip(found["columns"], row, strict=True))) for row in found["rows"]]


def _training(found: dict[str, Any], row: dict[str, Any]) -> Training:
    system = found["systems"][row["system"]]
    counted = row["sentences"] * (system["tgt_len"] + (system["src_len"] if row["tokens"] == "both" else 0))
    return Training(row["system"], tuple(system["words"]), row["device"], row["gpus"], row["precision"],
                    row["sentences"], system["src_len"], system["tgt_len"], counted, row["tokens_per_s"],
                    found["sources"][row["source"]])
