"""Train each system for the same seconds on captions, towards a BLEU: runs of `train.py`, as anybody starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_rows import Job, Result, Unseen

from minitx.runs.result import Result as RunResult
from minitx.utils.checkout import TOP

SYSTEMS = ("transformer", "lstm_attention", "lstm", "transformer_nope")  # the most valuable first
TRAIN_S = 24.0  # of updates alone
AROUND_S = 20.0  # for start, text, validations and test
FIELDS = ("status", "stop_reason", "precision", "params", "steps", "epochs", "tokens", "best_valid_bleu", "best_step",
          "valid_loss", "train_s", "eval_s", "wall_s", "target_bleu", "time_to_target_s", "tgt_tokens_per_s", "mfu_pct",
          "busy_pct", "energy_wh", "peak_memory_gib", "gpu_memory_gib", "time_split", "not_measured", "config_sha256")
CAPTIONS = ("experiment=headline_small", "trainer.valid_every_n_steps=400")  # validates on the whole set, greedily
TOY = ("experiment=quick", "trainer.target_bleu=1", "trainer.stop_at_target=false")


def jobs(device: torch.device, toys: bool, folder: Path) -> Iterator[Job]:
    """Yield a training of each system. folder: for runs and encoded text, which nobody needs afterwards"""
    for model in SYSTEMS:
        yield Job(model, partial(train, model, device, toys, folder), TRAIN_S + AROUND_S)


def train(model: str, device: torch.device, toys: bool, folder: Path) -> Result:
    """Train once, and return result.json's figures and each validation's BLEU by seconds of training.

    Errors: `Unseen` without the text; RuntimeError with the last line of what went wrong.
    """
    text = Path(os.environ.get("MINITX_DATA", TOP / "data")) / "multi30k"
    if not toys and not text.is_dir():
        raise Unseen(f"{text}: no such folder; MINITX_DATA names the folder that multi30k/ lies in")
    run_dir = folder / model
    words = [*(TOY if toys else (*CAPTIONS, f"data.dir={text}", f"trainer.max_minutes={TRAIN_S / 60}")),
             f"model={model}", f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}", "decode=greedy",
             "logger=none", f"run_dir={run_dir}", "resume=auto"]
    environ = os.environ | {"MINITX_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    with (folder / f"{model}.log").open("w+") as log:
        code = subprocess.run([sys.executable, TOP / "train.py", *words], env=environ, stdin=subprocess.DEVNULL,
                              stdout=log, stderr=subprocess.STDOUT, cwd=TOP).returncode
        log.seek(0)
        said = log.read().split("\n")
    if code:
        raise RuntimeError(f"train.py ended with {code}: {next((line for line in said[::-1] if line), '')}")
    return figures(run_dir)


def figures(run_dir: Path) -> Result:
    """Read what a finished run measured."""
    result = RunResult.read(run_dir / "result.json")
    records: list[dict[str, Any]] = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    curve = [{name: record[name] for name in ("step", "train_s", "bleu", "loss")} for record in records
             if record["event"] == "valid"]
    reached = "not reached" if result.time_to_target_s is None else f"in {result.time_to_target_s:.1f} s"
    text = (f"BLEU {result.best_valid_bleu or 0:.1f} (valid, greedy) after {result.train_s:.0f} s, "
            f"{result.steps:,} updates; {result.target_bleu:g} {reached}")
    return text, {name: getattr(result, name) for name in FIELDS} | {"valid": curve}
