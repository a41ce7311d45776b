"""From a config to the parts of a run: device, precision, tokenizer, model, Lightning's trainer."""

import logging
import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from typing_extensions import override

from minitx.config.schema import Config, TrainerConfig
from minitx.data.corpus import Corpus
from minitx.data.tokenizer import TokenizerPair
from minitx.distributed.fsdp import shard
from minitx.distributed.ranks import SINGLE, Ranks
from minitx.models.base import Seq2Seq
from minitx.models.registry import build_model
from minitx.profiling.provenance import bf16_units
from minitx.runs.checkpoint import load_tensors, load_weights
from minitx.training.recomputation import recompute
from minitx.training.state import RunState
from minitx.training.task import DTYPES, TranslationTask
from minitx.utils.errors import UserError

CPU = torch.device("cpu")


def choose_device(trainer: TrainerConfig, local_rank: int = 0) -> torch.device:
    """Return the device that `trainer.accelerator` names. Errors: `UserError` if it is a GPU that is not there."""
    if trainer.accelerator == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("trainer.accelerator=mps: torch sees no Apple GPU here; use cpu or auto")
        return torch.device("mps", 0)
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu: torch sees no GPU here; use cpu or auto")
    if trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= (there := torch.cuda.device_count()):
        raise UserError(f"trainer.devices={local_rank + 1}: torch sees {there} GPUs here; take fewer, or "
                        "trainer.accelerator=cpu")
    return torch.device("cuda", local_rank)


def choose_precision(trainer: TrainerConfig, device: torch.device) -> str:
    """Decide what `auto` means: bf16 products where the hardware has units for them, fp32 elsewhere."""
    if trainer.precision != "auto":
        return trainer.precision
    if device.type == "cpu":
        fast = bf16_units() is not None
    else:  # Apple's GPUs are not known to gain by it
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if fast else "32-true"


def build_tokenizers(cfg: Config, corpus: Corpus, run_dir: Path) -> TokenizerPair:
    """Load the run's tokenizer, or that of the run it begins with, or learn it from the training split alone."""
    if TokenizerPair.saved_in(run_dir):
        return TokenizerPair.load(run_dir)
    if cfg.init_from is not None:
        tokenizers = TokenizerPair.load(Path(cfg.init_from))
    else:
        tokenizers = TokenizerPair.train(corpus.sample(), cfg.tokenizer.vocab_size, cfg.tokenizer.joint)
    tokenizers.save(run_dir)
    return tokenizers


def build_task(cfg: Config, tokenizers: TokenizerPair, state: RunState, *, device: torch.device = CPU,
               ranks: Ranks = SINGLE, weights: Mapping[str, Tensor] | None = None) -> TranslationTask:
    """Build model and task, the weights drawn from `cfg.seed`, or once those of the run that `cfg.init_from` names.

    weights: a checkpoint's, instead. device: where ranks that share the model's parts compute
    """
    assert state.precision is not None
    torch.manual_seed(cfg.seed)
    model: Seq2Seq = build_model(cfg.model, src_vocab_size=tokenizers.src.vocab_size,
                                 tgt_vocab_size=tokenizers.tgt.vocab_size)
    if cfg.trainer.max_pflop is not None and model.flops(np.ones(1, np.int64), np.ones(1, np.int64)) is None:
        raise UserError(f"trainer.max_pflop={cfg.trainer.max_pflop:g}: the family {cfg.model.family} does not count "
                        "its operations; limit it by trainer.max_steps or max_minutes")
    if cfg.init_from is not None and state.init_from_sha256 is None:
        try:
            state.init_from_sha256 = load_weights(Path(cfg.init_from), model)
        except UserError as slip:
            raise UserError(f"init_from={cfg.init_from}: {slip}") from slip
    plain = None
    model.to(DTYPES[state.precision])
    if weights is not None:
        load_tensors(model, weights)
    if cfg.trainer.strategy == "fsdp2" and ranks.size > 1:
        plain = deepcopy(model).requires_grad_(False)
        shard(model.to(device), device)
    if cfg.trainer.activation_checkpointing:
        recompute(model, cfg.model.family)
    return TranslationTask(model, cfg.optim, state=state, precision=state.precision, seed=cfg.seed, ranks=ranks,
                           plain=plain, compiles=bool(cfg.trainer.compile))


def build_strategy(trainer: TrainerConfig, ranks: Ranks) -> Strategy | str:
    """Return how Lightning has ranks work together that have met already."""
    if ranks.size == 1:
        return "auto"
    if trainer.strategy == "fsdp2":
        return ModelParallelStrategy(data_parallel_size=ranks.size, tensor_parallel_size=1,
                                     save_distributed_checkpoint=False)
    ddp = DDPStrategy if trainer.compress is None else HalvedDDP
    return ddp(gradient_as_bucket_view=True, forward_sync_buffers=False)


class HalvedDDP(DDPStrategy):
    """Let gradients travel in bf16. Lightning would register such a hook on GPUs alone."""

    @override
    def configure_ddp(self) -> None:
        super().configure_ddp()
        cast(Any, self.model).register_comm_hook(None, halved)


def halved(_: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Take the mean of the ranks' gradients in bf16."""
    mine = bucket.buffer()
    rounded = (mine / torch.distributed.get_world_size()).bfloat16()
    travelling: torch.futures.Future[list[Tensor]] = torch.distributed.all_reduce(rounded, async_op=True).get_future()
    return travelling.then(lambda done: mine.copy_(done.value()[0]))


def build_trainer(device: torch.device, callbacks: list[pl.Callback], *,
                  strategy: Strategy | str = "auto", ranks: Ranks = SINGLE) -> pl.Trainer:
    """Make a trainer that only loops: precision, stopping, checkpoints, loggers and the progress line are ours."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    noise = "does not have many workers|`srun` command|isinstance.treespec"  # not about anything a user did
    warnings.filterwarnings("ignore", message=f".*({noise}).*")
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type, devices=ranks.local_size, num_nodes=ranks.hosts,
        strategy=strategy, plugins=[TorchElasticEnvironment() if ranks.size > 1 else LightningEnvironment()],
        precision="32-true", max_epochs=-1,
        logger=False, callbacks=callbacks, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False)
    # Lightning's handler of SIGTERM waits for other ranks, and before each update all ask the first whether it was told
    # to stop. Signals are ours (`training.signals`), and what follows from them is agreed on (`training.coordination`).
    assert hasattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"), "another Lightning than the one pinned"
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer
