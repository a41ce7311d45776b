"""Short runs on a small text, and what two of them must share to be the same training."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.torch import load_file

QUICK = ("model.d_model=32", "model.d_ff=32", "model.n_heads=2", "model.num_layers=1", "model.dropout=0.1",
         "trainer.tokens_per_update=256", "data.max_tokens=256", "data.max_length=64", "checkpoint.every_n_steps=5",
         "trainer.valid_every_n_steps=10", "trainer.valid_sentences=10", "trainer.samples=1", "decode.beam_size=2",
         "trainer.log_every_n_steps=2", "trainer.precision=32-true", "trainer.threads=1")


def weights(run_dir: Path) -> str:
    """Hash the newest checkpoint's tensors: weights, their average where one is kept, and optimizer moments."""
    path = max((run_dir / "checkpoints").glob("step-*.safetensors"))
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def losses(run_dir: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r["loss"]) for r in records if r["event"] == "train"]


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[None]:
    """Mount something on a folder while the block lasts; skip the test where that is not permitted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
