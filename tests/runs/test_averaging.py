"""The mean of checkpoints: a run directory that serves."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from minitx import load
from minitx.config.compose import compose
from minitx.config.schema import as_dict, resolve_size
from minitx.data.source_text import SourceText
from minitx.data.tokenizer import TokenizerPair
from minitx.models.registry import build_model
from minitx.runs.averaging import average_checkpoints
from minitx.runs.checkpoint import model_tensors, save_checkpoint
from minitx.utils.errors import Exit, UserError


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run with checkpoints of four models, the newest damaged."""
    run_dir = tmp_path / "RUN"
    run_dir.mkdir()
    cfg = compose(["model.size=toy"])
    cfg = replace(cfg, model=resolve_size(cfg.model), run_dir=str(run_dir))
    (run_dir / "config.yaml").write_text(yaml.safe_dump(as_dict(cfg)))
    tokenizers = TokenizerPair.train([("a b", "b a")] * 20, None, joint=True)
    tokenizers.save(run_dir)
    for step in (10, 20, 30, 40):
        torch.manual_seed(step)
        model = build_model(cfg.model, src_vocab_size=tokenizers.src.vocab_size,
                            tgt_vocab_size=tokenizers.tgt.vocab_size)
        tensors = {f"model/{name}": tensor for name, tensor in model_tensors(model).items()}
        tensors["optim/a/exp_avg"] = torch.ones(1)
        newest = save_checkpoint(run_dir / "checkpoints", step, tensors, {"state": {"step": step}}, keep=4)
    newest.write_bytes(newest.read_bytes()[:-1])
    return run_dir


def saved(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    (path,) = (run_dir / "checkpoints").glob(f"step-{step:08d}-*")
    return {n.removeprefix("model/"): t for n, t in load_file(path).items() if n.startswith("model/")}


def test_the_mean_of_the_newest_whole_ones_serves(begun: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    assert average_checkpoints(begun, 2, tmp_path / "OUT", lambda *done: heard.append(done)) == [30, 20]
    found, parts = load_file(tmp_path / "OUT/model.safetensors"), [saved(begun, step) for step in (20, 30)]
    assert found.keys() == parts[0].keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (parts[0][name] + parts[1][name]) / 2, rtol=0, atol=1e-7)
    assert heard == [(1, 2), (2, 2)]
    assert len(load(tmp_path / "OUT").translate(["a b"])) == 1
    assert SourceText.read(tmp_path / "OUT") is None, "the run has none"
    assert len(list((begun / "checkpoints").iterdir())) == 4, "a run may still be training there"


def test_the_mean_of_one_is_that_one(begun: Path, tmp_path: Path) -> None:
    SourceText(frozenset({5}), 2.0).save(begun)
    average_checkpoints(begun, 1, tmp_path / "OUT")
    assert SourceText.read(tmp_path / "OUT") == SourceText(frozenset({5}), 2.0)
    found = load_file(tmp_path / "OUT/model.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in saved(begun, 30).items())


def test_slips_get_one_line(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as few:
        average_checkpoints(begun, 4, tmp_path / "OUT")
    assert str(few.value) == (f"{begun}: has 3 of the 4 whole checkpoints that were to be averaged; ask for fewer, or "
                              "train with checkpoint.keep=4 and a smaller checkpoint.every_n_steps")
    assert not (tmp_path / "OUT").exists()
    with pytest.raises(UserError, match="RUN: is not empty; name a new folder") as full:
        average_checkpoints(begun, 2, begun)
    assert full.value.code == Exit.STORAGE
    with pytest.raises(UserError, match="config.yaml: is a file; name a new folder"):
        average_checkpoints(begun, 2, begun / "config.yaml")
    with pytest.raises(UserError, match="/proc/OUT: cannot be written: No such file"):
        average_checkpoints(begun, 2, Path("/proc/OUT"))
    with pytest.raises(UserError, match="not a run directory"):
        average_checkpoints(tmp_path / "nothing", 2, tmp_path / "OUT")


def test_the_advice_of_a_run_without_checkpoints_can_be_followed(begun: Path, tmp_path: Path) -> None:
    shutil.rmtree(begun / "checkpoints")
    with pytest.raises(UserError) as none:
        average_checkpoints(begun, 1, tmp_path / "OUT")
    assert str(none.value) == (f"{begun}: has 0 of the 1 whole checkpoints that were to be averaged; train with "
                               "checkpoint.keep=2 and a smaller checkpoint.every_n_steps")
    assert compose(["checkpoint.keep=2"]).checkpoint.keep == 2
