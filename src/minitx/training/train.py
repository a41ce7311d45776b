"""Train a model and leave a run directory that says all about it."""

import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from lightning.pytorch.loggers import Logger

from minitx.config.saved import freeze
from minitx.config.schema import Config, as_dict, config_sha256
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.decoding.translator import Translator
from minitx.distributed.cluster import requeue
from minitx.distributed.ranks import SINGLE, Ranks
from minitx.evaluation.evaluate import evaluate
from minitx.evaluation.metrics import bleu_tokenizer
from minitx.profiling.peak import peak
from minitx.profiling.process import cores, process_age_s
from minitx.profiling.provenance import environment, git_state, hardware, peak_memory_gib, versions
from minitx.profiling.timers import Clock
from minitx.profiling.utilisation import Watch, read_ticks
from minitx.runs.checkpoint import Checkpoint, load_checkpoint, load_model, remove_leftovers, restore_weights
from minitx.runs.compatibility import identity, refuse_others
from minitx.runs.directory import held, is_finished, storage_errors, truncate_metrics
from minitx.runs.result import SEARCH, Result, TestScore
from minitx.training import time_to_target
from minitx.training.build import (
    build_strategy,
    build_task,
    build_tokenizers,
    build_trainer,
    choose_device,
    choose_precision,
)
from minitx.training.callbacks import Bookkeeping, InOrder, Progress, RunContext, Stopping
from minitx.training.checkpointing import Checkpoints, Restore
from minitx.training.coordination import Agreement
from minitx.training.loggers import LoggerGuard, build_logger
from minitx.training.resume import settle_horizon, settle_target
from minitx.training.signals import Interrupted, Signals
from minitx.training.state import RunState
from minitx.training.summary import summary
from minitx.training.telemetry import Telemetry, measured
from minitx.training.validation import Validation, Validator
from minitx.utils.console import Console, duration, warnings_told
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

STATUS_OF = {"interrupted": "interrupted", "terminated": "terminated", "requeued": "terminated",
             "max_nonfinite": "diverged"}
EXIT_OF = {"finished": Exit.OK, "interrupted": Exit.INTERRUPTED, "terminated": Exit.TERMINATED,
           "diverged": Exit.DIVERGED}


def train(cfg: Config, ranks: Ranks = SINGLE) -> Exit:
    """Train `cfg` in its run directory to the end, score the test sets, write result.json. Returns an exit code.

    All ranks do so together. Errors: `UserError` for text, storage or settings that cannot be used; what was
    saved before stays whole.
    """
    assert cfg.run_dir is not None
    run_dir = Path(cfg.run_dir)
    console = Console(is_first_to_say=ranks.is_first_to_say, is_main=ranks.is_main)
    signals = Signals(patient=ranks.size > 1)
    with storage_errors(run_dir), signals.caught(), warnings_told(console), ExitStack() as stack:
        with ranks.main_process_first("the run directory"):
            if ranks.is_main:
                stack.enter_context(held(run_dir))
            if is_finished(cfg, run_dir, console):
                return Exit.OK
        return Run(cfg, run_dir, console, signals, ranks).go()


