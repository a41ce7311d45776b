"""A run killed anywhere and resumed equals the uninterrupted one: weights, average, moments, model and losses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import yaml
from trials import QUICK, losses, mounted, weights
from zygote import Done, Kill, Zygote

from minitx.config.fields import parse
from minitx.config.schema import Config
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.data.tokenizer import TokenizerPair
from minitx.runs.checkpoint import whole_checkpoints
from minitx.runs.directory import truncate_metrics
from minitx.runs.result import Result

STEPS = 20  # a checkpoint every 5, a validation every 10, a record every 2
WIDTHS = {"transformer": QUICK[:4], "lstm": ("model.d_model=32", "model.d_hidden=32", "model.num_layers=1"),
          "lstm_attention": ("model.d_model=32", "model.d_hidden=32", "model.num_layers=1"),
          "gnmt": ("model.d_model=32", "model.num_layers=2"),
          "linear_rnn_attention": ("model.d_model=32", "model.d_hidden=32", "model.d_ff=64", "model.num_layers=1")}
# place: times it is drawn, times a run gets there
PLACES = {"after update": (6, STEPS), "checkpoint write": (5, 4), "before fsync": (2, 4), "after fsync": (1, 4),
          "before rename": (2, 4), "after rename": (2, 4), "before prune": (1, 2), "model write": (1, 1),
          "metrics write": (3, 12), "before validation loss": (1, 2), "after validation loss": (1, 2)}


def kill_points(seed: int) -> list[Kill]:
    draw = Random(seed)
    return [Kill(place, draw.randint(1, most), draw.random()) for place, (times, most) in PLACES.items()
            for _ in range(times)]


def argv(text: Path, run_dir: Path, model: str = "transformer") -> list[str]:
    return ["data=files", f"data.dir={text}", f"run_dir={run_dir}", f"model={model}", *WIDTHS[model], *QUICK[4:],
            "data.max_tokens=128", "optim.ema_decay=0.9", f"trainer.max_steps={STEPS}", "resume=auto"]


@dataclass(frozen=True)
class End:
    """What two identical trainings share."""

    weights: str
    model: bytes
    losses: list[tuple[int, float]]

    @classmethod
    def of(cls, run_dir: Path) -> "End":
        return cls(weights(run_dir), (run_dir / "model.safetensors").read_bytes(), losses(run_dir))


@pytest.fixture(scope="module")
def uninterrupted(zygote: Zygote, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs that were never interrupted, one a family, each trained once."""
    trained: dict[str, Path] = {}

    def run(model: str = "transformer") -> Path:
        if model not in trained:
            run_dir = tmp_path_factory.mktemp("runs") / model
            done = zygote.run(argv(text, run_dir, model))
            assert done.returncode == 0, done.stderr
            trained[model] = run_dir
        return trained[model]

    return run


def resume(zygote: Zygote, text: Path, run_dir: Path, model: str = "transformer") -> Done:
    done = zygote.run(argv(text, run_dir, model))
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_25_random_kills_change_nothing(zygote: Zygote, text: Path, uninterrupted: Callable[..., Path], tmp_path: Path,
                                        record_property: Callable[[str, object], None]) -> None:
    expected, points = End.of(uninterrupted()), kill_points(seed=1)
    assert len(points) == 25
    unreadable, slowest = 0, 0.0  # checkpoints, seconds
    for number, point in enumerate(points):
        run_dir = tmp_path / str(number)
        killed = zygote.run(argv(text, run_dir), point)
        assert killed.returncode == -9, f"{point} was not reached: {killed.stderr}"
        saved = list((run_dir / "checkpoints").glob("step-*.safetensors"))
        unreadable += len(saved) - len(list(whole_checkpoints(run_dir / "checkpoints")))
        resumed = resume(zygote, text, run_dir)
        assert "damaged" not in resumed.stderr
        assert ("resuming at step" in resumed.stderr) == bool(saved), point
        slowest = max(slowest, resumed.seconds)
        assert End.of(run_dir) == expected, point
        assert not [path for path in run_dir.rglob(".*") if path.name != ".lock"], point
    line = f"{len(points)} kills, {unreadable} completed checkpoints unreadable, slowest resumed run {slowest:.1f} s"
    print(line)
    record_property("kills", line)
    assert unreadable == 0


def test_its_updates_have_several_micro_batches(uninterrupted: Callable[..., Path]) -> None:
    run_dir = uninterrupted()
    cfg = parse(Config, yaml.safe_load((run_dir / "config.yaml").read_text()))
    data = TranslationData(cfg, load_corpus(cfg.data), TokenizerPair.load(run_dir))
    assert min(len(update.micro_batches) for update in data.window(0).plan) >= 2
    assert cfg.model.dropout > 0


