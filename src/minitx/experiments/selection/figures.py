"""What a candidate takes: recorded from the code itself for a GPU that is not here, measured for this processor.

Memory is counted, not modelled: the bytes of all tensors that an update makes, and of the state that decoding carries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from minitx.config.compose import compose
from minitx.config.schema import Config
from minitx.experiments.prediction import cpu
from minitx.experiments.prediction.speed import EXPECTED_ERROR, WEIGHT_BYTES
from minitx.experiments.prediction.training import estimate
from minitx.experiments.prediction.update import LoneTask, batch_of, build_task
from minitx.experiments.selection.candidates import Candidate, config, reads_both_ways
from minitx.experiments.selection.decision import Figure, Figures, Structure
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.memory import (
    LONGEST_MEASURED,
    MEASURED_TOKENS,
    lengths_of,
    peak_here,
    peak_on_gpu,
    sentences_of,
)
from minitx.experiments.studies.decoding import state_at
from minitx.experiments.studies.growth import storages
from minitx.models.base import DecodeState, Seq2Seq, evaluating
from minitx.models.precision import computing_in
from minitx.models.registry import build_model
from minitx.profiling.cpu_bench import CPU, repeats
from minitx.profiling.devices import Device
from minitx.profiling.fake_cuda import CUDA, fake_gpu
from minitx.profiling.kernels import Kernel
from minitx.profiling.recorder import recording
from minitx.profiling.timeline import Constants, Pace, timeline
from minitx.training.build import choose_precision
from minitx.training.launch import resolve

GIB = 2**30
ENOUGH_S = 0.5  # of repeats
STEPS = 8  # of decoding, timed together


def figures_of(candidate: Candidate, demands: Demands) -> Figures:
    """Return all figures of a candidate. Errors: `UserError` for a training that is not possible so"""
    cfg, device = config(candidate, demands), demands.device
    return on_this_processor(cfg, demands) if device is None else on_gpu(cfg, device, demands)


# --- a GPU that is not here


def on_gpu(cfg: Config, device: Device, demands: Demands) -> Figures:
    """Predict speed and latency, and count bytes, from kernels and tensors that are recorded without data."""
    found = estimate(cfg, device, demands.gpus, demands.length)
    precision = found.work.precision
    step = record_step(cfg, demands.length, device.capability)
    few, many = found.factors
    speed, latency_s = found.speed.tgt_tokens_per_s, step.seconds_on(device)
    peak = peak_on_gpu(cfg, demands, precision, device)
    return Figures(
        found.work.params, precision, step.attends, step.growth,
        Figure(speed, False, f"kernels of an update recorded from the code, timed by a model of {device.name}; within "
                             f"{few:.2f} and {many:.2f} times the hours (docs/gpu.md: {100 * EXPECTED_ERROR:.0f} % is "
                             "the deviation from published trainings)"),
        Figure(peak / GIB, False, "all tensors of an update with sentences of "
                                  f"{' or '.join(f'{length:,}' for length in lengths_of(demands))} tokens, weights and "
                                  "moments among them, counted; what the driver and cuDNN keep is not"),
        Figure(1e3 * latency_s, False, f"kernels of a step at position {demands.length:,} recorded and timed; no "
                                       "published decoding tests it"),
        Figure((4 * found.work.params + step.state_bytes) / GIB, False,
               "weights in fp32 and the state that a step reads, counted"))


# --- a step of decoding


def structure_of(architecture: str, streaming: bool) -> Structure:
    """Look at a tiny model of an architecture: what it attends to, keeps and could recompute."""
    one_way = ("model.bidirectional=false",) if streaming and reads_both_ways(architecture) else ()
    cfg = resolve(compose([f"model={architecture}", "model.size=toy", *one_way, "tokenizer.vocab_size=300",
                           "logger=none"]))
    model = build_model(cfg.model, src_vocab_size=300, tgt_vocab_size=300)
    with evaluating(model), torch.inference_mode():
        _, growth = grown_state(model, cfg, 8, CPU)
    return Structure(bool(model.attentions()), growth > 0, bool(model.recomputable()))


@dataclass(frozen=True)
class Step:
    """One step of decoding one sentence. state_bytes: of what it reads of its state"""

    state_bytes: int
    growth: int  # bytes of it, a token read and a token written
    attends: bool
    kernels: Sequence[Kernel] = ()

    def seconds_on(self, device: Device) -> float:
        """Predict how long it takes on a GPU."""
        tf32 = torch.get_float32_matmul_precision() != "highest"
        return timeline(self.kernels, Pace(device, replace(Constants(), update_us=0.0), tf32=tf32)).seconds


class Reads(TorchDispatchMode):
    """Note the storages that operators read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[Any] = set()

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= storages((args, kwargs)).keys()
        return func(*args, **(kwargs or {}))


