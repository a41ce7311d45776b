"""Every option under conf/ builds what it names; `auto` decides by what the machine has."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import write_digits

from minitx import build
from minitx.config import TrainerConfig, TransformerConfig
from minitx.data.sources import load_corpus
from minitx.data.tokenizer import TokenizerPair
from minitx.door import CONF, compose
from minitx.errors import UserError
from minitx.models.registry import build_model
from minitx.training.state import RunState

OPTIONS = [(path.parent.name, path.stem) for path in sorted(CONF.rglob("*.yaml")) if path.parent != CONF]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_each_option_builds(group: str, option: str, tmp_path: Path) -> None:
    cfg = compose([f"{group}={option}", *([f"data.dir={tmp_path}"] if option == "files" else [])])
    with torch.device("meta"):  # shapes without memory
        model = build_model(cfg.model, src_vocab_size=500, tgt_vocab_size=500)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert build.choose_precision(cfg.trainer, torch.device("cpu")) in ("32-true", "bf16-mixed")
    (tmp_path / "run").mkdir()
    build.build_logger(cfg.logger, tmp_path / "run", {})


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


@pytest.mark.parametrize(("amx", "asked", "chosen"), [
    (True, "auto", "bf16-mixed"), (False, "auto", "32-true"), (True, "32-true", "32-true"),
    (False, "bf16-true", "bf16-true")])
def test_an_explicit_precision_wins(monkeypatch: pytest.MonkeyPatch, amx: bool, asked: str, chosen: str) -> None:
    monkeypatch.setattr(build, "has_amx", lambda: amx)
    assert build.choose_precision(trainer(precision=asked), torch.device("cpu")) == chosen


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="trainer.accelerator=gpu: torch sees no GPU"):
        build.choose_device(trainer(accelerator="gpu"))
    assert build.choose_device(trainer(accelerator="auto")).type == "cpu"


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


def test_tensorboard_shows_a_step_that_a_resumed_run_repeats_once(tmp_path: Path) -> None:
    cfg = compose(["logger=tensorboard"]).logger
    for begun_at, steps in ((0, range(1, 9)), (5, range(6, 11))):
        logger = build.build_logger(cfg, tmp_path, {}, begun_at)
        assert logger is not None
        for step in steps:
            logger.log_metrics({"loss": begun_at + 1.0}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [*((n, 1.0) for n in range(1, 6)),
                                                               *((n, 6.0) for n in range(6, 11))]


def test_wandb_knows_a_resumed_run_by_its_id(tmp_path: Path) -> None:
    cfg = compose(["logger=wandb"]).logger
    first, again = (build.build_logger(cfg, tmp_path, {}) for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.version == again.version == (tmp_path / "wandb_id").read_text()


def test_wandb_is_told_a_place_that_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    logger = build.build_logger(compose(["logger=wandb"]).logger, Path("run"), {})
    assert logger is not None
    assert logger.save_dir == str(tmp_path / "run")
