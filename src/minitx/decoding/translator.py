"""Strings to strings with a trained model, the order kept. Neither Lightning nor Hydra.

Lines are sorted by length and searched in batches of at most `decode.max_tokens` padded source positions a hypothesis.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from minitx.config.schema import DecodeConfig
from minitx.data.batching import evaluation_plan
from minitx.data.lines import is_blank
from minitx.data.tokenizer import Tokenizer, TokenizerPair
from minitx.decoding.arguments import as_count, as_lines, as_number
from minitx.decoding.backend import Backend, Hypothesis, Sampling, SearchOptions
from minitx.decoding.search import check_beam
from minitx.decoding.torch_backend import TorchBackend
from minitx.distributed.ranks import SINGLE, Ranks, noop
from minitx.models.base import Seq2Seq
from minitx.utils.console import notify
from minitx.utils.errors import Exit, UserError

Progress = Callable[[int, int], None]  # lines done, lines in all
Warn = Callable[[int, str], None]  # index of the line, what happened to it


@dataclass(frozen=True)
class Translation:
    """Hold one of a line's best translations; `score` is what they are ranked by."""

    text: str
    log_prob: float  # nats, EOS included
    score: float  # log_prob / ((5 + length) / 6) ** length_penalty


class Translator:
    """Translate lines as `decode` says, unless a call says otherwise. Several threads may share one.

    Options of the calls that search: `prefixes`, one a line, is text that its translation begins with ("" = none).
    `no_repeat_ngram`: no sequence of so many tokens comes twice in a translation; 0 = it may.

    Errors of all calls: TypeError if the lines are no iterable of strings (a lone string is refused), or an option has
    the wrong type; ValueError if an option is out of range, or prefixes are not as many as lines; `UserError` for a
    prefix longer than the model can write.
    """

    def __init__(self, backend: Backend, tokenizers: TokenizerPair, decode: DecodeConfig, ranks: Ranks = SINGLE,
                 on_round: Callable[[], None] = noop) -> None:
        """ranks: they share the batches, and each gets all lines. on_round: what each calls before every round"""
        self.backend, self.tokenizers, self.decode = backend, tokenizers, decode
        self.ranks, self.on_round = ranks, on_round

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device(self.backend.device)

    @property
    def model(self) -> Seq2Seq:
        """The model that translates. Errors: `UserError` where it is an export, or one of several."""
        if not isinstance(self.backend, TorchBackend):
            raise UserError("an export cannot be looked into; take the run that it was made from")
        if len(self.backend.models) > 1:
            raise UserError(f"{len(self.backend.models)} models translate together; take one run to look into")
        return self.backend.models[0]

    def translate(self, lines: Iterable[str], *, beam_size: int | None = None, length_penalty: float | None = None,
                  prefixes: Iterable[str] | None = None, no_repeat_ngram: int = 0, progress: Progress | None = None,
                  warn: Warn | None = None) -> list[str]:
        """Translate each line; a blank one stays empty. `warn` is called for lines too long, which are cut."""
        lines, options = self._checked(lines, beam_size, length_penalty, 1, no_repeat_ngram)
        found = self._search(replace(options, scored=False), lines, prefixes, progress, warn)
        return self._texts(found, len(lines))

    def n_best(self, lines: Iterable[str], n: int, *, beam_size: int | None = None, length_penalty: float | None = None,
               prefixes: Iterable[str] | None = None, no_repeat_ngram: int = 0, progress: Progress | None = None,
               warn: Warn | None = None) -> list[list[Translation]]:
        """Find up to n outputs a line, best first; for a blank line one, empty. Two may differ in their tokens alone.

        Errors: ValueError if n is more than the beam size.
        """
        lines, options = self._checked(lines, beam_size, length_penalty, n, no_repeat_ngram)
        outputs = self._search(options, lines, prefixes, progress, warn)
        blank = [Translation("", 0.0, 0.0)]
        return [[Translation(self.tokenizers.tgt.decode(h.ids), h.log_prob, h.score) for h in outputs[row]]
                if row in outputs else blank for row in range(len(lines))]

    def sample(self, lines: Iterable[str], *, temperature: float = 1.0, top_k: int = 0, seed: int = 0,
               first_line: int = 0, prefixes: Iterable[str] | None = None, no_repeat_ngram: int = 0,
               progress: Progress | None = None, warn: Warn | None = None) -> list[str]:
        """Draw a translation of each line, token by token from softmax(logits / temperature), as `translate` else.

        top_k: draw from so many likeliest tokens alone, 0 = from all. What is drawn for a line depends on seed and line
        number; `first_line` is the first one's number, for lines that come in parts.
        """
        lines, options = self._checked(lines, 1, None, 1, no_repeat_ngram)
        sampling = Sampling(as_number(temperature, "temperature", positive=True), as_count(top_k, "top_k", least=0),
                            line_seeds(as_count(seed, "seed", least=0), as_count(first_line, "first_line", least=0),
                                       len(lines)))
        found = self._search(replace(options, scored=False, sampling=sampling), lines, prefixes, progress, warn)
        return self._texts(found, len(lines))

    def _checked(self, lines: Iterable[str], beam_size: int | None, length_penalty: float | None, n_best: int,
                 no_repeat_ngram: int) -> tuple[list[str], SearchOptions]:
        """Return the arguments of a call as plain values, None replaced by what `decode` says."""
        beam_size = self.decode.beam_size if beam_size is None else beam_size
        length_penalty = self.decode.length_penalty if length_penalty is None else length_penalty
        lines, beam = as_lines(lines), check_beam(beam_size, length_penalty, n_best)
        return lines, SearchOptions(*beam, no_repeat_ngram=as_count(no_repeat_ngram, "no_repeat_ngram", least=0))

    def _search(self, options: SearchOptions, lines: Sequence[str], prefixes: Iterable[str] | None,
                progress: Progress | None, warn: Warn | None) -> dict[int, list[Hypothesis]]:
        """Search for each line that is not blank, longest first, so that memory peaks at once. --> outputs by index"""
        begins = self._prefixes(prefixes, len(lines))
        sources = self._encode(lines, warn or warn_of_line)
        rows, lengths = list(sources), [len(ids) + 1 for ids in sources.values()]
        outputs: dict[int, list[Hypothesis]] = {}
        with self.backend.session():
            plans = evaluation_plan(lengths, self.decode.max_tokens // options.beam_size)
            for plan in self.ranks.shard(plans, self.on_round):
                batch = [rows[i] for i in plan]
                limits = [output_limit(lengths[i], len(begins.get(rows[i], [])), self.decode, self.backend)
                          for i in plan]
                outputs.update(zip(batch, self.backend.search([sources[row] for row in batch], limits,
                                                              _of_batch(options, batch, begins)), strict=True))
                if progress is not None:
                    progress(len(lines) - max(0, len(rows) - len(outputs) * self.ranks.size), len(lines))
        return self.ranks.union(outputs)

    def _encode(self, lines: Sequence[str], warn: Warn) -> dict[int, list[int]]:
        """Encode the lines that are not blank. --> ids without EOS by line index, cut to what the model reads"""
        sources = _encode_filled(self.tokenizers.src, lines)
        longest = source_limit(self.decode, self.backend)
        for row, ids in sources.items():
            if len(ids) >= longest:
                warn(row, f"{len(ids) + 1:,} tokens, cut to {longest:,}")
                sources[row] = ids[: longest - 1]
        return sources

    def _prefixes(self, prefixes: Iterable[str] | None, count: int) -> dict[int, list[int]]:
        """Encode the prefixes that are not blank. --> ids by line index"""
        if prefixes is None:
            return {}
        texts = [text.rstrip() for text in as_lines(prefixes, "prefixes")]  # a token begins with its space
        if len(texts) != count:
            raise ValueError(f"prefixes has {len(texts)} lines, lines has {count}: must be as many")
        found, longest = _encode_filled(self.tokenizers.tgt, texts), self.backend.max_target_length
        for row, ids in found.items():
            if longest is not None and len(ids) >= longest:
                raise UserError(f"prefix {row + 1}: has {len(ids):,} tokens, this model writes at most {longest:,}, "
                                "the end included; take a shorter one", Exit.DATA)
        return found

    def _texts(self, outputs: dict[int, list[Hypothesis]], count: int) -> list[str]:
        """Decode the best output of each line; a line without one is empty."""
        ids = {row: best[0].ids for row, best in outputs.items()}
        texts = dict(zip(ids, self.tokenizers.tgt.decode_batch(ids.values()), strict=True))
        return [texts.get(row, "") for row in range(count)]


def source_limit(decode: DecodeConfig, backend: Backend) -> int:
    """Return how many tokens of a source are read, EOS included."""
    return min(decode.max_source_length, backend.max_source_length or decode.max_source_length)


def output_limit(src_length: int, prefix_length: int, decode: DecodeConfig, backend: Backend) -> int:
    """Bound an output: ratio * source tokens + extra, EOS counted on both sides, within what the model can write.

    A long prefix raises it, so that `extra` more tokens may follow.
    """
    limit = max(round(src_length * decode.max_length_ratio), prefix_length) + decode.max_length_extra
    return limit if backend.max_target_length is None else min(limit, backend.max_target_length)


def line_seeds(seed: int, first_line: int, count: int) -> list[int]:
    """Return a seed for each line, which depends on `seed` and the line's number alone."""
    return [int(np.random.SeedSequence((seed, row)).generate_state(1, np.uint64)[0])
            for row in range(first_line, first_line + count)]


def warn_of_line(row: int, what: str) -> None:
    """Warn of a line with a Python warning: for callers that pass no `warn`."""
    notify(f"line {row + 1}: {what}")


def _of_batch(options: SearchOptions, batch: Sequence[int], prefixes: dict[int, list[int]]) -> SearchOptions:
    """Return the options for these lines; their seeds are picked from those of all."""
    if options.sampling is not None:
        seeds = [options.sampling.seeds[row] for row in batch]
        options = replace(options, sampling=replace(options.sampling, seeds=seeds))
    return replace(options, prefixes=[prefixes.get(row, []) for row in batch]) if prefixes else options


def _encode_filled(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[int, list[int]]:
    """Encode the texts that are not blank. --> ids by index"""
    rows = [row for row, text in enumerate(texts) if not is_blank(text)]
    return dict(zip(rows, tokenizer.encode_batch([texts[row] for row in rows]), strict=True))
