"""Everything a training needs before its first update: the checkpoint it resumes from, text, vocabulary, model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from minitx.config.saved import freeze, read_settings
from minitx.config.schema import Config, DataConfig, as_dict
from minitx.data.corpus import Corpus, load_corpus
from minitx.data.datamodule import TranslationData
from minitx.data.source_text import NAME as SOURCE_TEXT
from minitx.data.source_text import SourceText
from minitx.data.tokenizer import TokenizerPair
from minitx.distributed.ranks import Ranks
from minitx.evaluation.metrics import bleu_tokenizer
from minitx.profiling.peak import peak
from minitx.profiling.provenance import git_state
from minitx.profiling.timers import Clock
from minitx.runs.checkpoint import Checkpoint, load_checkpoint, remove_leftovers, restore_weights
from minitx.runs.compatibility import identity, refuse_others
from minitx.runs.directory import truncate_metrics
from minitx.training.build import build_task, build_tokenizers, choose_device, choose_precision
from minitx.training.callbacks import RunContext
from minitx.training.coordination import Agreement
from minitx.training.loggers import LoggerGuard
from minitx.training.process import age_s
from minitx.training.resume import settle_horizon, settle_target
from minitx.training.signals import Signals
from minitx.training.state import RunState
from minitx.training.status import EXIT_OF, STATUS_OF
from minitx.training.task import TranslationTask
from minitx.utils.console import Console
from minitx.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Prepared:
    """Hold what `fit`, `score` and `report` work on.

    bleu_tokenizer: sacreBLEU's name of it. moments: the optimizer's, by `parameter/key`; none at first.
    """

    run: RunContext
    device: torch.device
    corpus: Corpus
    tokenizers: TokenizerPair
    bleu_tokenizer: str
    data: TranslationData
    task: TranslationTask
    moments: Mapping[str, Tensor]


def prepare(cfg: Config, run_dir: Path, console: Console, signals: Signals, ranks: Ranks) -> Prepared:
    """Read the checkpoint and the text, and build the model. All ranks do so together, the first one first.

    Errors: `UserError` for text, settings or a checkpoint that cannot be used.
    """
    saved = read_checkpoint(run_dir, console, ranks)
    state = RunState() if saved is None else RunState.parse(saved.meta["state"])
    note_code(state)  # now: the tree may change while it trains
    clock = Clock("startup", startup=state.startup_s + age_s(), train=state.train_s, eval=state.eval_s,
                  checkpoint=state.checkpoint_s)
    device = choose_device(cfg.trainer, ranks.local_rank)
    state.precision = state.precision or choose_precision(cfg.trainer, device)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    settle_horizon(cfg, state, saved.meta["limits"] if saved else None)
    console.line(f"reading {cfg.choices.data}, {cfg.data.src}-{cfg.data.tgt} ...")
    with ranks.main_process_first("the text"):
        corpus = load_corpus(data_config(cfg.data, saved))
        tokenizer = bleu_tokenizer(cfg.data.tgt, cfg.data.bleu_tokenizer)
        for name in ("valid", *corpus.test_sets):
            corpus.pairs(name)  # an error in a file is reported now, not after the training
        tokenizers = build_tokenizers(cfg, corpus, run_dir)
        facts = identity(corpus.fingerprint, tokenizers.fingerprint)
        if cfg.init_from is not None and not saved:
            warn_of_other_pair(cfg, corpus.pairs("valid"), tokenizers, console)
        if saved:
            refuse_others(facts, saved.meta["identity"], run_dir)
        data = TranslationData(cfg, corpus, tokenizers, rank=ranks.rank, world_size=ranks.size,
                               start=(state.epoch, state.update), min_micro_batches=state.min_micro_batches,
                               progress=partial(show_or_stop, console, signals))
        if saved and cfg.model.dropout and data.splits_more_than(state.min_micro_batches):
            console.warn(f"{ranks.size} ranks take more micro-batches an update than before, and dropout is drawn for "
                         "each: from here on the run differs from one on fewer ranks")
        state.min_micro_batches = data.min_micro_batches
    ranks.agree(**facts, precision=state.precision, step=str(state.step), bleu_tokenizer=tokenizer)
    task = build_task(cfg, tokenizers, state, device=device, ranks=ranks,
                      weights=saved.section("model") if saved else None)
    records = ranks.broadcast(truncate_metrics(run_dir / "metrics.jsonl", state.step) if ranks.is_main else [])
    if saved:
        full = len(corpus.pairs("valid"))
        settle_target(state, cfg.trainer.target_bleu, saved.meta["limits"]["target_bleu"],
                      [entry for entry in records if entry["event"] == "valid" and entry["sentences"] == full])
        restore(task, state, saved, run_dir, console, ranks)
    if ranks.is_main:
        freeze(cfg, run_dir)  # when a run is resumed, some settings may have changed
        note_source_text(cfg, run_dir, data, tokenizers)
    logger = LoggerGuard.open(cfg.logger, run_dir, as_dict(cfg), state.step, console.warn) if ranks.is_main else None
    run = RunContext(cfg, run_dir, state, clock, console, Agreement(ranks, signals), data.updates_per_epoch, facts,
                     corpus.test_sets, peak(device, state.precision).of(ranks.size), logger)
    return Prepared(run, device, corpus, tokenizers, tokenizer, data, task, saved.section("optim") if saved else {})


def read_checkpoint(run_dir: Path, console: Console, ranks: Ranks) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None where there is none yet."""
    with ranks.main_process_first("the checkpoint"):
        if ranks.is_main:
            remove_leftovers(run_dir)
        return load_checkpoint(run_dir / "checkpoints", warn=console.warn)


