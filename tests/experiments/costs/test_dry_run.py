"""A few real updates: the widest first, measured without warm-up, weighed by what a checkpoint would hold."""

from io import StringIO
from pathlib import Path

import pytest
import torch
from toys import write_digits

from minitx.config.compose import compose
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.experiments.costs import dry_run
from minitx.experiments.costs.dry_run import DryRun, widest_update
from minitx.training.build import build_task, build_tokenizers
from minitx.training.launch import resolve
from minitx.training.state import RunState
from minitx.training.task import TranslationTask
from minitx.utils.console import Console

CPU = torch.device("cpu")


def prepared(folder: Path, *overrides: str) -> tuple[TranslationTask, TranslationData]:
    cfg = resolve(compose(["data=files", f"data.dir={write_digits(folder / 'text')}", "model.size=toy",
                           "trainer.tokens_per_update=256", "data.max_tokens=128", "data.max_length=64",
                           "trainer.precision=32-true",
                           *overrides]))
    corpus = load_corpus(cfg.data)
    tokenizers = build_tokenizers(cfg, corpus, folder)
    task = build_task(cfg, tokenizers, RunState(precision="32-true"))
    return task, TranslationData(cfg, corpus, tokenizers)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINITX_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("overrides", "copies"), [((), 3), (("optim.ema_decay=0.9",), 4)])
def test_bytes_are_weights_moments_and_their_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     overrides: tuple[str, ...], copies: int) -> None:
    monkeypatch.setattr(dry_run, "MAX_UPDATES", 3)
    monkeypatch.setattr(dry_run, "WARM_UP", 1)
    task, data = prepared(tmp_path, *overrides)
    before = set(tmp_path.rglob("*"))
    found = dry_run.dry_run(task, data, CPU, Console(StringIO()))
    assert set(tmp_path.rglob("*")) == before
    parameters = list(task.model.parameters())
    weights, counters = 4 * sum(p.numel() for p in parameters), 4 * len(parameters)
    assert found.model_bytes == weights
    assert found.checkpoint_bytes == copies * weights + counters
    assert len(found.update_s) == 3
    assert found.tgt_tokens == pytest.approx(3 * 256, rel=0.3)
    assert task.state.step == 4


def test_it_ends_after_enough_seconds_though_not_before_enough_updates(tmp_path: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "MEASURE_S", 0.0)
    assert len(dry_run.dry_run(*prepared(tmp_path), CPU, Console(StringIO())).update_s) == dry_run.MIN_UPDATES


def test_the_widest_update_is_found(tmp_path: Path) -> None:
    _, data = prepared(tmp_path, "data.pad_to_multiple=1")
    positions = []
    split, plan, _ = data.window(0)
    for update in plan:
        sizes = [len(mb.rows) * int(split.src_len[mb.rows].max() + split.tgt_len[mb.rows].max())
                 for mb in update.micro_batches]
        assert len(sizes) > 1
        positions.append(max(sizes))
    assert positions[widest_update(data)] == max(positions)


def test_quartiles() -> None:
    assert DryRun([1.0, 2.0, 3.0, 4.0, 100.0], 0, 0.0, 0, 0).quartiles_s == (2.0, 3.0, 4.0)


def test_ctrl_c_is_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    monkeypatch.setattr(TranslationTask, "training_step", lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            dry_run.dry_run(*prepared(tmp_path), CPU, Console(StringIO()))
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores further ones
