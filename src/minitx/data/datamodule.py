"""Planned updates as batches: this rank's share of every update, from a position (epoch, update) on, without end."""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch

from minitx.config.schema import Config
from minitx.data.batch import Batch, collate
from minitx.data.batching import (
    Ints,
    Update,
    check_width,
    count_updates,
    deal,
    epoch_plan,
    idle_share,
    padding_efficiency,
    window_order,
)
from minitx.data.corpus import Corpus
from minitx.data.encoded import EncodedSplit
from minitx.data.tokenizer import TokenizerPair
from minitx.data.windows import Progress, training_text
from minitx.utils.console import notify
from minitx.utils.errors import UserError

MAX_IDLE_SHARE = 0.1


class Turn(NamedTuple):
    """A micro-batch and its number within the update; weight 0 = it is computed, but counts for nothing."""

    number: int
    batch: Batch
    weight: float


class PlannedUpdate(NamedTuple):
    """One optimizer step, and this rank's turns at it.

    `n_tokens`: the target tokens of the whole update, over all ranks. `lengths`: those of its rows, EOS included,
    source and target.
    """

    epoch: int
    update: int
    n_tokens: int
    turns: list[Turn]
    lengths: tuple[Ints, Ints]


class Window(NamedTuple):
    """Pairs that are in memory together, and an epoch's plan for them; `begin`: updates of the epoch before these."""

    split: EncodedSplit
    plan: list[Update]
    begin: int


class UpdateStream:
    """Iterate over planned updates without end, each time from the same start."""

    def __init__(self, start: tuple[int, int], epoch: Callable[[int, int], Iterator[PlannedUpdate]]) -> None:
        self._start, self._epoch = start, epoch

    def __iter__(self) -> Iterator[PlannedUpdate]:
        epoch, update = self._start
        while True:
            yield from self._epoch(epoch, update)
            epoch, update = epoch + 1, 0


