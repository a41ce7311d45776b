"""What studies share: their conditions, and readers that learn to remember one token.

The readers' task is a latch (after Bengio, Simard and Frasconi 1994): the first token of a sentence is one of `KEYS`,
all others are filler, and at the last one, EOS, the reader is to name the first.

B sentences, N rows of packed tokens, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from minitx.config.schema import Config, ModelConfig, OptimConfig
from minitx.data.batch import Packed, collate_src
from minitx.data.tokenizer import EOS_ID, N_SPECIALS, PAD_ID
from minitx.experiments.costs.complexity import with_width
from minitx.models.base import Seq2Seq
from minitx.models.layers import Linear
from minitx.models.registry import build_model
from minitx.profiling.provenance import environment, git_state, hardware, versions
from minitx.profiling.utilisation import Watch
from minitx.training.build import choose_device, choose_precision
from minitx.training.loss import linear_cross_entropy
from minitx.training.optimizer import build_optimizer
from minitx.training.schedule import lr_factor
from minitx.utils.console import Console
from minitx.utils.progress import Progress

KEYS, FILLERS = 16, 16  # tokens to remember, and tokens between
VOCAB = N_SPECIALS + KEYS + FILLERS
READERS = {"rnn": None, "lstm": "lstm", "linear_rnn": "linear_rnn_attention", "transformer": "transformer"}
SYSTEMS = tuple(READERS)  # and the family whose encoder each is; a decoder's attention is no part of that
STAGES = ("initial", "trained")


class Study(Protocol):
    """The interface of a module of `minitx.experiments.studies` that `minitx study` runs."""

    SIZES: Mapping[str, Any]  # a dataclass for "smoke", and one for "full"

    def measure(self, families: Mapping[str, Config], sizes: Any, console: Console) -> dict[str, Any]:
        """Return the results, ready for JSON; `claims` is one of their keys."""

    def table(self, found: Mapping[str, Any]) -> Iterator[str]:
        """Yield the results as lines for a person, without the claims. found: as `measure` returns it"""


def run_study(study: Study, families: Mapping[str, Config], size: str, console: Console) -> dict[str, Any]:
    """Measure, and add size and conditions to the results.

    families: resolved configs by name that differ only in the model
    """
    cfg, sizes = next(iter(families.values())), study.SIZES[size]
    device = choose_device(cfg.trainer)
    began = perf_counter()
    with Watch(device) as watch:
        results = study.measure(families, sizes, console)
        other_cpu_pct = watch.usage().other_cpu_pct
    git_sha, git_dirty = git_state()
    conditions = {"device": str(device), "precision": choose_precision(cfg.trainer, device), "seed": cfg.seed,
                  "threads": torch.get_num_threads(), "took_s": perf_counter() - began, "other_cpu_pct": other_cpu_pct,
                  "git_sha": git_sha, "git_dirty": git_dirty, "versions": versions(), "hardware": hardware(device),
                  "environment": environment()}
    about = {"size": size, "sizes": asdict(sizes), "conditions": conditions}
    assert about.keys().isdisjoint(results), "a study may not overwrite its conditions"
    return about | results


# --- the task


class LatchBatch(NamedTuple):
    """Sentences, and the key that each begins with."""

    src: Packed
    keys: Tensor  # [B]

    def to(self, device: torch.device) -> "LatchBatch":
        """Return a copy on a device."""
        return LatchBatch(self.src.to(device), self.keys.to(device))


def draw_latch_batch(distances: Sequence[int], rng: np.random.Generator) -> LatchBatch:
    """Draw a sentence for each distance, of at least 1 token, between its key and its end."""
    keys = rng.integers(KEYS, size=len(distances))
    fillers = [rng.integers(FILLERS, size=distance - 1) + KEYS for distance in distances]
    src = [[N_SPECIALS + int(token) for token in (key, *rest)] for key, rest in zip(keys, fillers, strict=True)]
    return LatchBatch(collate_src(src, pad_id=PAD_ID, eos_id=EOS_ID), torch.from_numpy(keys))


# --- readers


class PlainRNN(nn.Module):
    """h_t = tanh(W x_t + U h_{t-1} + b), with torch's initial weights (Elman 1990)."""

    def __init__(self, width: int) -> None:
        """width: of embeddings and states"""
        super().__init__()
        self.src_embed = nn.Embedding(VOCAB, width)
        self.rnn = nn.RNN(width, width, batch_first=True)

    def encode(self, src: Packed) -> Tensor:
        """Return all states. --> [B, S, D]"""
        memory: Tensor = self.rnn(src.pad(self.src_embed(src.ids)))[0]
        return memory


