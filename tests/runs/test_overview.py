"""Folders of runs are read whatever state they are in: what is broken or foreign is named, and stops nothing."""

import json
import os
from io import StringIO
from pathlib import Path

import pytest
import yaml

from minitx.runs.directory import held
from minitx.runs.overview import find_runs, read_curve, read_run
from minitx.utils.console import Console
from minitx.utils.errors import UserError

VALID = {"event": "valid", "step": 20, "train_s": 30.0, "loss": 2.5, "bleu": 11.0}


def begin(run_dir: Path, seed: int = 1, model: str = "lstm", **settings: object) -> Path:
    """Write what a run has from its start on."""
    run_dir.mkdir(parents=True)
    values = {"seed": seed, "choices": {"data": "synthetic", "model": model, "experiment": None},
              "model": {"family": model}, "optim": {"lr": 0.001}, **settings}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(values))
    (run_dir / ".lock").touch()
    return run_dir


def finish(run_dir: Path, **result: object) -> Path:
    known = {"status": "finished", "steps": 800, "train_s": 120.0, "best_valid_bleu": 50.0,
             "test": {"test": {"bleu": 48.5}, "minimal_pairs": {"bleu": 40.0}}}
    (run_dir / "result.json").write_text(json.dumps(known | result))
    return run_dir


def learn(run_dir: Path, *lines: str) -> Path:
    """Write metrics.jsonl."""
    (run_dir / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return run_dir


def test_a_finished_run_tells_what_its_result_says(tmp_path: Path) -> None:
    run = read_run(finish(begin(tmp_path / "run", seed=3)))
    assert (run.status, run.seed, run.steps, run.minutes) == ("finished", 3, 800, 2.0)
    assert (run.valid_bleu, run.test_bleu, run.test) == (50.0, 48.5, {"test": 48.5, "minimal_pairs": 40.0})
    assert run.settings["optim.lr"] == 0.001
    assert (run.settings["model"], run.settings["experiment"]) == ("lstm", None)


def test_a_run_without_a_result_tells_what_it_has_written_so_far(tmp_path: Path) -> None:
    better = VALID | {"step": 10, "bleu": 12.0}
    run_dir = learn(begin(tmp_path / "run"), json.dumps(better), json.dumps(VALID),
                    json.dumps({"event": "train", "step": 29, "train_s": 45.0}), '{"event": "valid", "st')
    run = read_run(run_dir)
    assert (run.steps, run.minutes, run.valid_bleu, run.test_bleu) == (29, 0.75, 12.0, None)
    assert read_curve(run_dir) == [(10, 30.0, 2.5, 12.0), (20, 30.0, 2.5, 11.0)]


def test_each_status(tmp_path: Path) -> None:
    run_dir = begin(tmp_path / "run")
    assert read_run(run_dir).status == "failed", "nothing was saved"
    (run_dir / ".lock").unlink()
    assert read_run(run_dir).status == "running", "it begins, and has not locked its directory yet"
    os.utime(run_dir / "config.yaml", (0, 0))
    assert read_run(run_dir).status == "failed", "it never got so far"
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints/step-00000010.abc.safetensors").touch()
    assert read_run(run_dir).status == "interrupted", "killed: resume=auto goes on with it"
    with held(run_dir):
        assert read_run(run_dir).status == "running"
    for status, shown in (("terminated", "interrupted"), ("interrupted", "interrupted"), ("diverged", "diverged")):
        assert read_run(finish(run_dir, status=status)).status == shown
        with held(run_dir):
            assert read_run(run_dir).status == "running", "it was taken up again"
    finish(run_dir)
    with held(run_dir):
        assert read_run(run_dir).status == "finished"


def test_a_run_that_goes_on_tells_more_than_its_last_result(tmp_path: Path) -> None:
    run_dir = learn(finish(begin(tmp_path / "run"), status="interrupted", steps=10, test={}), json.dumps(VALID))
    run = read_run(run_dir)
    assert (run.status, run.steps, run.valid_bleu) == ("interrupted", 20, 11.0)


def test_runs_are_found_in_folders_of_folders_and_what_is_broken_is_named(tmp_path: Path) -> None:
    begin(tmp_path / "runs/one")
    finish(begin(tmp_path / "runs/sweep/model=lstm,seed=2", seed=2))
    begin(tmp_path / "runs/one/checkpoints/within")
    (tmp_path / "runs/foreign/deep").mkdir(parents=True)
    for name, content in (("yaml", "a: [\n"), ("list", "[1]\n"), ("other", "title: a page\n")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "config.yaml").write_text(content)
    (begin(tmp_path / "runs/half") / "result.json").write_text("{")
    shown = StringIO()
    runs, notes = find_runs([tmp_path / "runs"], Console(shown))
    assert [run.path.name for run in runs] == ["half", "one", "model=lstm,seed=2"]
    assert len(notes) == 5
    assert any("runs/foreign: holds no run" in note for note in notes)
    assert any("runs/yaml/config.yaml: damaged" in note for note in notes)
    assert any("runs/list/config.yaml: damaged" in note for note in notes)
    assert any("runs/other: its config.yaml is not that of a run" in note for note in notes)
    assert any("runs/half/result.json: damaged" in note for note in notes)
    one, = find_runs([tmp_path / "runs/one"], Console(shown))[0]
    assert one.path == tmp_path / "runs/one"


def test_a_result_of_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    run_dir = begin(tmp_path / "run")
    (run_dir / "result.json").write_text(json.dumps({"status": "finished", "steps": "many", "test": {"test": 3}}))
    run = read_run(run_dir)
    assert (run.status, run.steps, run.valid_bleu, run.test) == ("finished", None, None, {})


def test_where_there_is_no_run_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; python train.py writes each run into one"):
        find_runs([tmp_path / "none"], Console(StringIO()))
    with pytest.raises(UserError, match="no run there"):
        find_runs([tmp_path], Console(StringIO()))
