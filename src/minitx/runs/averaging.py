"""The mean of a run's newest checkpoints (Vaswani et al. 2017, section 6.1), also as a run directory that serves."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from minitx.config.saved import freeze, read_config
from minitx.data.source_text import SourceText
from minitx.data.tokenizer import TokenizerPair
from minitx.models.registry import build_model
from minitx.runs.checkpoint import load_tensors, save_model, whole_checkpoints
from minitx.utils.errors import Exit, UserError


def average_checkpoints(run_dir: Path, last: int, out: Path,
                        progress: Callable[[int, int], None] | None = None,
                        warn: Callable[[str], None] | None = None) -> list[int]:
    """Make OUT a run directory whose weights are the `mean` of RUN's newest checkpoints. Returns the steps averaged.

    Errors: `UserError` if RUN has fewer than `last`, if OUT is not empty or cannot be written.
    """
    cfg, tokenizers, source_text = read_config(run_dir), TokenizerPair.load(run_dir), SourceText.read(run_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: {'is not empty' if out.is_dir() else 'is a file'}; name a new folder", Exit.STORAGE)
    tensors, steps = mean(run_dir / "checkpoints", last, progress, warn)
    if len(steps) < last:
        fewer = "ask for fewer, or " if steps else ""
        raise UserError(f"{run_dir}: has {len(steps)} of the {last} whole checkpoints that were to be averaged; "
                        f"{fewer}train with checkpoint.keep={max(last, 2)} and a smaller "
                        "checkpoint.every_n_steps")
    model = build_model(cfg.model, src_vocab_size=tokenizers.src.vocab_size, tgt_vocab_size=tokenizers.tgt.vocab_size)
    load_tensors(model, tensors)
    try:
        out.mkdir(parents=True, exist_ok=True)
        freeze(replace(cfg, run_dir=str(out)), out)
        tokenizers.save(out)
        if source_text is not None:
            source_text.save(out)
        save_model(out, model)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}", Exit.STORAGE) from error
    return steps


def mean(folder: Path, last: int, progress: Callable[[int, int], None] | None = None,
         warn: Callable[[str], None] | None = None) -> tuple[dict[str, Tensor], list[int]]:
    """Return the mean of the raw weights of the newest `last` whole checkpoints, or of as many as there are.

    Also returns their steps, newest first. Sums are in float64. `progress` gets the number read so far, `warn` a line
    for each damaged one.
    """
    sums: dict[str, Tensor] = {}
    steps: list[int] = []
    for checkpoint in islice(whole_checkpoints(folder, warn), last):
        for name, tensor in checkpoint.section("model").items():
            sums[name] = sums.get(name, 0) + tensor.to(torch.float64)
        steps.append(checkpoint.meta["state"]["step"])
        if progress is not None:
            progress(len(steps), last)
    return {name: total / len(steps) for name, total in sums.items()}, steps