@pytest.mark.parametrize("model", [
    "transformer", *(pytest.param(name, marks=pytest.mark.slow) for name in WIDTHS if name != "transformer")])
def test_a_killed_run_of_each_family_resumes(zygote: Zygote, text: Path, uninterrupted: Callable[..., Path],
                                             tmp_path: Path, model: str) -> None:
    run_dir = tmp_path / "run"
    assert zygote.run(argv(text, run_dir, model), Kill("after update", 13)).returncode == -9
    assert "resuming at step 10" in resume(zygote, text, run_dir, model).stderr
    assert End.of(run_dir) == End.of(uninterrupted(model))


@pytest.mark.slow
def test_a_run_killed_three_times_resumes(zygote: Zygote, text: Path, uninterrupted: Callable[..., Path],
                                          tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for point in (Kill("after update", 6), Kill("checkpoint write", 1, 0.5), Kill("after rename", 2)):
        assert zygote.run(argv(text, run_dir), point).returncode == -9
    resume(zygote, text, run_dir)
    assert End.of(run_dir) == End.of(uninterrupted())


@pytest.mark.slow
def test_a_target_set_on_resuming_is_decided_on_the_full_set(zygote: Zygote, text: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert zygote.run(argv(text, run_dir), Kill("after update", 13)).returncode == -9
    done = zygote.run([*argv(text, run_dir), "trainer.target_bleu=0.001", "trainer.max_steps=60"])
    assert done.returncode == 0, done.stderr
    result = Result.read(run_dir / "result.json")
    assert result.stop_reason == "target_bleu"
    assert result.best_step is not None
    assert result.best_step > 10, "the score of a subset at step 10 does not count"
    assert result.time_to_target_s == pytest.approx(result.train_s)


def test_a_half_written_record_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = [b'{"event": "train", "step": 2}', b'{"event": "valid", "step": 4}']
    for tail in (b'{"event": "tr', b"\0\0\0\n", b'{"event": "train", "step": 6}\n'):
        path.write_bytes(b"\n".join([*whole, tail]))
        assert [entry["step"] for entry in truncate_metrics(path, 5)] == [2, 4]
        assert path.read_bytes().splitlines() == whole
    assert truncate_metrics(tmp_path / "none", 5) == []


# --- damage


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": content, "truncated": content[: len(content) // 2], "empty": b""}[how])


@pytest.mark.parametrize("how", [
    "truncated", pytest.param("flipped", marks=pytest.mark.slow), pytest.param("empty", marks=pytest.mark.slow)])
def test_a_damaged_newest_checkpoint_is_skipped_with_one_line(
        zygote: Zygote, text: Path, uninterrupted: Callable[..., Path], tmp_path: Path, how: str) -> None:
    run_dir = tmp_path / "run"
    assert zygote.run(argv(text, run_dir), Kill("after update", 17)).returncode == -9
    damage(max((run_dir / "checkpoints").glob("step-*")), how)
    lines = resume(zygote, text, run_dir).stderr.splitlines()
    assert [line for line in lines if "is damaged (" in line] == [
        "minitx: warning: step-00000015 is damaged (its content does not match its name); trying the one before"]
    assert any("resuming at step 10" in line for line in lines)
    assert End.of(run_dir) == End.of(uninterrupted())


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_all_damaged_does_not_restart(zygote: Zygote, text: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert zygote.run(argv(text, run_dir), Kill("after update", 12)).returncode == -9
    for path in (run_dir / "checkpoints").glob("step-*"):
        damage(path, "flipped")
    records = (run_dir / "metrics.jsonl").read_bytes()
    for _ in range(2):  # nor at the second attempt
        done = zygote.run(argv(text, run_dir))
        assert done.returncode == 5, done.stderr
        assert "each of its 2 checkpoints is damaged, nothing is left to go on from" in done.stderr.splitlines()[-1]
    assert (run_dir / "metrics.jsonl").read_bytes() == records


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_gets_one_line_and_loses_nothing(
        zygote: Zygote, text: Path, uninterrupted: Callable[..., Path], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert zygote.run(argv(text, run_dir), Kill("after update", 8)).returncode == -9
    checkpoints = run_dir / "checkpoints"
    with mounted(checkpoints, "--bind", str(checkpoints)):
        done = zygote.run(argv(text, run_dir), Kill("read-only", 4))
        assert done.returncode == 5, done.stderr
        assert "Read-only file system" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    resume(zygote, text, run_dir)
    assert End.of(run_dir) == End.of(uninterrupted())
