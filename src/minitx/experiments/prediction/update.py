"""The kernels of one optimizer update as a GPU would run it, from a config and lengths alone. Nothing is allocated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from minitx.config.schema import Config
from minitx.data.batch import Batch, collate
from minitx.data.batching import epoch_plan
from minitx.data.datamodule import PlannedUpdate, Turn
from minitx.data.tokenizer import BOS_ID, DEFAULT_VOCAB, EOS_ID, N_SPECIALS, PAD_ID
from minitx.models.registry import build_model
from minitx.profiling.cpu_recorder import CPURecorder
from minitx.profiling.fake_cuda import CUDA, backward, fake_gpu
from minitx.profiling.kernels import Kernel
from minitx.profiling.recorder import KernelRecorder, recording
from minitx.profiling.timers import Phases
from minitx.training.recomputation import recompute
from minitx.training.state import RunState
from minitx.training.task import TranslationTask

AMPERE = 8, 0  # the first with bf16
HORIZON = 100_000  # of the learning rate: no kernel depends on it


def record_update(cfg: Config, sentences: int, src_len: int | Sequence[int], tgt_len: int | Sequence[int], *,
                  precision: str, capability: tuple[int, int], packed: bool = False) -> list[Kernel]:
    """Return the kernels of an update over these sentences, in the order in which they are issued.

    src_len, tgt_len: tokens of each sentence, or of all, EOS included; capability: of the GPU, as NVIDIA numbers them
    precision: as of `trainer.precision`; before Ampere, "bf16-mixed" is fp16. packed: as in `recording`
    Errors: `UserError` if `data.max_tokens` is too small for a sentence, or nothing can be recomputed that should be.
    """
    src, tgt = (np.broadcast_to(np.asarray(lengths, np.int64), sentences) for lengths in (src_len, tgt_len))
    planned = plan(cfg, src, tgt)
    with fake_gpu(capability=capability) as counter:
        task = build_task(cfg, precision, capability)
        with recording(counter, capability, packed) as recorder:
            task.phases = Marks(recorder)
            task.training_step(planned._replace(turns=planned.turns[-1:]), 0)  # the widest makes what is made once
            recorder.kernels.clear()
            task.training_step(planned, 0)
    return recorder.kernels


def plan(cfg: Config, src: Any, tgt: Any) -> PlannedUpdate:
    """Return an update over sentences of these lengths, cut into micro-batches as in a training; ids are random."""
    update, = epoch_plan(src, tgt, tokens_per_update=int(tgt.sum()), max_tokens=cfg.data.max_tokens,
                         pad_to_multiple=cfg.data.pad_to_multiple, seed=cfg.seed, epoch=0)
    turns = [Turn(i, batch_of(cfg, src[micro_batch.rows], tgt[micro_batch.rows]), 1.0)
             for i, micro_batch in enumerate(update.micro_batches)]
    return PlannedUpdate(0, 0, update.n_tokens, turns, (src, tgt))


def batch_of(cfg: Config, src: Any, tgt: Any) -> Batch:
    """Return a micro-batch of random sentences, of these lengths with EOS."""
    rng = np.random.default_rng(cfg.seed)

    def side(lengths: Any) -> list[list[int]]:
        return [rng.integers(N_SPECIALS, vocabulary(cfg), length - 1).tolist() for length in lengths]

    return collate(side(src), side(tgt), pad_id=PAD_ID, bos_id=BOS_ID, eos_id=EOS_ID,
                   pad_to_multiple=cfg.data.pad_to_multiple, recurring=True)


def vocabulary(cfg: Config) -> int:
    """Return the entries of either vocabulary; a usual number where the text decides."""
    return cfg.tokenizer.vocab_size or DEFAULT_VOCAB


def build_task(cfg: Config, precision: str, capability: tuple[int, int]) -> "LoneTask":
    """Build model and task on the fake device, in training mode."""
    with torch.device("meta"):
        model = build_model(cfg.model, src_vocab_size=vocabulary(cfg), tgt_vocab_size=vocabulary(cfg))
        if cfg.trainer.activation_checkpointing:
            recompute(model, cfg.model.family)
        task = LoneTask(model, cfg.optim, state=RunState(precision=precision, horizon_steps=HORIZON),
                     precision=precision, seed=cfg.seed)
    if task.compute_dtype is torch.bfloat16 and capability < AMPERE:
        task.compute_dtype = torch.float16
    task.to_empty(device=CUDA).train()
    task.optimizer = task.configure_optimizers()
    return task


class LoneTask(TranslationTask):
    """A task without a trainer, on a device that is not there, or on the CPU."""

    optimizer: torch.optim.Optimizer
    place = CUDA

    @property
    @override
    def device(self) -> torch.device:
        return self.place

    @override
    def manual_backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        if self.place == CUDA:
            backward(loss)
        else:
            loss.backward()

    @override
    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        return self.optimizer


class Marks(Phases):
    """Tell the recorder which phase begins."""

    def __init__(self, recorder: KernelRecorder | CPURecorder) -> None:
        super().__init__(torch.device("cpu"))
        self.recorder = recorder

    @override
    def mark(self, phase: str | None) -> None:
        self.recorder.phase = phase or self.recorder.phase
