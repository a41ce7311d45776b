"""Score a model on the validation set while it trains."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from minitx.batch import collate
from minitx.config import DecodeConfig
from minitx.data.plan import evaluation_plan
from minitx.data.tokenizer import TokenizerPair
from minitx.decoding.translate import Translator
from minitx.metrics import score
from minitx.models.base import Seq2Seq
from minitx.team import ALONE, Team, nothing
from minitx.training.task import TranslationTask

Pair = tuple[str, str]


@dataclass(frozen=True)
class Sample:
    """Show what a source became, beside what it should have."""

    source: str
    hypothesis: str
    reference: str


@dataclass(frozen=True)
class ValidationScore:
    """Hold loss (nats a token, no smoothing) over all pairs, and BLEU over the decoded subset."""

    loss: float
    bleu: float
    sentences: int
    seconds: float
    samples: list[Sample]


class Validator:
    """Measure the loss on every pair and the BLEU of greedy search on a fixed subset, spread evenly over the set."""

    def __init__(self, pairs: Sequence[Pair], tokenizers: TokenizerPair, decode: DecodeConfig, *, sentences: int,
                 samples: int, max_tokens: int, team: Team = ALONE, between: Callable[[], None] = nothing) -> None:
        self.tokenizers, self.decode, self.max_tokens = tokenizers, decode, max_tokens
        self.team, self.between = team, between
        count = min(sentences, len(pairs))
        self.subset = [pairs[i * len(pairs) // count] for i in range(count)]
        self.n_samples = min(samples, count)
        kept = [pair for pair in pairs if all(pair)]  # an empty side has no loss; it is decoded
        self.src = tokenizers.src.encode_batch([src for src, _ in kept])
        self.tgt = tokenizers.tgt.encode_batch([tgt for _, tgt in kept])

    def __call__(self, task: TranslationTask, model: Seq2Seq) -> ValidationScore:
        """Search in the number format of the weights; the loss also casts as training does.

        Ranks share the batches; each gets the same result. Errors: what `between` raises
        """
        began = perf_counter()
        sources, references = (list(side) for side in zip(*self.subset, strict=True))
        translator = Translator(model, self.tokenizers, self.decode, task.device, self.team, self.between)
        hypotheses = translator.translate(sources, beam_size=1)
        shown = [Sample(*row) for row in zip(sources, hypotheses, references, strict=True)][:self.n_samples]
        return ValidationScore(self.loss(task, model), score(hypotheses, references).bleu, len(sources),
                               perf_counter() - began, shown)

    @torch.inference_mode()
    def loss(self, task: TranslationTask, model: Seq2Seq) -> float:
        """Return nats a target token, teacher-forced; sides longer than what is read at test time are cut."""
        tok = self.tokenizers
        longest = min(self.decode.max_source_length, model.max_source_length or sys.maxsize) - 1
        sources, targets = ([ids[:longest] for ids in side] for side in (self.src, self.tgt))
        lengths = [max(len(src), len(tgt)) + 1 for src, tgt in zip(sources, targets, strict=True)]
        found: dict[int, tuple[float, int]] = {}
        model.eval()
        try:
            for turn, rows in self.team.dealt(list(enumerate(evaluation_plan(lengths, self.max_tokens))), self.between):
                batch = collate([sources[i] for i in rows], [targets[i] for i in rows], pad_id=tok.tgt.pad_id,
                                bos_id=tok.tgt.bos_id, eos_id=tok.tgt.eos_id)
                found[turn] = float(task.losses(model, batch.to(task.device), 0.0)[1]), batch.n_tokens
        finally:
            model.train()
        nll, n_tokens = zip((0.0, 0), *self.team.union(found).values(), strict=True)  # one order at any number of ranks
        return float(sum(nll) / max(1, sum(n_tokens)))
