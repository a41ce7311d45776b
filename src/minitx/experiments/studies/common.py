"""What studies stand on: their conditions, how far they are, and readers that learn to remember one token.

The readers' task is a latch (after Bengio, Simard and Frasconi 1994): the first token of a sentence is one of `KEYS`,
all others are filler, and after the last one, EOS, the reader is asked which the first was.

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

KEYS, FILLERS = 16, 16  # tokens that are asked for, and that are not
VOCAB = N_SPECIALS + KEYS + FILLERS
SYSTEMS = ("rnn", "lstm", "transformer")
STAGES = ("initial", "trained")


class Study(Protocol):
    """What a module of `minitx.experiments.studies` has that asks a question."""

    SIZES: Mapping[str, Any]  # "smoke" and "full", a dataclass each

    def measure(self, families: Mapping[str, Config], sizes: Any, console: Console) -> dict[str, Any]:
        """Return what was found, ready for JSON; its `claims` among it."""

    def table(self, found: Mapping[str, Any]) -> Iterator[str]:
        """Yield the lines that show a person what was found, but for the claims."""


def run_study(study: Study, families: Mapping[str, Config], size: str, console: Console) -> dict[str, Any]:
    """Measure, and note what the figures depend on. families: settled configs by name, alike but for the model"""
    cfg, sizes = next(iter(families.values())), study.SIZES[size]
    device = choose_device(cfg.trainer)
    began = perf_counter()
    with Watch(device) as watch:
        found = study.measure(families, sizes, console)
        other_cpu_pct = watch.usage().other_cpu_pct
    git_sha, git_dirty = git_state()
    conditions = {"device": str(device), "precision": choose_precision(cfg.trainer, device), "seed": cfg.seed,
                  "threads": torch.get_num_threads(), "took_s": perf_counter() - began, "other_cpu_pct": other_cpu_pct,
                  "git_sha": git_sha, "git_dirty": git_dirty, "versions": versions(), "hardware": hardware(device),
                  "environment": environment()}
    made = {"size": size, "sizes": asdict(sizes), "conditions": conditions}
    assert made.keys().isdisjoint(found), "a study may not write over what it was made with"
    return made | found


# --- the task


class LatchBatch(NamedTuple):
    """Hold sentences and which key each began with. keys: [B]"""

    src: Packed
    keys: Tensor

    def to(self, device: torch.device) -> "LatchBatch":
        return LatchBatch(self.src.to(device), self.keys.to(device))


def draw_latch_batch(distances: Sequence[int], draw: np.random.Generator) -> LatchBatch:
    """Draw a sentence for each distance, at least 1, of its last token from its first."""
    keys = draw.integers(KEYS, size=len(distances))
    fillers = [draw.integers(FILLERS, size=distance - 1) + KEYS for distance in distances]
    src = [[N_SPECIALS + int(token) for token in (key, *rest)] for key, rest in zip(keys, fillers, strict=True)]
    return LatchBatch(collate_src(src, pad_id=PAD_ID, eos_id=EOS_ID), torch.from_numpy(keys))


# --- who is asked


class PlainRNN(nn.Module):
    """h_t = tanh(W x_t + U h_{t-1} + b), with the weights that torch draws (Elman 1990)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.src_embed = nn.Embedding(VOCAB, width)
        self.rnn = nn.RNN(width, width, batch_first=True)

    def encode(self, src: Packed) -> Tensor:
        """--> [B, S, D]"""
        memory: Tensor = self.rnn(src.pad(self.src_embed(src.ids)))[0]
        return memory


class Reader(nn.Module):
    """Read with an encoder, which has `src_embed` and `encode`, and name the key from the state at EOS alone."""

    def __init__(self, encoder: Any, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.output = Linear(width, KEYS, bias=False)

    def forward(self, src: Packed) -> Tensor:
        """Return what the encoder makes of each sentence's last token. --> [B, D]"""
        memory = self.encoder.encode(src)
        states: Tensor = memory if memory.dim() == 3 else src.pad(memory)
        return states[torch.arange(len(states), device=states.device), src.lengths - 1]

    def loss_sum(self, states: Tensor, keys: Tensor) -> Tensor:
        """Sum the nats of the right keys. states: [B, D]"""
        return linear_cross_entropy(states, self.output.weight, keys)[0]

    def n_correct(self, states: Tensor, keys: Tensor) -> int:
        """Count the states that the right key is named from."""
        return int((self.output(states).argmax(1) == keys).sum())


def single_layer(model: ModelConfig, width: int) -> ModelConfig:
    """Bring a family to one layer whose state has `width` numbers and has read the sentence forwards only."""
    one_way = {"d_hidden": width, "bidirectional": False}
    own = {name: value for name, value in one_way.items() if hasattr(model, name)}
    return replace(with_width(model, width), **{"num_layers": 1, "dropout": 0.0} | own)  # type: ignore[arg-type]


def build_reader(system: str, families: Mapping[str, Config], width: int, seed: int) -> Reader:
    """Draw the weights of one of `SYSTEMS`; the LSTM and the Transformer are those of the families."""
    torch.manual_seed(seed)
    if system == "rnn":
        return Reader(PlainRNN(width), width)
    model = single_layer(families[system].model, width)
    return Reader(build_model(model, src_vocab_size=VOCAB, tgt_vocab_size=VOCAB), width)


@dataclass(frozen=True)
class Lesson:
    """Say what readers are taught: sentences of 1 to `longest` tokens before EOS, so many an update."""

    width: int = 64
    longest: int = 128
    sentences: int = 64
    updates: int = 400
    seeds: int = 3

    @property
    def work(self) -> float:
        """Updates of all systems and seeds."""
        return float(self.updates * self.seeds * len(SYSTEMS))


def train_readers(families: Mapping[str, Config], lesson: Lesson, progress: Progress) -> Iterator[
        tuple[str, str, int, Reader]]:
    """Yield every system, as drawn and then as taught, for each seed: the same reader twice. --> system, stage, seed"""
    cfg = next(iter(families.values()))
    for seed in range(cfg.seed, cfg.seed + lesson.seeds):
        for system in SYSTEMS:
            reader = build_reader(system, families, lesson.width, seed).to(choose_device(cfg.trainer)).eval()
            yield system, STAGES[0], seed, reader
            for number in train_reader(reader, cfg.optim, lesson, seed):
                progress(f"{system}, seed {seed}: update {number}/{lesson.updates}")
            yield system, STAGES[1], seed, reader.eval()


def train_reader(reader: Reader, optim: OptimConfig, lesson: Lesson, seed: int) -> Iterator[int]:
    """Train as families are, but without label smoothing; yield after each update how many there were."""
    draw, device = np.random.default_rng((seed, 0)), reader.output.weight.device
    optimizer = build_optimizer(cast(Seq2Seq, reader), optim, torch.float32)  # it looks at `output` and at weights
    reader.train()
    for step in range(lesson.updates):
        for group in optimizer.param_groups:
            group["lr"] = optim.lr * lr_factor(optim.schedule, step, warmup_steps=optim.warmup_steps,
                                               horizon=lesson.updates, decay_fraction=optim.decay_fraction)
        asked = draw_latch_batch(draw.integers(1, lesson.longest + 1, lesson.sentences).tolist(), draw).to(device)
        (reader.loss_sum(reader(asked.src), asked.keys) / lesson.sentences).backward()
        norm = clip_grad_norm_(reader.parameters(), optim.clip_norm or torch.inf)
        if norm.isfinite():
            optimizer.step()
        optimizer.zero_grad()
        yield step + 1
