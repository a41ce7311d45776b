"""Strings to strings with a trained model, the order kept. Neither Lightning nor Hydra.

Lines, or the sentences of a long one, are sorted by length and searched in batches of at most `decode.max_tokens`
padded source positions a hypothesis.
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
from minitx.decoding.splitting import split_line
from minitx.decoding.torch_backend import TorchBackend
from minitx.distributed.ranks import SINGLE, Ranks, noop
from minitx.models.base import Seq2Seq
from minitx.utils.console import notify
from minitx.utils.errors import Exit, UserError

Progress = Callable[[int, int], None]  # lines done, lines in all
Warn = Callable[[int, str], None]  # index of the line, what happened to it
SPLITS = ("long", "always", "never")


@dataclass(frozen=True)
class Translation:
    """Hold one of a line's best translations; `score` is what they are ranked by."""

    text: str
    log_prob: float  # nats, EOS included
    score: float  # log_prob / ((5 + length) / 6) ** length_penalty


class Translator:
    """Translate lines as `decode` says, unless a call says otherwise. Several threads may share one.

    Options of the calls that search: `prefixes`, one a line, is text that its translation begins with ("" = none).
    `no_repeat_ngram`: no sequence of so many tokens comes twice in a translation; 0 = it may. `split`: lines longer
    than the model reads are split into sentences, translated one by one and joined by spaces ("long"), or all lines
    are ("always"), or what is too long is cut ("never"); `warn` is called for each that was too long.

    Errors of all calls: TypeError if the lines are no iterable of strings (a lone string is refused), or an option has
    the wrong type; ValueError if an option is out of range, or prefixes are not as many as lines; `UserError` for a
    prefix longer than the model can write.
    """

    def __init__(self, backend: Backend, tokenizers: TokenizerPair, decode: DecodeConfig, ranks: Ranks = SINGLE,
                 on_round: Callable[[], None] = noop, language: str = "en") -> None:
        """ranks: they share the batches, and each gets all lines. on_round: what each calls before every round

        language: of the lines, for splitting them
        """
        self.backend, self.tokenizers, self.decode, self.language = backend, tokenizers, decode, language
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
                  prefixes: Iterable[str] | None = None, no_repeat_ngram: int = 0, split: str = "long",
                  progress: Progress | None = None, warn: Warn | None = None) -> list[str]:
        """Translate each line; a blank one stays empty."""
        lines, options = self._checked(lines, beam_size, length_penalty, 1, no_repeat_ngram)
        options = replace(options, scored=False)
        return self._texts(self._search(options, lines, prefixes, split, progress, warn), len(lines))

    def n_best(self, lines: Iterable[str], n: int, *, beam_size: int | None = None, length_penalty: float | None = None,
               prefixes: Iterable[str] | None = None, no_repeat_ngram: int = 0, split: str = "long",
               progress: Progress | None = None, warn: Warn | None = None) -> list[list[Translation]]:
        """Find up to n outputs a line, best first; for a blank line one, empty. Two may differ in their tokens alone.

        A line that was split has one: the best of each part, their numbers summed.
        Errors: ValueError if n is more than the beam size.
        """
        lines, options = self._checked(lines, beam_size, length_penalty, n, no_repeat_ngram)
        outputs = self._search(options, lines, prefixes, split, progress, warn)
        decode = self.tokenizers.tgt.decode
        found = {row: [[Translation(decode(h.ids), h.log_prob, h.score) for h in part] for part in parts]
                 for row, parts in outputs.items()}
        return [_joined(found.get(row, [])) for row in range(len(lines))]

    def sample(self, lines: Iterable[str], *, temperature: float = 1.0, top_k: int = 0, seed: int = 0,
               first_line: int = 0, prefixes: Iterable[str] | None = None, no_repeat_ngram: int = 0,
               split: str = "long", progress: Progress | None = None, warn: Warn | None = None) -> list[str]:
        """Draw a translation of each line, token by token from softmax(logits / temperature), as `translate` else.

        top_k: draw from so many likeliest tokens alone, 0 = from all. What is drawn for a line depends on seed and line
        number; `first_line` is the first one's number, for lines that come in parts.
        """
        lines, options = self._checked(lines, 1, None, 1, no_repeat_ngram)
        sampling = Sampling(as_number(temperature, "temperature", positive=True), as_count(top_k, "top_k", least=0),
                            line_seeds(as_count(seed, "seed", least=0), as_count(first_line, "first_line", least=0),
                                       len(lines)))
        options = replace(options, scored=False, sampling=sampling)
        return self._texts(self._search(options, lines, prefixes, split, progress, warn), len(lines))

    def _checked(self, lines: Iterable[str], beam_size: int | None, length_penalty: float | None, n_best: int,
                 no_repeat_ngram: int) -> tuple[list[str], SearchOptions]:
        """Return the arguments of a call as plain values, None replaced by what `decode` says."""
        beam_size = self.decode.beam_size if beam_size is None else beam_size
        length_penalty = self.decode.length_penalty if length_penalty is None else length_penalty
        lines, beam = as_lines(lines), check_beam(beam_size, length_penalty, n_best)
        return lines, SearchOptions(*beam, no_repeat_ngram=as_count(no_repeat_ngram, "no_repeat_ngram", least=0))

    def _search(self, options: SearchOptions, lines: Sequence[str], prefixes: Iterable[str] | None, split: str,
                progress: Progress | None, warn: Warn | None) -> dict[int, list[list[Hypothesis]]]:
        """Search for each line that is not blank, longest first, so that memory peaks at once.

        --> by index of the line, what was found for each of its parts; most lines are one
        """
        begins = self._prefixes(prefixes, len(lines))
        parts = self._parts(lines, split, warn or warn_of_line)
        keys, lengths = list(parts), [len(ids) + 1 for ids in parts.values()]
        outputs: dict[int, list[Hypothesis]] = {}
        with self.backend.session():
            plans = evaluation_plan(lengths, self.decode.max_tokens // options.beam_size)
            for plan in self.ranks.shard(plans, self.on_round):
                prefix = [begins.get(keys[i][0], []) if keys[i][1] == 0 else [] for i in plan]
                limits = [output_limit(lengths[i], len(begin), self.decode, self.backend)
                          for i, begin in zip(plan, prefix, strict=True)]
                batch = self.backend.search([parts[keys[i]] for i in plan], limits,
                                            _of_batch(options, [keys[i] for i in plan], prefix))
                outputs.update(zip(plan.tolist(), batch, strict=True))
                if progress is not None:
                    left = max(0, len(keys) - len(outputs) * self.ranks.size)
                    progress(len(lines) - min(left, len(lines)), len(lines))
        found: dict[int, list[list[Hypothesis]]] = {}
        for i, best in self.ranks.union(outputs).items():
            found.setdefault(keys[i][0], []).append(best)
        return found

    def _parts(self, lines: Sequence[str], split: str, warn: Warn) -> dict[tuple[int, int], list[int]]:
        """Encode the lines that are not blank. --> ids without EOS by (line, part), none longer than the model reads"""
        if split not in SPLITS:
            raise ValueError(f"split={split!r:.40}: must be {', '.join(SPLITS)}")
        longest, src, found = source_limit(self.decode, self.backend), self.tokenizers.src, {}
        for row, ids in _encode_filled(src, lines).items():
            is_long, parts = len(ids) >= longest, [ids]
            if split == "always" or is_long and split == "long":
                parts = split_line(lines[row], self.language, src, longest - 1)
            if is_long:
                how = f"cut to {longest:,}" if split == "never" else (
                    f"split into {len(parts)} parts: at most {longest:,} are read at once")
                warn(row, f"{len(ids) + 1:,} tokens, {how}")
            found.update({(row, n): part[:longest - 1] for n, part in enumerate(parts)})
        return found

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

    def _texts(self, outputs: dict[int, list[list[Hypothesis]]], n_lines: int) -> list[str]:
        """Decode the best output of each line; a line without one is empty."""
        texts = iter(self.tokenizers.tgt.decode_batch([best[0].ids for parts in outputs.values() for best in parts]))
        joined = {row: " ".join(next(texts) for _ in parts) for row, parts in outputs.items()}
        return [joined.get(row, "") for row in range(n_lines)]


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


def _of_batch(options: SearchOptions, keys: Sequence[tuple[int, int]], prefixes: list[list[int]]) -> SearchOptions:
    """Return the options for these parts of lines, by (line, part); seeds are picked from those of all lines."""
    if options.sampling is not None:
        seeds = [options.sampling.seeds[row] + part for row, part in keys]
        options = replace(options, sampling=replace(options.sampling, seeds=seeds))
    return replace(options, prefixes=prefixes) if any(prefixes) else options


def _joined(parts: list[list[Translation]]) -> list[Translation]:
    """Return a line's best translations: those of its one part, or the best of each part as one."""
    if len(parts) == 1:
        return parts[0]
    best = [part[0] for part in parts]
    return [Translation(" ".join(one.text for one in best), sum((one.log_prob for one in best), 0.0),
                        sum((one.score for one in best), 0.0))]


def _encode_filled(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[int, list[int]]:
    """Encode the texts that are not blank. --> ids by index"""
    rows = [row for row, text in enumerate(texts) if not is_blank(text)]
    return dict(zip(rows, tokenizer.encode_batch([texts[row] for row in rows]), strict=True))
