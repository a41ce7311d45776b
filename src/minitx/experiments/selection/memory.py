"""What training takes of a device's memory: the most bytes that tensors take at one time in an update, counted.

Weights, gradients, the optimizer's moments, an average of the weights if one is kept, activations, and what the
optimizer needs beside them. An update is cut into micro-batches as in a training: by its own tokens, by
`data.max_tokens` and by the number of GPUs.
"""

from collections.abc import Sequence
from math import log

import numpy as np
import torch

from minitx.config.schema import Config
from minitx.data.datamodule import PlannedUpdate
from minitx.experiments.prediction import cpu
from minitx.experiments.prediction.speed import cut_after, micro_batches
from minitx.experiments.prediction.update import LoneTask, build_task, plan
from minitx.experiments.selection.demands import Demands
from minitx.experiments.studies.growth import PeakBytes
from minitx.profiling.devices import Device
from minitx.profiling.fake_cuda import fake_gpu, freed_as_read
from minitx.profiling.libraries import GPULibraries

MEASURED_TOKENS = 1024  # of an update on this processor, at most: more are taken to take as much longer
LONGEST_MEASURED = 1024  # tokens of a sentence on this processor


def shares(cfg: Config, length: int, gpus: int) -> tuple[int, bool]:
    """Return the sentences of the largest micro-batch in an update of one length, and whether gradients wait for more.

    They do between the micro-batches of a GPU; and where GPUs exchange them, the buckets that they lie in stay.
    """
    sentences = max(1, round(cfg.trainer.tokens_per_update / length))
    sizes = micro_batches(cfg, sentences, length, gpus)
    return max(sizes), gpus > 1 or len(sizes) > 1


def lengths_of(demands: Demands) -> Sequence[int]:
    """Return the lengths at which bytes are counted: one longest sentence may take less than many usual ones."""
    return sorted({demands.length, demands.longest})


def sentences_of(cfg: Config, length: int, sentences: int) -> PlannedUpdate:
    """Return an update of so many sentences of one length, one at least."""
    lengths = np.full(max(1, sentences), max(2, length))
    return plan(cfg, lengths, lengths)


# --- a GPU that is not here


def peak_on_gpu(cfg: Config, demands: Demands, precision: str, device: Device) -> int:
    """Count the most bytes of an update. What the driver, and cuDNN within its calls, keep is not in it."""
    return max(peak_of_update(cfg, length, demands.gpus, precision, device) for length in lengths_of(demands))


def peak_of_update(cfg: Config, length: int, gpus: int, precision: str, device: Device) -> int:
    """Count the bytes of an update of sentences of one length, of which one micro-batch stands for all."""
    sentences, waiting = shares(cfg, length, gpus)
    planned = sentences_of(cut_after(cfg, sentences, length), length, sentences)
    with fake_gpu(capability=device.capability), PeakBytes() as peak:
        task = build_task(cfg, precision, device.capability)
        make_moments(task)
        if waiting:
            make_gradients(task)
        with freed_as_read(), GPULibraries(lambda _: None, device.capability):
            task.training_step(planned, 0)
    return int(peak.peak)


def make_moments(task: LoneTask) -> None:
    """Have the optimizer make what it keeps."""
    make_gradients(task)
    task.optimizer.step()
    task.optimizer.zero_grad()


def make_gradients(task: LoneTask) -> None:
    """Give each weight a gradient of zeros, to which the next micro-batch adds."""
    for p in task.model.parameters():
        p.grad = torch.zeros_like(p)


# --- this processor


def peak_here(task: LoneTask, cfg: Config, demands: Demands, notes: list[str]) -> int:
    """Count the most bytes of an update here. task: whose moments are made, and not counted"""
    return round(max(peak_at(task, cfg, length, notes) for length in lengths_of(demands)))


def peak_at(task: LoneTask, cfg: Config, length: int, notes: list[str]) -> float:
    """Return the most bytes of an update of sentences of one length, from updates that are smaller.

    Bytes follow a line over the number of sentences; those that a sentence adds follow a power of its length, which is
    noted where it is used.
    """
    sentences, waiting = shares(cfg, length, 1)
    reach = min(length, LONGEST_MEASURED)
    fixed, each = line_over_sentences(task, cfg, reach, waiting)
    if length > reach:
        _, shorter = line_over_sentences(task, cfg, reach // 2, waiting)
        power = min(2.0, max(1.0, log(each / shorter, 2)))
        each *= (length / reach) ** power
        notes.append(f"memory at {length:,} tokens: that at {reach:,}, lengthened by the power {power:.2f} found "
                     f"between {reach // 2:,} and it")
    return fixed + sentences * each


def line_over_sentences(task: LoneTask, cfg: Config, length: int, waiting: bool) -> tuple[float, float]:
    """Count two updates. --> the bytes of any, and those that a sentence adds"""
    few = max(1, MEASURED_TOKENS // (2 * length))
    one, two = (counted_here(task, cfg, length, sentences, waiting) for sentences in (few, 2 * few))
    each = max(1.0, (two - one) / few)
    return max(0.0, one - few * each), each


def counted_here(task: LoneTask, cfg: Config, length: int, sentences: int, waiting: bool) -> int:
    """Count the most bytes of an update of so many sentences, in one micro-batch."""
    planned = sentences_of(cut_after(cfg, sentences, length), length, sentences)
    with PeakBytes() as peak:
        if waiting:
            make_gradients(task)
        cpu.update(task, planned)
    return int(peak.peak)
