"""What a run says of itself: what is about to be trained, what came of it, and its result.json."""

import shlex
from dataclasses import asdict
from pathlib import Path

import torch

from minitx.config.fields import text_word
from minitx.config.schema import config_sha256
from minitx.data.tokenizer import DEFAULT_VOCAB, entries_for
from minitx.evaluation.metrics import LEARNED_BLEU
from minitx.profiling.peak import Peak
from minitx.profiling.process import cores
from minitx.profiling.provenance import environment, hardware, peak_memory_gib, versions
from minitx.runs.result import LENGTH_BOUNDS, SEARCH, Result, TestScore
from minitx.training import time_to_target
from minitx.training.enough import search_settings
from minitx.training.prepare import Prepared
from minitx.training.status import status_of
from minitx.training.telemetry import measured
from minitx.utils.console import counted, duration


def announce(prepared: Prepared) -> None:
    """Print what is about to be trained, and on what; warn of settings that do nothing here."""
    rows = {"model": _model(prepared), **_text(prepared), "until": _limits(prepared), **_machine(prepared),
            "run": str(prepared.run.run_dir)}
    for name, text in rows.items():
        prepared.run.console.line(f"{name:>10}  {text}")
    _warn_of_ranks(prepared)


def _model(prepared: Prepared) -> str:
    cfg = prepared.run.cfg
    widths = asdict(cfg.model)
    sizes = "  ".join(f"{name}={widths[name]}" for name in cfg.model.sizes[cfg.model.size])
    return f"{cfg.choices.model} {cfg.model.size}  {sizes}  {parameters(prepared):,} parameters"


def _text(prepared: Prepared) -> dict[str, str]:
    cfg, corpus, data, pair = prepared.run.cfg, prepared.corpus, prepared.data, prepared.tokenizers
    left_out, seen = data.cleaning.describe_dropped(), data.cleaning.describe_overlap()
    vocabulary = (f"{pair.src.vocab_size:,} joint" if pair.joint else
                  f"{pair.src.vocab_size:,} + {pair.tgt.vocab_size:,}")
    if cfg.init_from is not None:
        vocabulary += f" of {cfg.init_from}, whose weights it begins with"
    elif cfg.tokenizer.vocab_size is None and entries_for(data.cleaning.kept) < DEFAULT_VOCAB:
        vocabulary += " (small because there are few pairs; set tokenizer.vocab_size to change it)"
    return {
        "text": f"{corpus.origin} {cfg.data.src}-{cfg.data.tgt}, {data.cleaning.kept:,} training pairs"
                + (f" (left out: {left_out})" if left_out else ""),
        **({"streamed": f"{len(corpus.shards)} shards; windows in memory: {data.text.describe()}"}
           if corpus.shards else {}),
        **({"trained on": seen} if seen else {}),
        "vocabulary": vocabulary,
        "updates": f"{cfg.trainer.tokens_per_update:,} target tokens each, {data.updates_per_epoch:,} an epoch",
    }


def _limits(prepared: Prepared) -> str:
    trainer = prepared.run.cfg.trainer
    goal, stops = trainer.target_bleu, trainer.stop_at_target
    limits = {"steps": trainer.max_steps, "minutes": trainer.max_minutes, "PFLOP": trainer.max_pflop,
              "BLEU": goal if stops else None, "validations without gain": trainer.patience}
    return (" or ".join(f"{limit:g} {unit}" for unit, limit in limits.items() if limit is not None)
            + (f"; the time to BLEU {goal:g} is noted" if goal is not None and not stops else ""))


def _machine(prepared: Prepared) -> dict[str, str]:
    run, ranks = prepared.run, prepared.run.ranks
    return {
        "device": f"{hardware(prepared.device).get('gpu', prepared.device.type)}  {run.state.precision}  "
                  f"{counted(torch.get_num_threads(), 'thread')}",
        **({"ranks": f"{ranks.size} on {ranks.hosts} host{'s' * (ranks.hosts > 1)}, {run.cfg.trainer.strategy}; "
                     f"idle for {prepared.data.idle_share:.0%} of their turns"} if ranks.size > 1 else {}),
    }


def _warn_of_ranks(prepared: Prepared) -> None:
    """Warn of settings that do nothing with one rank, and of threads that have no core."""
    run, ranks, threads = prepared.run, prepared.run.ranks.local_size, torch.get_num_threads()
    for name in ("compress", "max_restarts"):
        if run.ranks.size == 1 and (value := getattr(run.cfg.trainer, name)):
            run.console.warn(f"trainer.{name}={value} does nothing, for there is one rank")
    if prepared.device.type == "cpu" and ranks * threads > cores():
        run.console.warn(f"ranks times threads, {ranks} x {threads}, are more than the {cores()} cores here: they "
                         "slow each other down (trainer.devices, trainer.threads)")


def parameters(prepared: Prepared) -> int:
    """Count the trained numbers, tied ones once."""
    return sum(p.numel() for p in prepared.task.model.parameters())


