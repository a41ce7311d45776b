"""Several ranks train what one does: the same weights, however they share them, the same scores, and after any kill."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from trials import QUICK, command, losses, means, mounted
from zygote import Done, Kill, Zygote

from minitx.runs.checkpoint import whole_checkpoints
from minitx.runs.result import Result

STEPS = 50
FULL = os.environ.get("MINITX_FAULTS") == "full"  # make test-faults
PLACES = {"after update": STEPS, "checkpoint write": STEPS // 5, "before fsync": 5, "after rename": 5,
          "metrics write": STEPS // 2, "before validation loss": 3}


def words(text: Path, run_dir: Path, *more: str) -> list[str]:
    return ["data=files", f"data.dir={text}", f"run_dir={run_dir}", *QUICK, "data.max_tokens=64", "optim.ema_decay=0.9",
            f"trainer.max_steps={STEPS}", "resume=auto", *more]


Train = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(zygote: Zygote, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Runs that were left in peace, each made once."""
    made: dict[tuple[object, ...], Path] = {}

    def run(ranks: int, *more: str) -> Path:
        if (ranks, more) not in made:
            run_dir = tmp_path_factory.mktemp("ranks") / "run"
            check(zygote.run(words(text, run_dir, *more), ranks=ranks))
            made[ranks, more] = run_dir
        return made[ranks, more]

    return run


def check(done: Done) -> Done:
    assert done.returncode == 0, done.stderr
    return done


def state(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run_dir / "checkpoints").glob("step-*.safetensors")))


def apart(one: Path, other: Path, section: str = "model/") -> float:
    """Return the largest difference of two runs' weights, over the largest weight."""
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    names = [name for name in a if name.startswith(section)]
    return max(float((a[name] - b[name]).abs().max()) for name in names) / max(
        float(a[name].abs().max()) for name in names)


def distance(one: Path, other: Path) -> float:
    """Return the norm of the difference of two runs' weights, over the norm of the weights."""
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    flat, differences = (torch.cat([tensors[name].double().flatten() for name in a if name.startswith("model/")])
                         for tensors in (a, {name: a[name].double() - b[name].double() for name in a}))
    return float(differences.norm() / flat.norm())


# --- exactness


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_in_float64_ranks_train_what_one_does(trained: Train, ranks: int) -> None:
    one = trained(1, "trainer.precision=64-true")
    assert apart(one, trained(ranks, "trainer.precision=64-true")) < 1e-12


@pytest.mark.parametrize(("ranks", "strategy"), [(2, "fsdp2"), (2, "ddp"), (3, "ddp"), (3, "fsdp2")])
@pytest.mark.slow
def test_in_fp32_ranks_train_what_one_does(trained: Train, ranks: int, strategy: str) -> None:
    one, several = trained(1), trained(ranks, f"trainer.strategy={strategy}")
    assert apart(one, several) < 1e-5
    assert apart(one, several, "ema/") < 1e-5
    for (step, loss), (same, alike) in zip(losses(one), losses(several), strict=True):
        assert step == same
        assert loss == pytest.approx(alike, rel=1e-5)
    alone, together = Result.read(one / "result.json"), Result.read(several / "result.json")
    assert (together.world_size, together.tokens, together.steps) == (ranks, alone.tokens, alone.steps)
    assert together.params == alone.params


REAL = ("experiment=synthetic_transformer", "data.train_size=5000", "data.test_sets=[]", "trainer.max_steps=10",
        "seed=5", "trainer.log_every_n_steps=1", "trainer.valid_sentences=2", "decode.beam_size=1")