def data_config(data: DataConfig, saved: Checkpoint | None) -> DataConfig:
    """Return the text that is asked for. A resumed run scores the test sets it began with, whatever lies there now."""
    if saved is None or data.test_sets is not None:
        return data
    return replace(data, test_sets=saved.meta["test_sets"])


def warn_of_other_pair(cfg: Config, pairs: Sequence[tuple[str, str]], tokenizers: TokenizerPair,
                       console: Console) -> None:
    """Warn of a vocabulary that was learned from another language pair, and say how finely it cuts this text's words.

    A joint one serves both directions of a pair.
    """
    theirs = read_settings(Path(str(cfg.init_from)))["data"]
    before, now = (theirs["src"], theirs["tgt"]), (cfg.data.src, cfg.data.tgt)
    if before == now or tokenizers.joint and set(before) == set(now):
        return
    cut = []
    for language, tokenizer, texts in zip(now, (tokenizers.src, tokenizers.tgt), zip(*pairs, strict=True), strict=True):
        words = sum(len(text.split()) for text in texts)
        cut.append(f"{sum(map(len, tokenizer.encode_batch(texts))) / max(1, words):.1f} tokens a word in {language}")
    console.warn(f"init_from={cfg.init_from}: its vocabulary is of {'-'.join(before)}, the text is {'-'.join(now)}: "
                 f"{', '.join(cut)}")


def note_source_text(cfg: Config, run_dir: Path, data: TranslationData, tokenizers: TokenizerPair) -> None:
    """Write down, once, what the run's source text is made of: of a streamed one, the window that comes first.

    A run that begins with another's weights has that one's text, too; where that is not known, nothing is written.
    """
    if (run_dir / SOURCE_TEXT).exists():
        return
    before = None if cfg.init_from is None else SourceText.read(Path(cfg.init_from))
    if cfg.init_from is not None and before is None:
        return
    found = SourceText.measure(data.window(*data.start).split, tokenizers.src)
    (found if before is None else found.joined(before)).save(run_dir)


def note_code(state: RunState) -> None:
    """Note the commit; a run that other code began was trained by no one commit."""
    sha, dirty = git_state()
    other = state.step > 0 and state.git_sha != sha
    state.git_dirty = None if dirty is None else dirty or other or bool(state.git_dirty)
    state.git_sha = sha


def restore(task: TranslationTask, state: RunState, saved: Checkpoint, run_dir: Path, console: Console,
            ranks: Ranks) -> None:
    """Put the averaged weights and the best weights so far back in place; the model has its own already."""
    if task.ema is not None:
        task.ema.restore(saved.section("ema"))
    restored = state.best_sha256 is None or not ranks.is_main or restore_weights(run_dir, state.best_sha256)
    if not ranks.broadcast(restored):
        console.warn(f"the weights of step {state.best_step}, the best so far, are lost or damaged; the best are "
                     "chosen anew")
        state.forget_best()
    console.line(f"resuming at step {state.step} from {saved.path.name[:13]}")


def show_or_stop(console: Console, signals: Signals, progress: str) -> None:
    """Show how far the reading of a large text is. Errors: `UserError` if a signal has come."""
    console.live(progress)
    if signals.noted is not None:
        raise UserError("stopped while the text was encoded; the shards that are done stay in the cache: the same "
                        "command, with this run_dir and resume=auto, goes on", EXIT_OF[STATUS_OF[signals.noted]])