def record_step(cfg: Config, length: int, capability: tuple[int, int]) -> Step:
    """Record a step of decoding at the end of a sentence, and count its state. Weights and numbers are in fp32."""
    with fake_gpu(capability=capability) as counter:
        model = build_task(cfg, "32-true", capability).model
        tokens = torch.zeros(1, dtype=torch.long, device=CUDA)
        with evaluating(model), torch.inference_mode(), recording(counter, capability) as recorder:
            state, growth = grown_state(model, cfg, length, CUDA)
            here = state_bytes(model, state, tokens)
            _, state = model.step(tokens, state)  # with room for what comes
            recorder.kernels.clear()
            model.step(tokens, state)
    return Step(here, growth, bool(model.attentions()), recorder.kernels)


def grown_state(model: Seq2Seq, cfg: Config, length: int, device: torch.device) -> tuple[DecodeState, int]:
    """Return the state at the end of a sentence, and by how many bytes a token it grows there, of those that are read.

    Sources are padded, so that the growth is seen a whole number of tokens further.
    """
    further, tokens = cfg.data.pad_to_multiple, torch.zeros(1, dtype=torch.long, device=device)
    here, there = (state_after(model, cfg, at, at, device) for at in (length, length + further))
    return here, (state_bytes(model, there, tokens) - state_bytes(model, here, tokens)) // further


def state_after(model: Seq2Seq, cfg: Config, length: int, position: int, device: torch.device) -> DecodeState:
    """Return a state as it is after `position` tokens, the source having `length`; what is cached may be made up."""
    batch = batch_of(cfg, np.array([length]), np.array([2])).to(device)
    tokens = torch.zeros(1, dtype=torch.long, device=device)
    first = model.init_state(model.encode(batch.src), batch.src)
    read = 2 + (getattr(cfg.model, "window", None) or 0)  # by then a window is full
    return state_at(first, lambda state: model.step(tokens, state)[1], position, read)


def state_bytes(model: Seq2Seq, state: DecodeState, tokens: Tensor) -> int:
    """Count the bytes of a state that a step reads."""
    with Reads() as reads:
        model.step(tokens, state)
    held = storages([*state.sentences, *state.carried])
    return sum(nbytes for ref, nbytes in held.items() if ref in reads.seen)


# --- this processor


def on_this_processor(cfg: Config, demands: Demands) -> Figures:
    """Measure updates and steps of decoding here, on made-up sentences."""
    precision = choose_precision(cfg.trainer, CPU)
    length, notes = min(demands.length, LONGEST_MEASURED), list[str]()
    task = cpu.build_task(cfg, precision)
    seconds, tokens = update_here(task, cfg, length)
    if demands.length > length:
        half, _ = update_here(task, cfg, length // 2)
        power = min(2.0, max(0.0, log(seconds / half, 2)))
        seconds *= (demands.length / length) ** power
        notes.append(f"time at {demands.length:,} tokens: that at {length:,}, lengthened by the power {power:.2f} "
                     f"found between {length // 2:,} and it")
    peak = peak_here(task, cfg, demands, notes)
    params = sum(p.numel() for p in task.model.parameters())
    token_s, state, growth = step_here(task.model, cfg, demands.length)
    where = f"{torch.get_num_threads()} threads, {precision}"
    return Figures(
        params, precision, bool(task.model.attentions()), growth,
        Figure(tokens / seconds, demands.length == length, f"updates of {tokens:,} tokens here, {where}"),
        Figure((WEIGHT_BYTES[precision] * params * (3 + (cfg.optim.ema_decay is not None)) + peak) / GIB, False,
               "weights and two moments, and all tensors of an update, counted here at two sizes, on a line through "
               "both to a whole micro-batch"),
        Figure(1e3 * token_s, True, f"steps at position {demands.length:,} here, {where}"),
        Figure((4 * params + state) / GIB, True, "weights in fp32 and the state that a step reads, counted"), notes)


def update_here(task: LoneTask, cfg: Config, length: int) -> tuple[float, int]:
    """Time updates of sentences of one length. --> seconds, target tokens"""
    planned = sentences_of(cfg, length, min(cfg.trainer.tokens_per_update, MEASURED_TOKENS) // length)
    cpu.update(task, planned)
    return min(repeats(lambda: cpu.update(task, planned), 2, ENOUGH_S)), planned.n_tokens


def step_here(model: Seq2Seq, cfg: Config, length: int) -> tuple[float, int, int]:
    """Time steps at the end of a sentence. --> seconds of one, bytes of its state, growth of that a token"""
    tokens = torch.zeros(1, dtype=torch.long)
    with evaluating(model), torch.inference_mode():
        state, growth = grown_state(model, cfg, length, CPU)

        def steps() -> None:
            now = ready
            for _ in range(STEPS):
                _, now = model.step(tokens, now)

        with computing_in(None):
            _, ready = model.step(tokens, state)  # with room for what comes
            steps()
            seconds = min(repeats(steps, 3, ENOUGH_S / 2)) / STEPS
        return seconds, state_bytes(model, state, tokens), growth
