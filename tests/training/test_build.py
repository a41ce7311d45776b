"""Every option under conf/ builds what it names; `auto` decides by what the machine has."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from played_cuda import CUDA, played_gpu
from toys import write_digits

from minitx.config.compose import CONF, compose
from minitx.config.schema import TrainerConfig, TransformerConfig
from minitx.data.corpus import load_corpus
from minitx.data.tokenizer import TokenizerPair
from minitx.models.registry import build_model
from minitx.training import build
from minitx.training.loggers import build_logger
from minitx.training.state import RunState
from minitx.utils.errors import UserError

OPTIONS = [(path.parent.name, path.stem) for path in sorted(CONF.rglob("*.yaml"))
           if path.parent not in (CONF, CONF / "suite")]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_each_option_builds(group: str, option: str, tmp_path: Path) -> None:
    cfg = compose([f"{group}={option}", *([f"data.dir={tmp_path}"] if option == "files" else [])])
    with torch.device("meta"):  # shapes without memory
        model = build_model(cfg.model, src_vocab_size=500, tgt_vocab_size=500)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert build.choose_precision(cfg.trainer, torch.device("cpu")) in ("32-true", "bf16-mixed")
    (tmp_path / "run").mkdir()
    build_logger(cfg.logger, tmp_path / "run", {})


@pytest.mark.parametrize("size", TransformerConfig.sizes)
@pytest.mark.parametrize("option", ["transformer", "transformer_nope"])
def test_each_size_has_its_published_parameters(option: str, size: str) -> None:
    """Attention 4 d^2, feed-forward 2 d d_ff + d_ff + d, norms 2 d, embeddings V d once."""
    cfg = compose([f"model={option}", f"model.size={size}"])
    with torch.device("meta"):
        model = build_model(cfg.model, src_vocab_size=8000, tgt_vocab_size=8000)
    n, d, d_ff = (TransformerConfig.sizes[size][name] for name in ("num_layers", "d_model", "d_ff"))
    feed_forward = 2 * d * d_ff + d_ff + d
    expected = n * (4 * d * d + feed_forward + 4 * d) + n * (8 * d * d + feed_forward + 6 * d) + 4 * d + 8000 * d
    assert sum(p.numel() for p in model.parameters()) == expected


def trainer(**changes: object) -> TrainerConfig:
    return replace(compose([]).trainer, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("units", "asked", "chosen"), [
    ("AMX", "auto", "bf16-mixed"), ("AVX-512", "auto", "bf16-mixed"), (None, "auto", "32-true"),
    ("AMX", "32-true", "32-true"), (None, "bf16-true", "bf16-true")])
def test_an_explicit_precision_wins(monkeypatch: pytest.MonkeyPatch, units: str | None, asked: str,
                                    chosen: str) -> None:
    monkeypatch.setattr(build, "bf16_units", lambda: units)
    assert build.choose_precision(trainer(precision=asked), torch.device("cpu")) == chosen


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="trainer.accelerator=gpu: torch sees no GPU"):
        build.choose_device(trainer(accelerator="gpu"))
    assert build.choose_device(trainer(accelerator="auto")).type == "cpu"


def test_a_gpu_is_taken_where_it_is_there_and_each_rank_has_its_own() -> None:
    with played_gpu(device_count=lambda: 2):
        for accelerator in ("auto", "gpu"):
            assert build.choose_device(trainer(accelerator=accelerator), 1) == torch.device("cuda", 1)
        assert build.choose_device(trainer(accelerator="cpu")).type == "cpu"
        with pytest.raises(UserError, match="^trainer.devices=3: torch sees 2 GPUs here; take fewer, or trainer.acc"):
            build.choose_device(trainer(), 2)


@pytest.mark.parametrize("units", [True, False])
def test_a_gpu_computes_in_bf16_where_it_has_units_for_it(units: bool) -> None:
    """Older ones only emulate it, which is slower than fp32."""
    with played_gpu(is_bf16_supported=lambda including_emulation: units or including_emulation):
        assert build.choose_precision(trainer(), CUDA) == ("bf16-mixed" if units else "32-true")


def test_an_apple_gpu_is_taken_only_where_it_is_asked_for_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="^trainer.accelerator=mps: torch sees no Apple GPU here; use cpu or auto$"):
        build.choose_device(trainer(accelerator="mps"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(build, "bf16_units", lambda: "AMX")
    device = build.choose_device(trainer(accelerator="mps"))
    assert device == torch.device("mps", 0)
    assert build.choose_precision(trainer(), device) == "32-true"
    assert build.choose_precision(trainer(precision="bf16-mixed"), device) == "bf16-mixed"
    assert build.choose_device(trainer(accelerator="auto")).type == "cpu", "it was never tried"


def test_lightning_is_told_of_the_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []
    monkeypatch.setattr(build.pl, "Trainer", lambda **settings: seen.append(settings) or MagicMock())
    for kind in ("mps", "cuda", "cpu"):
        build.build_trainer(torch.device(kind), [])
    assert [settings["accelerator"] for settings in seen] == ["mps", "gpu", "cpu"]


def test_the_tokenizer_is_learned_once_and_then_the_runs_own(tmp_path: Path) -> None:
    text, run_dir = write_digits(tmp_path / "text", train=50), tmp_path / "run"
    run_dir.mkdir()
    cfg = compose(["data=files", f"data.dir={text}"])
    learned = build.build_tokenizers(cfg, load_corpus(cfg.data), run_dir)
    write_digits(tmp_path / "text", train=10)
    again = build.build_tokenizers(cfg, load_corpus(cfg.data), run_dir)
    assert again.fingerprint == learned.fingerprint == TokenizerPair.load(run_dir).fingerprint


def test_weights_are_those_of_the_seed(tmp_path: Path) -> None:
    cfg = compose([])
    tokenizers = TokenizerPair.train([("a b", "b a")] * 20, None, joint=True)
    states = [build.build_task(replace(cfg, seed=seed), tokenizers, RunState(precision="32-true")).state_dict()
              for seed in (1, 1, 2)]
    name = "model.encoder.0.attention.qkv.weight"
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])