class Reader(nn.Module):
    """An encoder, and an output layer that names the key from the encoder's state at EOS alone."""

    def __init__(self, encoder: Any, width: int) -> None:
        """encoder: has `src_embed` and `encode`; width: of its states"""
        super().__init__()
        self.encoder = encoder
        self.output = Linear(width, KEYS, bias=False)

    def forward(self, src: Packed) -> Tensor:
        """Return the encoder's state at each sentence's last token. --> [B, D]"""
        memory = self.encoder.encode(src)
        states: Tensor = memory if memory.dim() == 3 else src.pad(memory)
        return states[torch.arange(len(states), device=states.device), src.lengths - 1]

    def loss_sum(self, states: Tensor, keys: Tensor) -> Tensor:
        """Return the cross-entropy of the keys, summed, in nats. states: [B, D]"""
        return linear_cross_entropy(states, self.output.weight, keys)[0]

    def n_correct(self, states: Tensor, keys: Tensor) -> int:
        """Count the states from which the right key is named."""
        return int((self.output(states).argmax(1) == keys).sum())


def single_layer(model: ModelConfig, width: int) -> ModelConfig:
    """Reduce a family to one layer of `width` that reads forwards only.

    A linear RNN always reads both ways: its half that reads forwards has `width` units, and at a sentence's last token
    the other half has read that alone.
    """
    both_ways = hasattr(model, "d_hidden") and not hasattr(model, "bidirectional")
    one_way = {"d_hidden": 2 * width if both_ways else width, "bidirectional": False}
    own = {name: value for name, value in one_way.items() if hasattr(model, name)}
    return replace(with_width(model, width), **{"num_layers": 1, "dropout": 0.0} | own)  # type: ignore[arg-type]


def build_reader(system: str, families: Mapping[str, Config], width: int, seed: int) -> Reader:
    """Build one of `SYSTEMS` with weights drawn from a seed; all but the plain RNN come from the families."""
    torch.manual_seed(seed)
    if (family := READERS[system]) is None:
        return Reader(PlainRNN(width), width)
    model = single_layer(families[family].model, width)
    return Reader(build_model(model, src_vocab_size=VOCAB, tgt_vocab_size=VOCAB), width)


@dataclass(frozen=True)
class Lesson:
    """How readers are trained."""

    width: int = 64
    longest: int = 128  # sentences have 1 to this many tokens before EOS
    sentences: int = 64  # an update
    updates: int = 400
    seeds: int = 3

    @property
    def work(self) -> float:
        """The number of updates of all systems and seeds."""
        return float(self.updates * self.seeds * len(SYSTEMS))


def train_readers(families: Mapping[str, Config], lesson: Lesson, progress: Progress) -> Iterator[
        tuple[str, str, int, Reader]]:
    """Yield the reader of each seed and system twice: with initial weights, and trained. --> system, stage, seed"""
    cfg = next(iter(families.values()))
    for seed in range(cfg.seed, cfg.seed + lesson.seeds):
        for system in SYSTEMS:
            reader = build_reader(system, families, lesson.width, seed).to(choose_device(cfg.trainer)).eval()
            yield system, STAGES[0], seed, reader
            for number in train_reader(reader, cfg.optim, lesson, seed):
                progress(f"{system}, seed {seed}: update {number}/{lesson.updates}")
            yield system, STAGES[1], seed, reader.eval()


def train_reader(reader: Reader, optim: OptimConfig, lesson: Lesson, seed: int) -> Iterator[int]:
    """Train as families are trained, but without label smoothing. Yields the number of updates after each."""
    rng, device = np.random.default_rng((seed, 0)), reader.output.weight.device
    optimizer = build_optimizer(cast(Seq2Seq, reader), optim, torch.float32)  # needs `output` and parameters only
    reader.train()
    for step in range(lesson.updates):
        for group in optimizer.param_groups:
            group["lr"] = optim.lr * lr_factor(optim.schedule, step, warmup_steps=optim.warmup_steps,
                                               horizon=lesson.updates, decay_fraction=optim.decay_fraction)
        batch = draw_latch_batch(rng.integers(1, lesson.longest + 1, lesson.sentences).tolist(), rng).to(device)
        (reader.loss_sum(reader(batch.src), batch.keys) / lesson.sentences).backward()
        norm = clip_grad_norm_(reader.parameters(), optim.clip_norm or torch.inf)
        if norm.isfinite():
            optimizer.step()
        optimizer.zero_grad()
        yield step + 1