class Run:
    """One training from text to result."""

    def __init__(self, cfg: Config, run_dir: Path, console: Console, signals: Signals, ranks: Ranks = SINGLE) -> None:
        self.cfg, self.run_dir, self.console, self.ranks = cfg, run_dir, console, ranks
        self.agreement = Agreement(ranks, signals)
        with ranks.main_process_first("the checkpoint"):
            if ranks.is_main:
                remove_leftovers(run_dir)
            saved = load_checkpoint(run_dir / "checkpoints", warn=console.warn)
        self.state = state = RunState.parse(saved.meta["state"]) if saved else RunState()
        self.note_code()  # now: the tree may change while it trains
        self.clock = Clock("startup", startup=state.startup_s + process_age_s(), train=state.train_s, eval=state.eval_s,
                           checkpoint=state.checkpoint_s)
        self.device = choose_device(cfg.trainer, ranks.local_rank)
        state.precision = state.precision or choose_precision(cfg.trainer, self.device)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        settle_horizon(cfg, state, saved.meta["limits"] if saved else None)
        console.line(f"reading {cfg.choices.data}, {cfg.data.src}-{cfg.data.tgt} ...")
        with ranks.main_process_first("the text"):
            self.corpus = load_corpus(cfg.data)
            for name in ("valid", *self.corpus.test_sets):
                self.corpus.pairs(name)  # what is wrong with a file is told now, not after the training
            self.bleu_tokenizer = bleu_tokenizer(cfg.data.tgt, cfg.data.bleu_tokenizer)
            self.tokenizers = build_tokenizers(cfg, self.corpus, run_dir)
            self.identity = identity(self.corpus.fingerprint, self.tokenizers.fingerprint)
            if saved:
                refuse_others(self.identity, saved.meta["identity"], run_dir)
            self.data = TranslationData(cfg, self.corpus, self.tokenizers, rank=ranks.rank, world_size=ranks.size,
                                        start=(state.epoch, state.update), tell=partial(tell_or_stop, console, signals))
        ranks.agree(**self.identity, precision=state.precision, step=str(state.step))
        self.task = build_task(cfg, self.tokenizers, state, device=self.device, ranks=ranks,
                               weights=saved.section("model") if saved else None)
        self.moments = saved.section("optim") if saved else {}
        self.averaged: list[int] | None = None  # steps, where a mean of checkpoints serves
        self.records = ranks.broadcast(truncate_metrics(run_dir / "metrics.jsonl", state.step) if ranks.is_main else [])
        if saved:
            self.resume(saved)
        if ranks.is_main:
            freeze(cfg, run_dir)  # of a run that goes on, some settings may have changed

    def note_code(self) -> None:
        """Note the commit; a run begun with other code was trained by no one commit."""
        state, (sha, dirty) = self.state, git_state()
        other = state.step > 0 and state.git_sha != sha
        state.git_dirty = None if dirty is None else dirty or other or bool(state.git_dirty)
        state.git_sha = sha

    def resume(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint."""
        if self.task.ema is not None:
            self.task.ema.restore(saved.section("ema"))
        full = len(self.corpus.pairs("valid"))
        settle_target(self.state, self.cfg.trainer.target_bleu, saved.meta["limits"]["target_bleu"],
                      [entry for entry in self.records if entry["event"] == "valid" and entry["sentences"] == full])
        kept = self.state.best_sha256 is None or not self.ranks.is_main or restore_weights(
            self.run_dir, self.state.best_sha256)
        if not self.ranks.broadcast(kept):
            self.console.warn(f"the weights of step {self.state.best_step}, the best so far, are lost or damaged; the "
                              "best are chosen anew")
            self.state.best_valid_bleu = self.state.best_step = self.state.best_sha256 = None
        self.console.line(f"resuming at step {self.state.step} from {saved.path.name[:13]}")

    def go(self) -> Exit:
        """Fit, score, report. What goes wrong is told with the update it went wrong at."""
        try:
            return self._go()
        except Exception as error:
            error.add_note(f"update {self.state.step + 1}")
            raise

    def _go(self) -> Exit:
        assert self.state.precision is not None
        self.peak = peak(self.device, self.state.precision).of(self.ranks.size)
        self.announce()
        run = RunContext(self.cfg, self.run_dir, self.state, self.clock, self.console, self.agreement,
                         self.data.updates_per_epoch, self.identity, self.peak)
        logger = build_logger(self.cfg.logger, self.run_dir, as_dict(self.cfg),
                              self.state.step) if self.ranks.is_main else None
        guard = None if logger is None else LoggerGuard(logger, self.console.warn)
        if guard is not None:
            run.events.append(guard.record)
        self.fit(run, logger)
        scores: dict[str, TestScore] = {}
        reason = run.stop_reason
        assert reason is not None
        if status_of(reason) == "finished":
            try:
                with self.clock.during("eval"):
                    scores = self.score()
            except Interrupted as stop:
                reason = stop.reason
        status = status_of(reason)
        self.state.eval_s = self.clock.seconds("eval")
        result = self.result(status, reason, scores)
        if self.ranks.is_main:
            write_atomically(self.run_dir / "result.json", result.json().encode())
            if guard is not None:
                guard.end(result)
            self.console.line(summary(result, self.run_dir))
            if reason == "requeued":
                requeue(self.console)
        self.ranks.all_gather(None)  # whoever started the ranks may end all when one leaves
        return EXIT_OF[status]

    def fit(self, run: RunContext, logger: Logger | None) -> None:
        """Loop over updates until something stops the run; one that was killed at its end has only that to do again."""
        cfg = self.cfg
        validator = Validator(
            self.corpus.pairs("valid"), self.tokenizers, cfg.decode, samples=cfg.trainer.samples,
            sentences=cfg.trainer.valid_sentences if cfg.trainer.target_bleu is None else sys.maxsize,
            max_tokens=cfg.data.max_tokens, bleu_tokenizer=self.bleu_tokenizer, ranks=self.ranks,
            on_round=self.agreement.check)
        validation, stopping = Validation(run, validator), Stopping(run)
        run.stop_reason = stopping.over()
        if run.stop_reason is not None:
            validation.validate(self.task.to(self.device))
        else:
            self.loop(run, logger, validation, stopping)
        last = cfg.checkpoint.average
        if last is not None and status_of(run.stop_reason) == "finished":
            self.averaged = validation.validate_mean(self.task.to(self.device), last)

    def loop(self, run: RunContext, logger: Logger | None, validation: Validation, stopping: Stopping) -> None:
        """Have Lightning go through the updates."""
        ours = os.getppid() if self.ranks.size > 1 else os.getpid()  # the other ranks are not strangers
        watch = Watch(self.device, ticks=partial(read_ticks, root=ours))
        callbacks = [Restore(self.moments), Bookkeeping(run), validation, stopping, Telemetry(run, self.data, watch),
                     Checkpoints(run), Progress(run)]
        with watch:
            strategy = build_strategy(self.cfg.trainer, self.ranks)
            trainer = build_trainer(self.device, logger, [InOrder(callbacks)], strategy=strategy, ranks=self.ranks)
            trainer.fit(self.task, datamodule=self.data)
        self.clock.switch("startup")

    def score(self) -> dict[str, TestScore]:
        """Score the weights that serve, as whoever loads the run directory gets them."""
        self.ranks.all_gather(None)  # the first rank has written the weights
        model, tokenizers, _ = load_model(self.run_dir, self.device)
        translator = Translator(model, tokenizers, self.cfg.decode, self.device, self.ranks, self.agreement.check)
        began = perf_counter()

        def progress(name: str, done: int, total: int) -> None:
            left_s = (perf_counter() - began) * (total - done) / done
            self.console.live(f"scoring {name}: {done}/{total} sentences  eta {duration(left_s)}")

        return evaluate(translator, self.corpus, self.run_dir, self.bleu_tokenizer, progress, self.console.warn)

    def announce(self) -> None:
        """Print what is about to be trained, and on what."""
        cfg, data, state = self.cfg, self.data, self.state
        model = asdict(cfg.model)
        sizes = "  ".join(f"{name}={model[name]}" for name in cfg.model.sizes[cfg.model.size])
        goal, stops = cfg.trainer.target_bleu, cfg.trainer.stop_at_target
        limits = {"steps": cfg.trainer.max_steps, "minutes": cfg.trainer.max_minutes, "PFLOP": cfg.trainer.max_pflop,
                  "BLEU": goal if stops else None, "validations without gain": cfg.trainer.patience}
        vocabulary = (f"{self.tokenizers.src.vocab_size:,} joint" if self.tokenizers.joint else
                      f"{self.tokenizers.src.vocab_size:,} + {self.tokenizers.tgt.vocab_size:,}")
        vocabulary += f" of {cfg.init_from}, whose weights it begins with" if cfg.init_from is not None else ""
        left_out, seen = data.cleaning.left_out(), data.cleaning.seen()
        rows = {
            "model": f"{cfg.choices.model} {cfg.model.size}  {sizes}  {self.params():,} parameters",
            "text": f"{self.corpus.origin} {cfg.data.src}-{cfg.data.tgt}, {data.cleaning.kept:,} training pairs"
                    + (f" (left out: {left_out})" if left_out else ""),
            **({"streamed": f"{len(self.corpus.shards)} shards; windows in memory: {data.text.describe()}"}
               if self.corpus.shards else {}),
            **({"trained on": seen} if seen else {}),
            "vocabulary": vocabulary,
            "updates": f"{cfg.trainer.tokens_per_update:,} target tokens each, {data.updates_per_epoch:,} an epoch; "
                       f"micro-batches of at most {cfg.data.max_tokens:,} positions, "
                       f"{100 * data.padding_efficiency:.0f} % of them real",
            "until": " or ".join(f"{limit:g} {unit}" for unit, limit in limits.items() if limit is not None)
                     + (f"; the time to BLEU {goal:g} is noted" if goal is not None and not stops else ""),
            "device": f"{hardware(self.device).get('gpu', self.device.type)}  {state.precision}  "
                      f"{torch.get_num_threads()} threads"
                      + (f"  {os.environ['MINITX_ALLOCATOR']}" if "MINITX_ALLOCATOR" in os.environ else ""),
            **({"ranks": f"{self.ranks.size} on {self.ranks.hosts} host{'s' * (self.ranks.hosts > 1)}, "
                         f"{cfg.trainer.strategy}; idle for {data.idle_share:.0%} of their turns"}
               if self.ranks.size > 1 else {}),
            "peak": str(self.peak),
            "run": str(self.run_dir),
        }
        for name, text in rows.items():
            self.console.line(f"{name:>10}  {text}")
        self.warn_of_ranks()

    def warn_of_ranks(self) -> None:
        """Warn of settings that do nothing with one rank, and of threads that have no core."""
        for name in ("compress", "max_restarts"):
            if self.ranks.size == 1 and (value := getattr(self.cfg.trainer, name)):
                self.console.warn(f"trainer.{name}={value} does nothing, for there is one rank")
        ranks, threads = self.ranks.local_size, torch.get_num_threads()
        if self.device.type == "cpu" and ranks * threads > cores():
            self.console.warn(f"ranks times threads, {ranks} x {threads}, are more than the {cores()} cores here: they "
                              "slow each other down (trainer.devices, trainer.threads)")

    def params(self) -> int:
        """Count the trained numbers, tied ones once."""
        return sum(p.numel() for p in self.task.model.parameters())

    def result(self, status: str, reason: str, scores: dict[str, TestScore]) -> Result:
        """Gather all that result.json says."""
        cfg, state = self.cfg, self.state
        return Result(
            status=status, stop_reason=reason, experiment=cfg.choices.experiment, model=cfg.choices.model,
            data=cfg.choices.data, src=cfg.data.src, tgt=cfg.data.tgt, seed=cfg.seed, world_size=self.ranks.size,
            device=self.device.type, precision=self.task.precision, threads=torch.get_num_threads(),
            params=self.params(), steps=state.step, tokens=state.tokens, nonfinite_steps=state.nonfinite,
            epochs=round(state.epoch + state.update / self.data.updates_per_epoch, 4),
            horizon_steps=state.horizon_steps, best_valid_bleu=state.best_valid_bleu, best_step=state.best_step,
            averaged_steps=self.averaged, valid_loss=state.valid_loss, test=scores,
            train_s=state.train_s, eval_s=state.eval_s, decode={name: getattr(cfg.decode, name) for name in SEARCH},
            checkpoint_s=state.checkpoint_s, wall_s=self.clock.total(), target_bleu=cfg.trainer.target_bleu,
            tgt_tokens_per_s=state.tokens / state.train_s if state.train_s else None,
            padding_efficiency_pct=100 * self.data.padding_efficiency,
            peak_memory_gib=max(self.ranks.all_gather(peak_memory_gib(self.device))),
            git_sha=state.git_sha, git_dirty=state.git_dirty, config_sha256=config_sha256(self.cfg),
            data_sha256=self.corpus.fingerprint, tokenizer_sha256=self.tokenizers.fingerprint,
            init_from_sha256=state.init_from_sha256, cleaning=self.data.cleaning.counts(), versions=versions(),
            hardware=hardware(self.device),
            environment=environment(),
            **time_to_target.bill(state, self.clock.total(), cfg.trainer, self.ranks.size),
            **measured(state, self.clock, self.peak))


def status_of(reason: str | None) -> str:
    """Say how a run ends that stops for this reason."""
    return STATUS_OF.get(reason or "", "finished")


def tell_or_stop(console: Console, signals: Signals, text: str) -> None:
    """Say how far the reading of a large text is. Errors: `UserError` if a signal has come."""
    console.live(text)
    if signals.noted is not None:
        raise UserError("stopped while the text was encoded; the shards that are done stay in the cache: the same "
                        "command, with this run_dir and resume=auto, goes on", EXIT_OF[STATUS_OF[signals.noted]])