def build_result(prepared: Prepared, averaged: list[int] | None, scores: dict[str, TestScore]) -> Result:
    """Gather all that result.json says. averaged: the steps whose mean serves, if a mean does. All ranks call it."""
    run, data = prepared.run, prepared.data
    cfg, state, ranks = run.cfg, run.state, run.ranks
    decode = search_settings(cfg.decode, state)
    bounds = [name for name in LENGTH_BOUNDS if getattr(decode, name) != getattr(cfg.decode, name)]
    assert run.stop_reason is not None
    sections = run.clock.sections()
    wall_s = sum(sections.values())
    return Result(
        status=status_of(run.stop_reason), stop_reason=run.stop_reason, experiment=cfg.choices.experiment,
        model=cfg.choices.model, data=cfg.choices.data, src=cfg.data.src, tgt=cfg.data.tgt, seed=cfg.seed,
        world_size=ranks.size, device=prepared.device.type, precision=prepared.task.precision,
        threads=torch.get_num_threads(), params=parameters(prepared), steps=state.step, tokens=state.tokens,
        nonfinite_steps=state.nonfinite, epochs=round(state.epoch + state.update / data.updates_per_epoch, 4),
        horizon_steps=state.horizon_steps, best_valid_bleu=state.best_valid_bleu, best_step=state.best_step,
        averaged_steps=averaged, valid_loss=state.best_valid_loss, test=scores, train_s=state.train_s,
        eval_s=state.eval_s, decode={name: getattr(decode, name) for name in (*SEARCH, *bounds)},
        checkpoint_s=state.checkpoint_s, wall_s=wall_s, target_bleu=cfg.trainer.target_bleu,
        tgt_tokens_per_s=state.tokens / state.train_s if state.train_s else None,
        padding_efficiency_pct=100 * data.padding_efficiency,
        peak_memory_gib=max(ranks.all_gather(peak_memory_gib(prepared.device))),
        git_sha=state.git_sha, git_dirty=state.git_dirty, config_sha256=config_sha256(cfg),
        data_sha256=prepared.corpus.fingerprint, tokenizer_sha256=prepared.tokenizers.fingerprint,
        init_from_sha256=state.init_from_sha256, cleaning=data.cleaning.counts(), versions=versions(),
        hardware=hardware(prepared.device), environment=environment(),
        **time_to_target.bill(state, wall_s, cfg.trainer, ranks.size),
        **measured(state, sections, run.peak))


def summary(result: Result, run_dir: Path) -> str:
    """Return a few lines that say how the run ended, how good it is, and how to use it."""
    why = f" ({result.stop_reason})" if result.stop_reason != result.status else ""
    lines = [f"{result.status}{why}: {result.steps:,} steps, {result.epochs:.1f} epochs, "
             f"{duration(result.train_s)} of training at {result.tgt_tokens_per_s or 0:,.0f} target tokens/s, "
             f"{duration(result.wall_s)} in all"]
    lines.append(f"{'MFU':>16}  " + (f"n/a ({result.not_measured.get('mfu_pct')})" if result.mfu_pct is None else
                 f"{result.mfu_pct:.1f} % of {Peak(result.peak_tflops, str(result.peak_source))}"))
    if result.disturbed:
        lines.append(f"{'other processes':>16}  {taken_by_others(result)}")
    if result.target_bleu is not None:
        lines.append(f"{'to target':>16}  {time_to_target.describe(result)}")
    for name, entry in result.test.items():
        extra = (f", roles {entry['role_accuracy_pct']:.1f} % (swapped {entry['roles_swapped_pct']:.1f} %)"
                 if "role_accuracy_pct" in entry else "")
        extra += f"  (word-for-word dictionary: {entry['dictionary_bleu']:.1f})" if "dictionary_bleu" in entry else ""
        lines.append(f"{name:>16}  BLEU {entry['bleu']:.1f}  chrF {entry['chrf']:.1f}{extra}")
        if entry["bleu"] >= LEARNED_BLEU:
            lines += [f"{phenomenon:>34}  BLEU {bleu:.1f}"
                      for phenomenon, bleu in entry.get("phenomena_bleu", {}).items()]
    lines.append(f"{'result':>16}  {run_dir / 'result.json'}")
    lines.append(f"{'try it':>16}  minitx translate {shlex.quote(str(run_dir))}")
    if result.status in ("interrupted", "terminated"):
        lines.append(f"{'go on':>16}  the same command with "
                     f"{shlex.quote(text_word('run_dir', str(run_dir)))} resume=auto")
    return "\n".join(lines)


def taken_by_others(result: Result) -> str:
    """Say how much of the cores other processes took from a disturbed run; with too few left for it, what helps."""
    assert result.other_cpu_pct is not None
    cores: int = result.hardware["cores"]
    taken = result.other_cpu_pct / 100 * cores
    left = max(1, cores - round(taken))
    crowded = result.device == "cpu" and result.world_size == 1 and left < result.threads
    return (f"took {taken:.1f} of {cores} cores ({result.other_cpu_pct:.0f} %): alone this would be faster"
            + (f", and beside them trainer.threads={left} might be" if crowded else ""))