@pytest.fixture(scope="module")
def trained_for_real(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Runs of the usual size on the embedded text, each made once."""
    made: dict[tuple[object, ...], Path] = {}

    def run(ranks: int, threads: int, precision: str) -> Path:
        if (key := (ranks, threads, precision)) not in made:
            made[key] = tmp_path_factory.mktemp("real") / "run"
            check(zygote.run([*REAL, f"run_dir={made[key]}", f"trainer.threads={threads}",
                              f"trainer.precision={precision}"], ranks=ranks))
        return made[key]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "threads", "loss", "weights"), [
    ("64-true", 2, 1e-12, 1e-12), ("32-true", 1, 1e-6, 1e-5), ("32-true", 2, 1e-6, 1e-4)])
def test_a_real_run_keeps_what_is_promised_of_ranks(trained_for_real: Train, precision: str, threads: int, loss: float,
                                                    weights: float) -> None:
    """One rank of so many threads against two of one each."""
    one, two = trained_for_real(1, threads, precision), trained_for_real(2, 1, precision)
    assert [step for step, _ in losses(one)] == list(range(1, 11))
    assert losses(two) == [(step, pytest.approx(value, rel=loss)) for step, value in losses(one)]
    print(f"{precision}, {threads} threads: {distance(one, two):.1e}; of one weight {apart(one, two):.1e}")
    assert distance(one, two) < weights
    assert precision == "32-true" or apart(one, two) < weights


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_micro_batches_of_another_size_train_the_same(trained: Train, ranks: int) -> None:
    one = trained(1, "model.dropout=0")
    assert apart(one, trained(ranks, "model.dropout=0", "data.max_tokens=128")) < 1e-5


@pytest.mark.parametrize(("ranks", "dropout", "precision", "bound"), [
    (2, "0", "64-true", 1e-12), (2, "0.1", "64-true", 1e-12),
    pytest.param(3, "0", "32-true", 1e-5, marks=pytest.mark.slow)])
def test_an_update_that_is_one_micro_batch_is_split_for_ranks(trained: Train, ranks: int, dropout: str, precision: str,
                                                              bound: float) -> None:
    """Dropout is drawn for each micro-batch, so that it follows from the split; without it nothing does."""
    more = ("data.max_tokens=4000", f"model.dropout={dropout}", f"trainer.precision={precision}")
    difference = apart(trained(1, *more), trained(ranks, *more))
    assert difference > 1e-3 if dropout == "0.1" else difference < bound


@pytest.mark.slow
@pytest.mark.parametrize(("begun", "then", "told"), [(2, 1, False), (1, 2, True)])
def test_what_dropout_draws_is_settled_by_the_most_ranks_so_far(zygote: Zygote, text: Path, trained: Train,
                                                                tmp_path: Path, begun: int, then: int,
                                                                told: bool) -> None:
    run_dir, more = tmp_path / "run", ("data.max_tokens=4000", "trainer.precision=64-true")
    assert zygote.run(words(text, run_dir, *more), Kill("after update", 12), begun, on=0).returncode == -9
    done = check(zygote.run(words(text, run_dir, *more), ranks=then))
    said = "2 ranks take more micro-batches an update than before, and dropout is drawn for each: from here on the run"
    assert done.stderr.count(said) == told
    difference = apart(trained(begun, *more), run_dir)
    assert difference > 1e-3 if told else difference < 1e-12


@pytest.mark.slow
def test_gradients_may_travel_in_bf16(trained: Train) -> None:
    difference = apart(trained(1), trained(2, "trainer.compress=bf16"))
    assert 1e-6 < difference < 0.1


@pytest.mark.slow
def test_a_mean_of_checkpoints_does_not_depend_on_ranks(zygote: Zygote, text: Path, trained: Train,
                                                        tmp_path: Path) -> None:
    found = []
    for ranks, strategy in ((1, "ddp"), (2, "ddp"), (2, "fsdp2")):
        again = tmp_path / f"{ranks}-{strategy}"
        shutil.copytree(trained(1), again)
        (again / "result.json").unlink()
        check(zygote.run(words(text, again, f"trainer.strategy={strategy}", "checkpoint.average=2"), ranks=ranks))
        found += means(again)
    assert len(found) == 3
    for steps, loss, bleu in found:
        assert (steps, loss, bleu) == ([STEPS, STEPS - 5], pytest.approx(found[0][1], rel=1e-5), found[0][2])


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "strategy"), [(2, "ddp"), (3, "ddp"), (2, "fsdp2")])
def test_scores_do_not_depend_on_ranks(zygote: Zygote, text: Path, trained: Train, tmp_path: Path, ranks: int,
                                       strategy: str) -> None:
    one, again = trained(1), tmp_path / "again"
    shutil.copytree(one, again)
    (again / "result.json").unlink()
    shutil.rmtree(again / "hypotheses")
    check(zygote.run(words(text, again, f"trainer.strategy={strategy}"), ranks=ranks))
    assert Result.read(again / "result.json").test == Result.read(one / "result.json").test
    assert (again / "hypotheses/test.de").read_bytes() == (one / "hypotheses/test.de").read_bytes()
    assert (again / "sentence_statistics.json").read_bytes() == (one / "sentence_statistics.json").read_bytes()


@pytest.mark.parametrize(("limit", "reason"), [
    ("trainer.patience=1", "patience"), ("trainer.max_minutes=0.03", "max_minutes"),
    ("trainer.target_bleu=0.0001", "target_bleu"), ("optim.lr=1e30", "max_nonfinite")])
@pytest.mark.slow
def test_all_stop_at_the_same_limit(zygote: Zygote, text: Path, tmp_path: Path, limit: str, reason: str) -> None:
    run_dir = tmp_path / "run"
    more = ("optim.clip_norm=null", "trainer.max_nonfinite=3") if reason == "max_nonfinite" else ()
    done = zygote.run(words(text, run_dir, "trainer.max_steps=100000", limit, *more), ranks=2)
    assert done.returncode == (4 if reason == "max_nonfinite" else 0), done.stderr
    result = Result.read(run_dir / "result.json")
    assert result.stop_reason == reason
    if reason == "max_minutes":
        assert result.train_s <= 0.03 * 60


@pytest.mark.slow
@pytest.mark.parametrize(("model", "width"), [
    ("lstm", "model.d_hidden=32"), ("lstm_attention", "model.d_hidden=32"), ("gnmt", "model.num_layers=2"),
    ("linear_rnn", "model.d_hidden=32"), ("linear_rnn_attention", "model.cell=rglru")])
def test_each_family_trains_on_ranks(zygote: Zygote, text: Path, tmp_path: Path, model: str, width: str) -> None:
    for name, ranks, strategy in (("one", 1, "ddp"), ("ddp", 2, "ddp"), ("fsdp2", 2, "fsdp2")):
        family = [word for word in words(text, tmp_path / name, f"model={model}", width, "trainer.max_steps=15")
                  if not word.startswith(("model.d_ff", "model.n_heads"))]
        check(zygote.run([*family, f"trainer.strategy={strategy}"], ranks=ranks))
    assert apart(tmp_path / "one", tmp_path / "ddp") < 1e-5
    assert apart(tmp_path / "one", tmp_path / "fsdp2") < 1e-5


@pytest.mark.slow
def test_two_ranks_take_muon(zygote: Zygote, text: Path, tmp_path: Path) -> None:
    for ranks in (1, 2):
        check(zygote.run(words(text, tmp_path / str(ranks), "optim=muon", "trainer.max_steps=15"), ranks=ranks))
    assert apart(tmp_path / "1", tmp_path / "2") < 1e-4


# --- left over


@pytest.mark.slow
def test_what_an_earlier_job_left_over_silences_no_logger(text: Path, tmp_path: Path) -> None:
    left_over = {"RANK": "1", "LOCAL_RANK": "1", "SLURM_PROCID": "1", "TORCHELASTIC_RUN_ID": "", "LOCAL_WORLD_SIZE": ""}
    done = subprocess.run(command(text, tmp_path / "run", "trainer.max_steps=4", "logger=tensorboard"),
                          env=os.environ | left_over, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == (
        "minitx: warning: ignored RANK=1, LOCAL_RANK=1, LOCAL_WORLD_SIZE='', TORCHELASTIC_RUN_ID='', SLURM_PROCID=1: "
        "left over from another job, for neither torchrun nor srun started this process")
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


# --- kills


@pytest.mark.slow
def test_another_number_of_ranks_and_another_strategy_go_on(zygote: Zygote, text: Path, trained: Train,
                                                            tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for ranks, strategy, update in ((2, "fsdp2", 12), (3, "ddp", 22), (1, "ddp", 17)):
        assert zygote.run(words(text, run_dir, f"trainer.strategy={strategy}"), Kill("after update", update),
                          ranks, on=0).returncode == -9
    check(zygote.run(words(text, run_dir, "trainer.strategy=fsdp2"), ranks=2))
    assert apart(trained(1), run_dir) < 1e-5
    assert apart(trained(1), run_dir, "ema/") < 1e-5


@pytest.mark.slow
def test_random_kills_of_two_ranks_change_nothing(zygote: Zygote, text: Path, trained: Train, tmp_path: Path,
                                                  record_property: Callable[[str, object], None]) -> None:
    draw, expected = Random(5), state(trained(2))
    kills = 25 if FULL else 4
    unreadable = 0
    for number in range(kills):
        place, most = draw.choice(list(PLACES.items()))
        on = draw.randrange(2) if place in ("after update", "before validation loss") else 0
        run_dir = tmp_path / str(number)
        point = Kill(place, draw.randint(1, most), draw.random())
        killed = zygote.run(words(text, run_dir), point, ranks=2, on=on)
        assert killed.returncode == -9, f"{point} on rank {on} was not reached: {killed.stderr}"
        folder = run_dir / "checkpoints"
        unreadable += len(list(folder.glob("step-*.safetensors"))) - len(list(whole_checkpoints(folder)))
        check(zygote.run(words(text, run_dir), ranks=2))
        found = state(run_dir)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items()), (point, on)
    record_property("kills of two ranks", f"{kills} kills, {unreadable} completed checkpoints unreadable")
    assert unreadable == 0


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_ends_all_ranks_and_loses_nothing(zygote: Zygote, text: Path, trained: Train,
                                                                          tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert zygote.run(words(text, run_dir), Kill("after update", 8), ranks=2).returncode == -9
    checkpoints = run_dir / "checkpoints"
    with mounted(checkpoints, "--bind", str(checkpoints)):
        done = zygote.run(words(text, run_dir), Kill("read-only", 4), ranks=2, on=0)
    assert done.returncode == 5, done.stderr
    assert "Read-only file system" in done.stderr
    assert "rank 1, update" in done.stderr
    assert "Traceback" not in done.stderr
    check(zygote.run(words(text, run_dir), ranks=2))
    found, expected = state(run_dir), state(trained(2))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
