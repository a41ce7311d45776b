"""What the tests of `minitx` share: an untrained run, a stub in place of a model, the real process."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from minitx.config.compose import compose
from minitx.config.fields import show
from minitx.config.schema import DecodeConfig, as_dict
from minitx.data.tokenizer import TokenizerPair
from minitx.decoding.translator import Translation
from minitx.models.registry import build_model
from minitx.runs.checkpoint import save_model

DECODE = {"beam_size": 2, "length_penalty": 1.0, "max_tokens": 400, "max_length_ratio": 0.5, "max_length_extra": 5,
          "max_source_length": 30, "precision": None}
SMALL = ("model.size=toy", "model.tie_embeddings=false", "tokenizer.joint=false")


def write_run(folder: Path, *overrides: str) -> Path:
    """Write a run directory as training would leave it, with an untrained model."""
    cfg = compose([*SMALL, *(f"decode.{name}={show(value)}" for name, value in DECODE.items()), *overrides])
    folder.mkdir(exist_ok=True)
    pair = TokenizerPair.train([("the dog sees the cat", "der Hund sieht die Katze")] * 3, None, cfg.tokenizer.joint)
    pair.save(folder)
    torch.manual_seed(0)
    model = build_model(cfg.model, src_vocab_size=pair.src.vocab_size, tgt_vocab_size=pair.tgt.vocab_size)
    save_model(folder, model)
    (folder / "config.yaml").write_text(yaml.safe_dump(as_dict(cfg)))
    return folder


class Shouter:
    """Translate into upper case."""

    def __init__(self, run_dir: Path, device: str, precision: str | None) -> None:
        self.decode = DecodeConfig(**DECODE | {"precision": precision})  # type: ignore[arg-type]

    def translate(self, lines: list[str], *, beam_size: int | None, length_penalty: float | None, progress: Any,
                  warn: Any, split: str = "long") -> list[str]:
        for row, line in enumerate(lines):
            if len(line) > 30:
                warn(row, f"{len(line)} tokens, cut to 30")
        progress(len(lines), len(lines))
        return [line[:30].upper() for line in lines]

    def n_best(self, lines: list[str], n: int, **options: Any) -> list[list[Translation]]:
        return [[Translation(line.upper() + "!" * i, -float(i), -i / 2 - 1) for i in range(n)] for line in lines]


ENVIRON = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "minitx.cli.main"]


def start(*argv: str | Path) -> subprocess.Popen[bytes]:
    # A shell lets a background job ignore Ctrl-C, and so would what the job starts.
    return subprocess.Popen([*COMMAND, *argv], bufsize=0, env=ENVIRON, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
