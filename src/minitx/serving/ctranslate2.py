"""An export to CTranslate2 as what a `Translator` searches with. It has threads and a queue of its own.

The search is CTranslate2's. What it finds is scored by the model in one more pass, and ranked as minitx ranks: its own
scores leave out prefixes, and are divided by another penalty.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import ctranslate2  # type: ignore[import-untyped]
import torch

from minitx.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, TokenizerPair
from minitx.decoding.backend import Backend, Hypothesis, SearchOptions
from minitx.export.manifest import Manifest
from minitx.utils.errors import UserError

Ids = Sequence[int]


def open_backend(folder: Path, manifest: Manifest) -> "CTranslate2Backend":
    """Load an exported folder that is whole, for the threads that torch has here. Errors: `UserError`"""
    pair = TokenizerPair.load(folder)
    try:
        translator = ctranslate2.Translator(str(folder), device="cpu", intra_threads=torch.get_num_threads())
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: CTranslate2 cannot load it: {error}") from error
    return CTranslate2Backend(translator, pair.src.tokens, pair.tgt.tokens, manifest)


class CTranslate2Backend(Backend):
    """Search with CTranslate2, by its rules: see docs/export.md for where they differ from ours."""

    def __init__(self, translator: Any, src_tokens: Sequence[str], tgt_tokens: Sequence[str],
                 manifest: Manifest) -> None:
        """src_tokens, tgt_tokens: by id, as the engine knows them"""
        self.translator = translator
        self.src_tokens, self.tgt_tokens = src_tokens, tgt_tokens
        self.tgt_ids = {token: id_ for id_, token in enumerate(tgt_tokens)}
        self.max_source_length, self.max_target_length = manifest.max_source_length, manifest.max_target_length

    def search(self, sources: Sequence[Ids], limits: Sequence[int], options: SearchOptions) -> list[list[Hypothesis]]:
        """Search all together up to the longest limit, and again those of a beam that went beyond their own.

        Errors: `UserError` for sampling: CTranslate2 has one seed for all that it draws.
        """
        if options.sampling is not None:
            raise UserError("an export to CTranslate2 cannot draw each line by a seed of its own; use the run that it "
                            "was made from, or an export to onnx")
        prefixes = options.prefixes or [()] * len(sources)
        found = self._found(sources, prefixes, max(limits), options)
        again: dict[int, list[int]] = defaultdict(list)
        for i, (outputs, limit) in enumerate(zip(found, limits, strict=True)):
            if options.beam_size == 1:
                found[i] = [output[:limit] for output in outputs]
            elif any(len(output) > limit for output in outputs):
                again[limit].append(i)
        for limit, rows in again.items():
            pieces = self._found([sources[i] for i in rows], [prefixes[i] for i in rows], limit, options)
            for i, outputs in zip(rows, pieces, strict=True):
                found[i] = outputs
        return self._ranked(sources, found, options)

    def score(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        """Score by forced decoding, in the number format of the export."""
        return [sum(log_probs) for log_probs in self._log_probs(sources, targets)]

    def _found(self, sources: Sequence[Ids], prefixes: Sequence[Ids], limit: int,
               options: SearchOptions) -> list[list[list[int]]]:
        """Search up to one limit. --> ids of outputs by sentence, with EOS where it was found"""
        ranks_itself = options.n_best == 1 and options.length_penalty == 0
        results = self.translator.translate_batch(
            self._words(self.src_tokens, sources), target_prefix=self._words(self.tgt_tokens, prefixes),
            beam_size=options.beam_size, num_hypotheses=1 if ranks_itself else options.beam_size, length_penalty=0,
            no_repeat_ngram_size=options.no_repeat_ngram, max_input_length=0, min_decoding_length=0,
            max_decoding_length=limit, return_end_token=True,
            suppress_sequences=[[self.tgt_tokens[PAD_ID]], [self.tgt_tokens[BOS_ID]]])
        return [[[self.tgt_ids[token] for token in hypothesis] for hypothesis in result.hypotheses]
                for result in results]

    def _ranked(self, sources: Sequence[Ids], found: Sequence[Sequence[list[int]]],
                options: SearchOptions) -> list[list[Hypothesis]]:
        """Score outputs where that decides or is read, and take the n_best of each sentence."""
        if not options.scored and all(len(outputs) == 1 for outputs in found):
            return [[Hypothesis(_without_eos(output), nan, nan) for output in outputs] for outputs in found]
        flat = [(source, output) for source, outputs in zip(sources, found, strict=True) for output in outputs]
        scored = iter(self._log_probs([source for source, _ in flat], [_without_eos(output) for _, output in flat]))
        ranked = []
        for outputs in found:
            hypotheses = []
            for output in outputs:
                log_prob = sum(next(scored)[:len(output)])  # one cut at its limit has no EOS
                score = log_prob / ((5 + len(output)) / 6) ** options.length_penalty
                hypotheses.append(Hypothesis(_without_eos(output), log_prob, score))
            ranked.append(sorted(hypotheses, key=lambda h: (-h.score, h.ids))[:options.n_best])
        return ranked

    def _log_probs(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[list[float]]:
        """Return the log-probability of each token, EOS last."""
        scored = self.translator.score_batch(self._words(self.src_tokens, sources),
                                             self._words(self.tgt_tokens, targets), max_input_length=0)
        return [list(one.log_probs) for one in scored]

    @staticmethod
    def _words(tokens: Sequence[str], batch: Sequence[Ids]) -> list[list[str]]:
        return [[tokens[id_] for id_ in ids] for ids in batch]


def _without_eos(output: list[int]) -> list[int]:
    return output[:-1] if output and output[-1] == EOS_ID else output
