"""What a run may start from: checked before torch is imported, and before anything is created."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from minitx.config.compose import compose
from minitx.config.schema import Config, TokenizerConfig, as_dict, resolve_size
from minitx.runs.warm_start import adopt
from minitx.utils.errors import UserError


@pytest.fixture
def donor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is looked at of a run that has ended: its config, and that the files are there."""
    monkeypatch.chdir(tmp_path)
    return make_run(Path("RUN"), "tokenizer.vocab_size=300", "model.dropout=0.3")


def make_run(run_dir: Path, *overrides: str) -> Path:
    run_dir.mkdir()
    cfg = compose(list(overrides))
    (run_dir / "config.yaml").write_text(yaml.safe_dump(as_dict(replace(cfg, model=resolve_size(cfg.model)))))
    (run_dir / "model.safetensors").touch()
    (run_dir / "tokenizer.json").touch()
    return run_dir


def asked(*overrides: str) -> Config:
    cfg = compose(["init_from=RUN", *overrides])
    return replace(cfg, model=resolve_size(cfg.model))


def test_a_run_takes_the_vocabulary_of_the_one_it_begins_with(donor: Path) -> None:
    cfg = asked("model.dropout=0.1", "data.src=de", "data.tgt=en")
    assert cfg.tokenizer.vocab_size == cfg.data.recommends.vocab_size != 300
    assert adopt(cfg) == replace(cfg, tokenizer=TokenizerConfig(vocab_size=300, joint=True))
    assert adopt(asked("tokenizer.vocab_size=300")).tokenizer.vocab_size == 300
    assert adopt(compose([])) == compose([])


@pytest.mark.parametrize(("words", "line"), [
    (["tokenizer.vocab_size=5000"], "init_from=RUN: its vocabulary is of tokenizer.vocab_size=300, asked was 5000; "
                                    "write tokenizer.vocab_size=300"),
    (["init_from=UNTIED", "tokenizer.joint=false", "model.tie_embeddings=false"],
     "init_from=UNTIED: its vocabulary is of tokenizer.joint=true, asked was false; write tokenizer.joint=true")])
def test_another_vocabulary_than_the_one_it_brings_is_refused(donor: Path, words: list[str], line: str) -> None:
    make_run(Path("UNTIED"), "model.tie_embeddings=false")
    with pytest.raises(UserError) as caught:
        adopt(asked(*words))
    assert str(caught.value) == line


def test_the_widths_count_and_not_their_name(donor: Path) -> None:
    adopt(asked("model.size=small", "model.d_model=128", "model.d_ff=512", "model.num_layers=2"))


def test_weights_of_either_way_to_compute_an_lstm_will_do(donor: Path) -> None:
    make_run(Path("FUSED"), "model=gnmt")
    make_run(Path("LOOP"), "model=gnmt", "model.cell_loop=true")
    for words in (["init_from=FUSED", "model.cell_loop=true"], ["init_from=LOOP"]):
        adopt(asked("model=gnmt", *words))


def test_each_key_that_does_not_fit_is_named_with_what_to_write(donor: Path) -> None:
    with pytest.raises(UserError) as caught:
        adopt(asked("model.d_ff=256", "model.pos_encoding=rope"))
    assert str(caught.value).splitlines() == [
        "init_from=RUN: its weights are those of another network; write model.d_ff=512 model.pos_encoding=sinusoidal",
        "  model.d_ff: is 512 there, asked 256", "  model.pos_encoding: is sinusoidal there, asked rope"]
    with pytest.raises(UserError) as caught:
        adopt(asked("model=lstm"))
    assert str(caught.value) == ("init_from=RUN: its weights are of model.family=transformer, asked was lstm; "
                                 "write model=transformer")


@pytest.mark.parametrize(("spoil", "line"), [
    (lambda run: (run / "config.yaml").unlink(), "RUN: not a run directory (it has no config.yaml)"),
    (lambda run: (run / "config.yaml").write_text("a: 1"), "its config.yaml is not that of a run"),
    (lambda run: (run / "config.yaml").write_text(""), "RUN/config.yaml: damaged (it holds no settings)"),
    (lambda run: (run / "config.yaml").write_text("a: ["), "RUN/config.yaml: damaged (while parsing"),
    (lambda run: (run / "model.safetensors").unlink(), "has no model.safetensors to begin with"),
    (lambda run: (run / "tokenizer.json").unlink(), "has no tokenizer.json to begin with")])
def test_what_is_no_run_with_weights_is_refused(donor: Path, spoil: Callable[[Path], None], line: str) -> None:
    spoil(donor)
    with pytest.raises(UserError) as caught:
        adopt(asked())
    assert line in str(caught.value)
    assert str(caught.value).startswith("init_from=RUN: ")


def test_a_run_with_a_checkpoint_asks_for_nothing_any_more(donor: Path) -> None:
    own = make_run(Path("own"), "tokenizer.vocab_size=300")
    cfg = asked("run_dir=own", "resume=auto")
    (donor / "config.yaml").unlink()
    with pytest.raises(UserError, match="not a run directory"):
        adopt(cfg)
    (own / "checkpoints").mkdir()
    (own / "checkpoints" / f"step-00000010-{'0' * 64}.safetensors").touch()
    assert adopt(cfg).tokenizer.vocab_size == 300
