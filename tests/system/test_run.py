"""Runs on a small text: what they leave behind, how they stop, and that stopping changes nothing."""

import json
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from toys import write_digits
from trials import QUICK, command, losses, means, mounted, records, train, weights

from minitx.config.saved import read_config
from minitx.config.schema import config_sha256
from minitx.distributed.ranks import Ranks
from minitx.experiments.reports.command_line import exact_command
from minitx.runs.checkpoint import load_checkpoint
from minitx.runs.directory import held
from minitx.runs.result import Result, TestScore
from minitx.utils.errors import UserError


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run of 20 updates."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    done = train(text, run_dir, "trainer.max_steps=20", "checkpoint.average=2")
    assert done.returncode == 0, done.stderr
    return run_dir


def test_a_run_directory_is_complete(whole: Path, text: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {"config.yaml", "tokenizer.json", "model.safetensors", "checkpoints", "hypotheses", "metrics.jsonl",
                     "result.json", "sentence_statistics.json", "source_text.json", ".lock"}
    result = Result.read(whole / "result.json")
    assert (result.status, result.stop_reason, result.steps) == ("finished", "max_steps", 20)
    assert (result.data, result.model, result.src, result.tgt) == ("files", "transformer", "en", "de")
    assert result.test["test"]["sentences"] == len((whole / "hypotheses/test.de").read_text().split("\n")) - 1 == 40
    assert result.test["test"]["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert result.config_sha256 == config_sha256(read_config(whole))
    assert 0 < result.train_s < result.wall_s
    assert result.device_hours == result.wall_s / 3600, "one reading of the clock for both"
    assert result.train_s + result.eval_s + result.checkpoint_s <= result.wall_s + 1e-6
    assert result.tokens == pytest.approx(20 * 256, rel=0.2)
    assert yaml.safe_load((whole / "config.yaml").read_text())["model"]["d_model"] == 32


def test_ranks_compare_all_that_each_decides_by_itself(text: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without MeCab, say, would score Japanese otherwise, and stop at another update."""
    facts: dict[str, str] = {}

    def agree(_: Ranks, **held: str) -> None:
        facts.update(held)
        raise UserError("enough")

    monkeypatch.setattr(Ranks, "agree", agree)
    assert train(text, tmp_path / "run").returncode == 2
    assert facts.keys() == {"data_sha256", "tokenizer_sha256", "minitx", "torch", "precision", "step", "bleu_tokenizer"}
    assert facts["bleu_tokenizer"] == "13a"


def test_the_weights_that_serve_are_the_best_and_a_tie_goes_to_the_lower_loss(whole: Path) -> None:
    """A model of so few updates scores BLEU 0.0 again and again, while its loss falls."""
    result = Result.read(whole / "result.json")
    scored = [record for record in records(whole) if record["event"] in ("valid", "mean")]
    best = max(scored, key=lambda record: (record["bleu"], -record["loss"]))
    assert len({record["bleu"] for record in scored}) < len(scored), "no tie: nothing is tested"
    assert (result.best_valid_bleu, result.valid_loss) == (best["bleu"], best["loss"])
    assert (result.averaged_steps is None) == (best["event"] == "valid")


def test_the_time_is_accounted_for(whole: Path) -> None:
    result = Result.read(whole / "result.json")
    assert result.time_split is not None
    assert result.not_measured is not None
    assert sum(result.time_split.values()) == pytest.approx(result.wall_s)
    assert all(result.time_split[part] > 0 for part in result.time_split.keys() - {"other"})
    assert result.mfu_pct is not None
    assert 0 < result.mfu_pct < 100
    assert result.peak_source == "measured"
    assert result.not_measured["energy_wh"] == "only a GPU's is measured"
    updates = [record for record in records(whole) if record["event"] == "train"]
    assert all(0 < record["mfu_pct"] < 100 for record in updates)
    assert all(record["tgt_positions_per_s"] >= record["tgt_tokens_per_s"] for record in updates)


def test_result_json_has_the_keys_that_the_record_tells_of(whole: Path) -> None:
    written = json.loads((whole / "result.json").read_text())
    assert written.keys() == {field.name for field in fields(Result)}
    assert all(score.keys() <= TestScore.__annotations__.keys() for score in written["test"].values())


def test_a_finished_run_is_not_extended(whole: Path, text: Path) -> None:
    done = train(text, whole, "trainer.max_steps=30", "resume=auto")
    assert done.returncode == 2
    assert (f"trainer.max_steps=30: {whole} is finished, after the 20 steps it decayed towards; to train on, start "
            f"a new run with init_from={whole}") in done.stderr


def test_a_finished_run_is_not_repeated(whole: Path, text: Path) -> None:
    before = (whole / "result.json").read_bytes()
    again = train(text, whole, "trainer.max_steps=20", "resume=auto")
    assert again.returncode == 0
    assert "this run is finished" in again.stderr
    assert (whole / "result.json").read_bytes() == before
    refused = train(text, whole, "trainer.max_steps=20")
    assert refused.returncode == 5
    assert "is not empty" in refused.stderr


def interrupt(text: Path, run_dir: Path, number: int) -> tuple[int, str]:
    """Start a run, signal it once it has trained a few updates, and wait for its end."""
    process = subprocess.Popen(command(text, run_dir, "trainer.max_steps=20", "checkpoint.average=2"),
                               stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not ((run_dir / "metrics.jsonl").exists() and len((run_dir / "metrics.jsonl").read_text().splitlines()) > 2):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    return process.returncode, stderr


@pytest.mark.parametrize(("number", "status", "code"), [
    (signal.SIGTERM, "terminated", 143), pytest.param(signal.SIGINT, "interrupted", 130, marks=pytest.mark.slow)])
def test_a_signal_ends_cleanly_and_the_resumed_run_is_the_uninterrupted_one(
        text: Path, whole: Path, tmp_path: Path, number: int, status: str, code: int) -> None:
    run_dir = tmp_path / "run"
    returned, stderr = interrupt(text, run_dir, number)
    result = Result.read(run_dir / "result.json")
    if result.status == "finished":
        pytest.skip("the run was over before the signal came")
    assert (returned, result.status) == (code, status), stderr
    assert "Traceback" not in stderr
    assert (run_dir / "model.safetensors").exists()
    resumed = train(text, run_dir, "trainer.max_steps=20", "checkpoint.average=2", "resume=auto")
    assert resumed.returncode == 0, resumed.stderr
    assert weights(run_dir) == weights(whole)
    assert means(run_dir) == means(whole)


@pytest.mark.slow
def test_a_run_killed_and_resumed_is_the_uninterrupted_one(text: Path, whole: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert interrupt(text, run_dir, signal.SIGKILL)[0] == -signal.SIGKILL
    resumed = train(text, run_dir, "trainer.max_steps=20", "checkpoint.average=2", "resume=auto")
    assert resumed.returncode == 0, resumed.stderr
    assert weights(run_dir) == weights(whole)
    assert means(run_dir) == means(whole)
    assert losses(run_dir) == losses(whole)


def test_a_test_set_that_nobody_asked_for_does_not_stop_a_resume(text: Path, tmp_path: Path) -> None:
    folder, run_dir = shutil.copytree(text, tmp_path / "text"), tmp_path / "run"
    assert train(folder, run_dir, "trainer.max_steps=5").returncode == 0
    (run_dir / "result.json").unlink()  # as after a kill at the very end
    for language in ("en", "de"):
        shutil.copy(folder / f"test.{language}", folder / f"test_new.{language}")
    resumed = train(folder, run_dir, "trainer.max_steps=5", "resume=auto")
    assert resumed.returncode == 0, resumed.stderr
    assert list(Result.read(run_dir / "result.json").test) == ["test"]


def test_updates_do_not_depend_on_the_size_of_micro_batches(text: Path, whole: Path, tmp_path: Path) -> None:
    """Another data.max_tokens splits the same updates differently; without dropout only rounding differs."""
    runs = []
    for max_tokens in (1024, 128):
        runs.append(tmp_path / str(max_tokens))
        done = train(text, runs[-1], "trainer.max_steps=10", "model.dropout=0", f"data.max_tokens={max_tokens}",
                     "trainer.precision=64-true")
        assert done.returncode == 0, done.stderr
    one, other = (load_file(max((run / "checkpoints").glob("step-*"))) for run in runs)
    assert max(float((one[name] - other[name]).abs().max()) for name in one if name.startswith("model/")) < 1e-9


def test_a_loss_that_is_not_finite_is_skipped_counted_and_ends_the_run(text: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = train(text, run_dir, "trainer.max_steps=100", "optim.lr=1e30", "optim.clip_norm=null",
                 "optim.warmup_steps=0", "trainer.max_nonfinite=3")
    assert done.returncode == 4, done.stderr
    assert "update skipped (3 of at most 3)" in done.stderr
    result = Result.read(run_dir / "result.json")
    assert (result.status, result.stop_reason, result.nonfinite_steps) == ("diverged", "max_nonfinite", 3)


def test_minutes_bound_training_and_fix_the_horizon_once(text: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = train(text, run_dir, "trainer.max_steps=null", "trainer.max_minutes=0.02", "optim.warmup_steps=5",
                 "trainer.valid_every_n_steps=1000", "checkpoint.every_n_steps=1000")
    assert done.returncode == 0, done.stderr
    result = Result.read(run_dir / "result.json")
    seconds = [record["train_s"] for record in records(run_dir) if record["event"] == "train"]
    slowest_s = max(after - before for before, after in zip([0.0, *seconds], seconds, strict=False))  # of two updates
    assert result.train_s <= 0.02 * 60 + slowest_s  # the update at hand is finished, whoever else wants the cores
    assert result.stop_reason == "max_minutes"
    assert result.horizon_steps is not None
    assert result.steps <= result.horizon_steps  # how near depends on a machine that keeps its speed
    assert done.stderr.count("horizon:") == 1


@pytest.mark.slow
def test_a_run_bounded_by_minutes_can_be_repeated_to_the_bit(text: Path, tmp_path: Path) -> None:
    """A clock set the horizon, and perhaps the end; given both, another run ends with the same weights."""
    limits = ("trainer.max_steps=null", "trainer.max_minutes=0.02", "optim.warmup_steps=5", "trainer.threads=1")
    assert train(text, tmp_path / "one", *limits).returncode == 0
    first = Result.read(tmp_path / "one/result.json")
    again = shlex.split(exact_command(shlex.join(["python", "train.py", *QUICK, *limits]), first))[2:]
    assert not any(word.startswith("trainer.max_minutes=0") for word in again)
    assert train(text, tmp_path / "two", *again).returncode == 0
    second = Result.read(tmp_path / "two/result.json")
    assert (second.steps, second.horizon_steps) == (first.steps, first.horizon_steps)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert second.test == first.test


@pytest.mark.slow
def test_a_budget_of_flop_ends_runs_of_any_size_at_the_same_work(text: Path, tmp_path: Path) -> None:
    work = {}
    for layers in (1, 2):
        run_dir = tmp_path / f"{layers}"
        done = train(text, run_dir, f"model.num_layers={layers}", "trainer.max_steps=null", "trainer.max_pflop=4e-6",
                     "optim.warmup_steps=5")
        assert done.returncode == 0, done.stderr
        assert "until  4e-06 PFLOP\n" in done.stderr
        result, saved = Result.read(run_dir / "result.json"), load_checkpoint(run_dir / "checkpoints", warn=pytest.fail)
        assert saved is not None
        assert (result.stop_reason, result.steps) == ("max_pflop", result.horizon_steps)
        work[layers] = saved.meta["state"]["flop"]
        rates = [rate for line in (run_dir / "metrics.jsonl").read_text().splitlines()
                 if (rate := json.loads(line).get("lr"))]
        assert rates[-1] < 0.2 * max(rates), "the learning rate decays until the end"
    assert work == pytest.approx(dict.fromkeys(work, 4e9), rel=0.1)


@pytest.mark.slow
def test_the_nearer_of_two_limits_is_the_horizon(text: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = train(text, run_dir, "trainer.max_steps=20", "trainer.max_minutes=5", "optim.warmup_steps=2")
    assert done.returncode == 0, done.stderr
    assert Result.read(run_dir / "result.json").horizon_steps == 20
    rates = [json.loads(line).get("lr") for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [rate for rate in rates if rate][-1] < 0.2 * max(rate for rate in rates if rate)


def test_weights_that_a_run_did_not_train_are_not_overwritten(text: Path, whole: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "average"
    run_dir.mkdir()
    for name in ("config.yaml", "tokenizer.json", "model.safetensors"):
        shutil.copy(whole / name, run_dir)
    before = (run_dir / "model.safetensors").read_bytes()
    done = train(text, run_dir, "trainer.max_steps=20", "resume=auto")
    assert done.returncode == 5
    assert f"to train on from them: init_from={run_dir} and another run_dir" in done.stderr
    assert (run_dir / "model.safetensors").read_bytes() == before


def test_settings_changed_before_the_first_checkpoint_are_saved(text: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert train(text, run_dir, "trainer.max_steps=2", "checkpoint.every_n_steps=50").returncode == 0
    for path in (run_dir / "result.json", *(run_dir / "checkpoints").iterdir()):
        path.unlink()
    assert train(text, run_dir, "trainer.max_steps=3", "decode.beam_size=1", "resume=auto").returncode == 0
    cfg = read_config(run_dir)
    assert (cfg.trainer.max_steps, cfg.decode.beam_size, cfg.checkpoint.every_n_steps) == (3, 1, 5)


def test_a_run_does_not_resume_on_another_text(text: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert train(text, run_dir, "trainer.max_steps=5").returncode == 0
    (run_dir / "result.json").unlink()  # as if it was killed before the end
    done = train(write_digits(tmp_path / "other", train=300), run_dir, "trainer.max_steps=5", "resume=auto")
    assert done.returncode == 3, done.stderr
    first, *lines = done.stderr[done.stderr.index("minitx: error:"):].splitlines()
    assert f"run_dir={run_dir}: was begun with another text or vocabulary" in first
    assert f"init_from={run_dir}" in first
    assert [line.split(":")[0] for line in lines] == ["  data_sha256"]


def test_a_target_is_decided_on_the_full_validation_set(text: Path, tmp_path: Path) -> None:
    done = train(text, tmp_path / "run", "trainer.max_steps=60", "trainer.target_bleu=0.001",
                 "trainer.valid_sentences=2")
    assert done.returncode == 0, done.stderr
    assert "(40 sentences" in done.stderr
    result = Result.read(tmp_path / "run/result.json")
    assert result.stop_reason == "target_bleu"
    assert result.time_to_target_s == pytest.approx(result.train_s)


def test_patience_ends_a_run_that_gains_nothing(text: Path, tmp_path: Path) -> None:
    done = train(text, tmp_path / "run", "trainer.max_steps=60", "optim.lr=1e-12", "trainer.patience=2",
                 "trainer.valid_every_n_steps=5")
    assert done.returncode == 0, done.stderr
    assert Result.read(tmp_path / "run/result.json").stop_reason == "patience"


def test_a_run_directory_in_use_is_refused(text: Path, whole: Path) -> None:
    with held(whole):
        done = train(text, whole, "trainer.max_steps=20", "resume=auto")
    assert done.returncode == 5
    assert f"run_dir={whole}: another process is training there" in done.stderr


@pytest.mark.slow
def test_two_runs_cannot_share_a_directory(text: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = subprocess.Popen(command(text, run_dir, "trainer.max_steps=100000"), stderr=subprocess.DEVNULL)
    try:
        while not (run_dir / "metrics.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.05)
        second = train(text, run_dir, "trainer.max_steps=100000", "resume=auto")
        assert second.returncode == 5
        assert f"run_dir={run_dir}: another process is training there" in second.stderr
    finally:
        first.kill()
        first.wait()


def test_a_full_disk_gets_one_line_and_loses_nothing(text: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=800k", "tmpfs"):
        done = train(text, disk / "run", "trainer.max_steps=40", "checkpoint.keep=100")
        assert done.returncode == 5, done.stderr
        assert "No space left on device" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        saved = load_checkpoint(disk / "run/checkpoints", pytest.fail)
        assert saved is not None
        assert saved.meta["state"]["step"] >= 5


@pytest.mark.parametrize(("name", "files"), [
    ("tensorboard", "events.out.tfevents*"), pytest.param("wandb", "offline-run-*", marks=pytest.mark.slow)])
def test_loggers_write_beside_metrics(text: Path, tmp_path: Path, name: str, files: str) -> None:
    done = train(text, tmp_path / "run", "trainer.max_steps=2", f"logger={name}")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run").rglob(files))
