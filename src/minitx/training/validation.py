"""Score a model on the validation set while it trains, and the mean of its checkpoints at the end."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from minitx.config.schema import DecodeConfig
from minitx.data.batch import collate
from minitx.data.batching import evaluation_plan
from minitx.data.tokenizer import TokenizerPair
from minitx.decoding.torch_backend import TorchBackend
from minitx.decoding.translator import Translator
from minitx.distributed.ranks import SINGLE, Ranks, noop
from minitx.evaluation.metrics import DEFAULT_TOKENIZER, score
from minitx.models.base import Seq2Seq, evaluating
from minitx.runs.averaging import mean
from minitx.runs.checkpoint import save_model
from minitx.training.callbacks import RunContext
from minitx.training.signals import REASONS, Interrupted
from minitx.training.task import TranslationTask
from minitx.training.time_to_target import spent

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

    @property
    def finite_loss(self) -> float | None:
        """Return the loss, or None where it is not finite, which JSON cannot hold."""
        return self.loss if isfinite(self.loss) else None


class Validator:
    """Measure the loss on every pair and the BLEU of greedy search on a fixed subset, spread evenly over the set."""

    def __init__(self, pairs: Sequence[Pair], tokenizers: TokenizerPair, decode: DecodeConfig, *, sentences: int,
                 samples: int, max_tokens: int, bleu_tokenizer: str = DEFAULT_TOKENIZER, ranks: Ranks = SINGLE,
                 on_round: Callable[[], None] = noop) -> None:
        self.tokenizers, self.decode, self.max_tokens = tokenizers, decode, max_tokens
        self.bleu_tokenizer = bleu_tokenizer
        self.ranks, self.on_round = ranks, on_round
        count = min(sentences, len(pairs))
        self.subset = [pairs[i * len(pairs) // count] for i in range(count)]
        self.n_samples = min(samples, count)
        kept = [pair for pair in pairs if all(pair)]  # an empty side has no loss; it is decoded
        self.src = tokenizers.src.encode_batch([src for src, _ in kept])
        self.tgt = tokenizers.tgt.encode_batch([tgt for _, tgt in kept])

    def __call__(self, task: TranslationTask, model: Seq2Seq) -> ValidationScore:
        """Search in the number format of the weights; the loss casts as training does.

        Ranks share the batches; each gets the same result. Errors: whatever `on_round` raises
        """
        began = perf_counter()
        sources, references = (list(side) for side in zip(*self.subset, strict=True))
        translator = Translator(TorchBackend([model], task.device, self.decode.precision), self.tokenizers,
                                self.decode, self.ranks, self.on_round)
        hypotheses = translator.translate(sources, beam_size=1, split="never")
        shown = [Sample(*row) for row in zip(sources, hypotheses, references, strict=True)][:self.n_samples]
        bleu = score(hypotheses, references, self.bleu_tokenizer).bleu
        return ValidationScore(self.loss(task, model), bleu, len(sources), perf_counter() - began, shown)

    @torch.inference_mode()
    def loss(self, task: TranslationTask, model: Seq2Seq) -> float:
        """Return nats a target token, teacher-forced; sides longer than what is read at test time are cut."""
        tok = self.tokenizers
        longest = min(self.decode.max_source_length, model.max_source_length or sys.maxsize) - 1
        sources, targets = ([ids[:longest] for ids in side] for side in (self.src, self.tgt))
        lengths = [max(len(src), len(tgt)) + 1 for src, tgt in zip(sources, targets, strict=True)]
        found: dict[int, tuple[float, int]] = {}
        with evaluating(model):
            plans = list(enumerate(evaluation_plan(lengths, self.max_tokens)))
            for turn, rows in self.ranks.shard(plans, self.on_round):
                batch = collate([sources[i] for i in rows], [targets[i] for i in rows], pad_id=tok.tgt.pad_id,
                                bos_id=tok.tgt.bos_id, eos_id=tok.tgt.eos_id)
                found[turn] = float(task.losses(model, batch.to(task.device), 0.0)[1]), batch.n_tokens
        sums = self.ranks.union(found).values()  # one order at any number of ranks
        nll, n_tokens = zip((0.0, 0), *sums, strict=True)
        return float(sum(nll) / max(1, sum(n_tokens)))


class Validation(pl.Callback):
    """Score the validation set now and then, and keep the best weights as RUN/model.safetensors (`RunState.is_best`).

    Where a moving average of the weights is kept, it is what is scored and kept while the run trains.
    """

    def __init__(self, run: RunContext, validator: Validator) -> None:
        self.run, self.validator = run, validator
        self.is_explained = False  # what the signs before translations mean

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.run.state.step > 0:  # it may have been stopped while it validated
            self.validate_if_due(pl_module)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        self.validate_if_due(pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TranslationTask)
        if self.run.stop_reason not in REASONS:
            self.validate(pl_module)
        if self.run.state.best_step is None:  # a run stopped this early leaves a model all the same
            with pl_module.serving() as model:
                if self.run.ranks.is_main:
                    save_model(self.run.run_dir, model)

    def validate_if_due(self, task: pl.LightningModule) -> None:
        """Validate every `trainer.valid_every_n_steps` steps."""
        assert isinstance(task, TranslationTask)
        if self.run.state.step % self.run.cfg.trainer.valid_every_n_steps == 0:
            self.validate(task)

    def validate(self, task: TranslationTask) -> None:
        """Measure loss and BLEU, at most once a step, and show some translations. A signal ends this, then the run."""
        state, run = self.run.state, self.run
        if state.validated_step == state.step:
            return
        with run.clock.during("eval"), task.serving() as model:
            if (score := self.evaluate(task, model, f"step {state.step}")) is None:
                return
            state.validated_step, state.valid_bleu = state.step, score.bleu
            state.validations_since_best += 1
            if state.is_best(score.bleu, score.finite_loss):
                state.validations_since_best = 0
                self.save_best(model, score)
            self.note_target(score)
            state.eval_s = run.clock.seconds("eval")
            self.show(score.samples)
        samples = [asdict(sample) for sample in score.samples]
        run.record("valid", loss=score.finite_loss, bleu=score.bleu, sentences=score.sentences, tokens=state.tokens,
                   wall_s=round(run.clock.total(), 3), samples=samples)

    def show(self, samples: Sequence[Sample]) -> None:
        """Print some translations; the first time, say what stands before them."""
        if samples and not self.is_explained:
            self.is_explained = True
            self.run.console.line("    each sentence, followed by its translation (=) and the reference (~):")
        for sample in samples:
            self.run.console.line(f"    {sample.source}\n  = {sample.hypothesis}\n  ~ {sample.reference}")

    def validate_mean(self, task: TranslationTask, last: int) -> list[int] | None:
        """Evaluate the mean of the newest checkpoints' raw weights, when training is over: it serves if it is better.

        Returns the steps it is the mean of, or None if it does not serve.
        """
        state, run = self.run.state, self.run
        run.ranks.all_gather(None)  # the first rank has written the last one
        with run.clock.during("eval"):
            tensors, steps = mean(run.run_dir / "checkpoints", last, warn=run.console.warn)
            if len(steps) < last:
                run.console.warn(f"checkpoint.average={last}: the mean is of {len(steps)}, there are no more whole "
                                 "checkpoints (a smaller checkpoint.every_n_steps makes more)")
            model = task.holding(tensors)
            score = self.evaluate(task, model, f"mean of steps {', '.join(f'{step:,}' for step in steps)}")
            if score is None:
                return None
            better = state.is_best(score.bleu, score.finite_loss)
            if better:
                self.save_best(model, score)
            self.note_target(score)
        run.record("mean", loss=score.finite_loss, bleu=score.bleu, sentences=score.sentences, steps=steps)
        return steps if better else None

    def note_target(self, score: ValidationScore) -> None:
        """Note what had been spent when `trainer.target_bleu` was first reached."""
        state, target = self.run.state, self.run.cfg.trainer.target_bleu
        if target is not None and score.bleu >= target and state.at_target is None:
            state.at_target = spent({**vars(state), "wall_s": self.run.clock.total()})

    def evaluate(self, task: TranslationTask, model: Seq2Seq, what: str) -> ValidationScore | None:
        """Score a model and print the scores, or return None: a signal ends this, and then the run."""
        try:
            score = self.validator(task, model)
        except Interrupted as stop:
            self.run.stop_reason = stop.reason
            return None
        self.run.console.line(f"{what}: valid loss {score.loss:.3f}, BLEU {score.bleu:.1f} ({score.sentences} "
                              f"sentences, {score.seconds:.1f}s)")
        return score

    def save_best(self, model: Seq2Seq, score: ValidationScore) -> None:
        """Let a model serve: it is the best so far."""
        state = self.run.state
        state.best_valid_bleu, state.best_valid_loss, state.best_step = score.bleu, score.finite_loss, state.step
        state.best_sha256 = save_model(self.run.run_dir, model) if self.run.ranks.is_main else None
