"""Short runs on a small text, and the numbers that two identical trainings share."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from toys import ROOT

from minitx.cli.train import main

QUICK = ("model.d_model=32", "model.d_ff=32", "model.n_heads=2", "model.num_layers=1", "model.dropout=0.1",
         "trainer.tokens_per_update=256", "data.max_tokens=256", "data.max_length=64", "checkpoint.every_n_steps=5",
         "trainer.valid_every_n_steps=10", "trainer.valid_sentences=10", "trainer.samples=1", "decode.beam_size=2",
         "trainer.log_every_n_steps=2", "trainer.precision=32-true", "trainer.threads=1")


def command(text: Path, run_dir: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), "data=files", f"data.dir={text}", f"run_dir={run_dir}", *QUICK,
            *overrides]


@dataclass
class Done:
    returncode: int
    stderr: str


def train(text: Path, run_dir: Path, *overrides: str) -> Done:
    """Run the command in this process, which has imported torch and Lightning already."""
    stderr = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(stderr):
        patch.setattr(sys, "argv", command(text, run_dir, *overrides)[1:])
        patch.setenv("MINITX_ALLOCATOR", "as it is")  # else it would restart the process
        patch.setenv("OMP_NUM_THREADS", "1")
        with pytest.raises(SystemExit) as left:
            main()
    return Done(int(left.value.code or 0), stderr.getvalue())


def weights(run_dir: Path) -> str:
    """Hash the newest checkpoint's tensors: weights, their average where one is kept, and optimizer moments."""
    path = max((run_dir / "checkpoints").glob("step-*.safetensors"))
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def losses(run_dir: Path) -> list[tuple[int, float]]:
    return [(r["step"], r["loss"]) for r in records(run_dir) if r["event"] == "train"]


def means(run_dir: Path) -> list[tuple[list[int], float, float]]:
    """Return each mean of checkpoints that was validated: its steps, loss, BLEU."""
    return [(r["steps"], r["loss"], r["bleu"]) for r in records(run_dir) if r["event"] == "mean"]


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[None]:
    """Mount something on a folder for the length of a block; skip the test where that is not permitted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
