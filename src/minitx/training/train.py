"""Train a model and write a complete run directory: prepare, fit, score, report."""

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter

from minitx.config.schema import Config
from minitx.decoding.torch_backend import TorchBackend
from minitx.decoding.translator import Translator
from minitx.distributed.cluster import requeue
from minitx.distributed.ranks import SINGLE, Ranks
from minitx.evaluation.evaluate import evaluate
from minitx.profiling.utilisation import Watch, read_ticks
from minitx.runs.checkpoint import load_model
from minitx.runs.directory import held, is_finished, storage_errors
from minitx.runs.result import TestScore
from minitx.training.build import build_strategy, build_trainer
from minitx.training.callbacks import Bookkeeping, Compilation, Progress, Stopping
from minitx.training.checkpointing import Checkpoints, Restore
from minitx.training.enough import LongEnough, has_learned, search_settings
from minitx.training.prepare import Prepared, prepare
from minitx.training.signals import Interrupted, Signals
from minitx.training.status import EXIT_OF, status_of
from minitx.training.summary import announce, build_result, summary
from minitx.training.telemetry import Telemetry
from minitx.training.validation import Validation, Validator
from minitx.utils.console import Console, duration, show_warnings
from minitx.utils.errors import Exit
from minitx.utils.files import write_atomically
from minitx.utils.progress import remaining_s


def train(cfg: Config, ranks: Ranks = SINGLE) -> Exit:
    """Train `cfg` in its run directory to the end, score the test sets, write result.json. Returns an exit code.

    All ranks do so together. Errors: `UserError` for text, storage or settings that cannot be used; what was saved
    before stays whole. Any other error has the update at which it came as a note.
    """
    assert cfg.run_dir is not None
    run_dir = Path(cfg.run_dir)
    console = Console(is_first_to_say=ranks.is_first_to_say, is_main=ranks.is_main)
    signals = Signals(patient=ranks.size > 1)
    with storage_errors(run_dir), signals.caught(), show_warnings(console), ExitStack() as stack:
        with ranks.main_process_first("the run directory"):
            if ranks.is_main:
                stack.enter_context(held(run_dir))
            if is_finished(cfg, run_dir, console):
                return Exit.OK
        prepared = prepare(cfg, run_dir, console, signals, ranks)
        try:
            announce(prepared)
            averaged = fit(prepared)
            scores = score(prepared)
            return report(prepared, averaged, scores)
        except Exception as error:
            error.add_note(f"update {prepared.run.state.step + 1}")
            raise


def fit(prepared: Prepared) -> list[int] | None:
    """Go through the updates until something ends the run, validate, and choose the weights that serve.

    Returns the steps of the checkpoints whose mean serves, or None where the weights of one step do. A run that was
    killed at its very end has only its validation to do again.
    """
    run, cfg = prepared.run, prepared.run.cfg
    validator = Validator(
        prepared.corpus.pairs("valid"), prepared.tokenizers, cfg.decode, samples=cfg.trainer.samples,
        sentences=cfg.trainer.valid_sentences if cfg.trainer.target_bleu is None else sys.maxsize,
        max_tokens=cfg.data.max_tokens, bleu_tokenizer=prepared.bleu_tokenizer, ranks=run.ranks,
        on_round=run.agreement.check)
    validation, stopping = Validation(run, validator), Stopping(run)
    run.stop_reason = stopping.reached_before()
    if run.stop_reason is None:
        loop(prepared, validation, stopping)
    else:
        validation.validate(prepared.task.to(prepared.device))
    if cfg.checkpoint.average is None or status_of(run.stop_reason) != "finished":
        return None
    return validation.validate_mean(prepared.task.to(prepared.device), cfg.checkpoint.average)


def loop(prepared: Prepared, validation: Validation, stopping: Stopping) -> None:
    """Let Lightning go through the updates. The order of the callbacks is that in which they see each update."""
    run, ranks = prepared.run, prepared.run.ranks
    ours = os.getppid() if ranks.size > 1 else os.getpid()  # count the other ranks' CPU time as ours
    watch = Watch(prepared.device, ticks=partial(read_ticks, root=ours))
    callbacks = [Restore(prepared.moments), Bookkeeping(run), Compilation(run), LongEnough(run), validation, stopping,
                 Telemetry(run, prepared.data, watch), Checkpoints(run), Progress(run)]
    with watch:
        trainer = build_trainer(prepared.device, callbacks, strategy=build_strategy(run.cfg.trainer, ranks),
                                ranks=ranks)
        trainer.fit(prepared.task, datamodule=prepared.data)
    run.clock.switch("startup")


def score(prepared: Prepared) -> dict[str, TestScore]:
    """Score the weights that serve, as whoever loads the run directory gets them; none unless the run is finished."""
    run = prepared.run
    if status_of(run.stop_reason) != "finished":
        return {}
    run.ranks.all_gather(None)  # the first rank has written the weights
    if not has_learned(run.state):
        run.console.line(f"validation BLEU {run.state.best_valid_bleu:.1f}: nothing was learned yet, so test sets are "
                         "searched greedily, for translations no longer than their sources")
    decode, began = search_settings(run.cfg.decode, run.state), perf_counter()

    def progress(name: str, done: int, total: int) -> None:
        left_s = remaining_s(perf_counter() - began, done, total)
        run.console.live(f"scoring {name}: {done}/{total} sentences  eta {duration(left_s)}")

    try:
        with run.clock.during("eval"):
            model, tokenizers, _ = load_model(run.run_dir, prepared.device)
            translator = Translator(TorchBackend([model], prepared.device, decode.precision), tokenizers, decode,
                                    run.ranks, run.agreement.check)
            return evaluate(translator, prepared.corpus, run.run_dir, prepared.bleu_tokenizer, progress,
                            run.console.warn)
    except Interrupted as stop:
        run.stop_reason = stop.reason
        return {}


def report(prepared: Prepared, averaged: list[int] | None, scores: dict[str, TestScore]) -> Exit:
    """Write result.json, say what came of the run, and return its exit code."""
    run = prepared.run
    run.state.eval_s = run.clock.seconds("eval")
    result = build_result(prepared, averaged, scores)
    if run.ranks.is_main:
        write_atomically(run.run_dir / "result.json", result.json().encode())
        if run.logger is not None:
            run.logger.close(result)
        run.console.line(summary(result, run.run_dir))
        if run.stop_reason == "requeued":
            requeue(run.console)
    run.ranks.all_gather(None)  # the others wait here, where no signal ends them: they would end this one too early
    return EXIT_OF[result.status]
