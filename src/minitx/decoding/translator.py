"""Strings to strings with a trained model, the order kept. Neither Lightning nor Hydra.

Lines are sorted by length and searched in batches of at most `decode.max_tokens` padded source positions a hypothesis.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from minitx.config.schema import DecodeConfig
from minitx.data.batch import collate_src
from minitx.data.batching import evaluation_plan
from minitx.data.lines import is_blank
from minitx.data.tokenizer import TokenizerPair
from minitx.decoding.arguments import as_lines
from minitx.decoding.search import beam, check_beam, greedy
from minitx.distributed.ranks import SINGLE, Ranks, noop
from minitx.models.base import Seq2Seq, evaluating
from minitx.models.precision import computing_in
from minitx.utils.console import notify

Progress = Callable[[int, int], None]  # lines done, lines in all
Warn = Callable[[int, str], None]  # index of the line, what happened to it
Output = TypeVar("Output")


@dataclass(frozen=True)
class Translation:
    """Hold one of a line's best translations; `score` is what they are ranked by."""

    text: str
    log_prob: float  # nats, EOS included
    score: float  # log_prob / ((5 + length) / 6) ** length_penalty


class Translator:
    """Translate lines as `decode` says, unless a call says otherwise. Several threads may share one.

    Errors of all calls: TypeError if the lines are no iterable of strings (a lone string is refused), or an option has
    the wrong type; ValueError if an option is out of range.
    """

    def __init__(self, model: Seq2Seq, tokenizers: TokenizerPair, decode: DecodeConfig,
                 device: torch.device | str = "cpu", ranks: Ranks = SINGLE,
                 on_round: Callable[[], None] = noop) -> None:
        """ranks: they share the batches, and each gets all lines. on_round: what each calls before every round"""
        self.model, self.tokenizers, self.decode, self.device = model, tokenizers, decode, torch.device(device)
        self.ranks, self.on_round = ranks, on_round

    def translate(self, lines: Iterable[str], *, beam_size: int | None = None, length_penalty: float | None = None,
                  progress: Progress | None = None, warn: Warn | None = None) -> list[str]:
        """Translate each line; a blank one stays empty. `warn` is called for lines too long, which are cut."""
        lines, K, a, _ = self._checked(lines, beam_size, length_penalty)
        if K > 1:
            best = self.n_best(lines, 1, beam_size=K, length_penalty=a, progress=progress, warn=warn)
            return [translations[0].text for translations in best]
        ids = self._search(greedy, lines, 1, progress, warn)
        texts = dict(zip(ids, self.tokenizers.tgt.decode_batch(ids.values()), strict=True))
        return [texts.get(row, "") for row in range(len(lines))]

    def n_best(self, lines: Iterable[str], n: int, *, beam_size: int | None = None, length_penalty: float | None = None,
               progress: Progress | None = None, warn: Warn | None = None) -> list[list[Translation]]:
        """Find up to n outputs a line, best first; for a blank line one, empty. Two may differ in their tokens alone.

        Errors: ValueError if n is more than the beam size.
        """
        lines, K, a, n = self._checked(lines, beam_size, length_penalty, n)
        search = partial(beam, beam_size=K, length_penalty=a, n_best=n)
        outputs = self._search(search, lines, K, progress, warn)
        blank = [Translation("", 0.0, 0.0)]
        return [[Translation(self.tokenizers.tgt.decode(h.ids), h.log_prob, h.score) for h in outputs[row]]
                if row in outputs else blank for row in range(len(lines))]

    def _checked(self, lines: Iterable[str], beam_size: int | None, length_penalty: float | None,
                 n_best: int = 1) -> tuple[list[str], int, float, int]:
        """Return the arguments of a call as plain values, None replaced by what `decode` says."""
        beam_size = self.decode.beam_size if beam_size is None else beam_size
        length_penalty = self.decode.length_penalty if length_penalty is None else length_penalty
        return as_lines(lines), *check_beam(beam_size, length_penalty, n_best)

    def _search(self, search: Callable[..., list[Output]], lines: Sequence[str], beam_size: int,
                progress: Progress | None, warn: Warn | None) -> dict[int, Output]:
        """Search for each line that is not blank, longest first, so that memory peaks at once. --> outputs by index"""
        sources, tgt = self._encode(lines, warn or warn_of_line), self.tokenizers.tgt
        rows, lengths = list(sources), [len(ids) + 1 for ids in sources.values()]
        outputs: dict[int, Output] = {}
        with evaluating(self.model), computing_in(None if self.decode.precision is None else torch.bfloat16):
            plans = evaluation_plan(lengths, self.decode.max_tokens // beam_size)
            for plan in self.ranks.shard(plans, self.on_round):
                batch = [rows[i] for i in plan]
                src = collate_src([sources[row] for row in batch], pad_id=self.tokenizers.src.pad_id,
                                  eos_id=self.tokenizers.src.eos_id)
                batch_outputs = search(self.model, src.to(self.device), bos_id=tgt.bos_id, eos_id=tgt.eos_id,
                                       pad_id=tgt.pad_id,
                                       max_lengths=output_limits(src.lengths, self.decode, self.model))
                outputs.update(zip(batch, batch_outputs, strict=True))
                if progress is not None:
                    progress(len(lines) - max(0, len(rows) - len(outputs) * self.ranks.size), len(lines))
        return self.ranks.union(outputs)

    def _encode(self, lines: Sequence[str], warn: Warn) -> dict[int, list[int]]:
        """Encode the lines that are not blank. --> ids without EOS by line index, cut to what the model reads"""
        rows = [row for row, line in enumerate(lines) if not is_blank(line)]
        sources = dict(zip(rows, self.tokenizers.src.encode_batch([lines[row] for row in rows]), strict=True))
        longest = source_limit(self.decode, self.model)
        for row, ids in sources.items():
            if len(ids) >= longest:
                warn(row, f"{len(ids) + 1:,} tokens, cut to {longest:,}")
                sources[row] = ids[: longest - 1]
        return sources


def source_limit(decode: DecodeConfig, model: Seq2Seq) -> int:
    """Return how many tokens of a source the model reads, EOS included."""
    return min(decode.max_source_length, model.max_source_length or decode.max_source_length)


def output_limits(src_lengths: Tensor, decode: DecodeConfig, model: Seq2Seq) -> Tensor:
    """Bound each output: ratio * source tokens + extra, EOS counted on both sides, within what the model can write.

    src_lengths: [B] --> [B]
    """
    limits = (src_lengths * decode.max_length_ratio).round().long() + decode.max_length_extra
    return limits if model.max_target_length is None else limits.clamp(max=model.max_target_length)


def warn_of_line(row: int, what: str) -> None:
    """Warn of a line with a Python warning: for callers that pass no `warn`."""
    notify(f"line {row + 1}: {what}")