class TranslationData(pl.LightningDataModule):
    """Serve this rank's micro-batches of each update, from `start` = (epoch, update) on.

    An update has at least `min_micro_batches`, and one for each rank. Errors: `UserError` if too few training pairs are
    left, one fits no micro-batch, or a rank would never work.
    """

    def __init__(self, cfg: Config, corpus: Corpus, tokenizers: TokenizerPair, *, rank: int = 0, world_size: int = 1,
                 start: tuple[int, int] = (0, 0), min_micro_batches: int = 1,
                 progress: Progress = lambda _: None) -> None:
        super().__init__()
        self.cfg, self.rank, self.world_size, self.start = cfg, rank, world_size, start
        self.min_micro_batches = max(min_micro_batches, world_size)
        self.tokenizer = tokenizers.tgt
        self.text = training_text(cfg, corpus, tokenizers, progress)
        self.cleaning = self.text.cleaning
        self.cleaning.check(cfg.data.clean.max_dropped_pct)
        self.wait_s = 0.0  # that whoever iterates has waited for updates
        check_width(max(window.longest for window in self.text.windows), cfg.data.max_tokens, cfg.data.pad_to_multiple)
        self._updates = [count_updates(window.pairs, window.tgt_tokens, cfg.trainer.tokens_per_update)
                         for window in self.text.windows]
        self.updates_per_epoch = sum(self._updates)
        self._held: tuple[int, int, Window] | None = None
        largest = self._updates.index(max(self._updates))  # it stands for the others
        split, plan, _ = self._window(start[0], largest)
        self.padding_efficiency = padding_efficiency(plan, split.src_len, split.tgt_len, cfg.data.pad_to_multiple)
        self.idle_share = idle_share(plan, world_size)
        self._check_work(largest, max(len(update.micro_batches) for update in plan))

    def _check_work(self, largest: int, most: int) -> None:
        """Refuse more ranks than the largest update has rows, and warn of ranks that are idle for long."""
        others = "raise trainer.tokens_per_update, or take fewer trainer.devices"
        if most < self.world_size:
            pairs = f"{most} pair{'s' * (most > 1)}"
            raise UserError(f"trainer.devices={self.world_size}: no update has more than {pairs}, so some ranks would "
                            f"never work; {others}")
        if self.idle_share > MAX_IDLE_SHARE:
            finer = self._less_idle(largest)
            notify(f"ranks are idle {self.idle_share:.0%} of their turns; "
                   + (f"lower data.max_tokens (to {finer:,}), " if finer else "") + others)

    def _less_idle(self, number: int) -> int | None:
        """Return a `max_tokens` at which ranks are idle for less than is warned of, if there is one."""
        data, split = self.cfg.data, self._window(self.start[0], number).split
        max_tokens, widest = data.max_tokens, data.max_length + data.pad_to_multiple
        while (max_tokens := max_tokens // 2) >= widest:
            plan = self._plan(split, 0, number, max_tokens=max_tokens)
            if idle_share(plan, self.world_size) <= MAX_IDLE_SHARE:
                return max_tokens
        return None

    def splits_more_than(self, min_micro_batches: int) -> bool:
        """Tell whether some update has more micro-batches than it would have with this least number of them."""
        largest = self._updates.index(max(self._updates))
        split, plan, _ = self._window(self.start[0], largest)
        other = self._plan(split, self.start[0], largest, min_micro_batches=min_micro_batches)
        return any(len(a.micro_batches) > len(b.micro_batches) for a, b in zip(plan, other, strict=True))

    def window(self, epoch: int, update: int = 0) -> Window:
        """Return the window that holds an update of an epoch; after its last update, the last window.

        It stays in memory until another is asked for, and is released before that one is read.
        """
        begin = 0
        for number in window_order(len(self._updates), self.cfg.seed, epoch):
            if update < begin + self._updates[number]:
                break
            begin += self._updates[number]
        return self._window(epoch, number)

    def _window(self, epoch: int, number: int) -> Window:
        if self._held is None or self._held[:2] != (epoch, number):
            self._held = None
            order = window_order(len(self._updates), self.cfg.seed, epoch)
            begin = sum(self._updates[before] for before in order[:order.index(number)])
            split = self.text.load(number)
            self._held = epoch, number, Window(split, self._plan(split, epoch, number), begin)
        return self._held[2]

    def _plan(self, split: EncodedSplit, epoch: int, number: int, *, max_tokens: int | None = None,
              min_micro_batches: int | None = None) -> list[Update]:
        cfg = self.cfg
        return epoch_plan(
            split.src_len, split.tgt_len, seed=cfg.seed, epoch=epoch, window=number,
            tokens_per_update=cfg.trainer.tokens_per_update, pad_to_multiple=cfg.data.pad_to_multiple,
            max_tokens=max_tokens or cfg.data.max_tokens,
            min_micro_batches=min_micro_batches or self.min_micro_batches)

    def transfer_batch_to_device(self, batch: PlannedUpdate, device: torch.device,
                                 dataloader_idx: int) -> PlannedUpdate:
        """Leave an update where it is: the task moves its micro-batches one at a time."""
        return batch

    def train_dataloader(self) -> UpdateStream:
        """Iterate over updates across epochs, without end."""
        return UpdateStream(self.start, self._epoch)

    def _epoch(self, epoch: int, first: int) -> Iterator[PlannedUpdate]:
        while first < self.updates_per_epoch:
            for planned in self._rest_of_window(epoch, first):
                yield planned
                first = planned.update + 1

    def _rest_of_window(self, epoch: int, first: int) -> Iterator[PlannedUpdate]:
        began = perf_counter()
        split, plan, begin = self.window(epoch, first)
        src_len, tgt_len = split.src_len, split.tgt_len
        for number, update in enumerate(plan[first - begin:], first):
            batches = update.micro_batches
            turns = [Turn(i, self._collate(split, batches[i].rows), weight)
                     for i, weight in deal(update, self.rank, self.world_size)]
            rows = np.concatenate([batch.rows for batch in batches])
            planned = PlannedUpdate(epoch, number, update.n_tokens, turns, (src_len[rows], tgt_len[rows]))
            self.wait_s += perf_counter() - began
            yield planned
            began = perf_counter()

    def _collate(self, split: EncodedSplit, rows: Ints) -> Batch:
        ids = self.tokenizer
        return collate(split.src(rows), split.tgt(rows), pad_id=ids.pad_id, bos_id=ids.bos_id,
                       eos_id=ids.eos_id, pad_to_multiple=self.cfg.data.pad_to_multiple, recurring=True)
