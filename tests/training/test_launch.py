"""The step between a checked config and a run: the process, the run directory, the frozen config."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from minitx.config.compose import compose
from minitx.config.fields import parse
from minitx.config.schema import Config, as_dict, resolve_size
from minitx.runs.directory import open_run_dir
from minitx.training import process
from minitx.training.launch import launch, resolve
from minitx.training.process import PACKAGE, is_our_program, set_threads, tune_allocator
from minitx.utils.errors import Exit, UserError


@pytest.fixture(scope="module")
def default() -> Config:
    return compose([])


@pytest.fixture
def cfg(default: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    return default


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Config], int]], None]:
    """Put a function in the place of `minitx.training.train.train`."""

    def replace_train(train: Callable[[Config], int]) -> None:
        stub = ModuleType("minitx.training.train")
        stub.train = train  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "minitx.training.train", stub)

    return replace_train


def test_the_frozen_config_is_what_is_trained(cfg: Config, training: Callable[..., None]) -> None:
    seen: list[Config] = []
    training(lambda given: seen.append(given) or Exit.DIVERGED)  # type: ignore[func-returns-value]
    assert launch(replace(cfg, run_dir="here/run")) == Exit.DIVERGED
    frozen = parse(Config, yaml.safe_load(Path("here/run/config.yaml").read_text()))
    assert seen == [frozen]
    assert frozen.run_dir == "here/run"
    assert frozen.model == resolve_size(cfg.model) != cfg.model


def test_one_device_has_nothing_to_shard(cfg: Config) -> None:
    one = replace(cfg, trainer=replace(cfg.trainer, strategy="fsdp2"))
    with pytest.raises(UserError, match=r"^trainer\.strategy=fsdp2: shards a model over several ranks; "
                                        r"set trainer\.devic"):
        launch(one)


def test_the_config_has_as_many_devices_as_ranks_were_started(cfg: Config) -> None:
    assert resolve(cfg, 16).trainer.devices == 16
    with pytest.raises(UserError, match=r"^trainer\.devices=3: 16 ranks were started; leave it out$"):
        resolve(replace(cfg, trainer=replace(cfg.trainer, devices=3)), 16)


def test_ranks_of_one_machine_share_its_cores(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torchrun's
    for name, value in {"TORCHELASTIC_RUN_ID": "job", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1",
                        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process, "cores", lambda: 12)
    set_threads(cfg)
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "6"
    monkeypatch.delenv("MASTER_PORT")  # then it is no rank, and OMP_NUM_THREADS the user's own
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    set_threads(cfg)
    assert os.environ["MKL_NUM_THREADS"] == "5"


@pytest.mark.parametrize("left_over", [{"LOCAL_WORLD_SIZE": "12"}, {"LOCAL_WORLD_SIZE": "", "RANK": "3"}])
def test_what_another_job_left_over_takes_no_cores(cfg: Config, training: Callable[..., None],
                                                   monkeypatch: pytest.MonkeyPatch, left_over: dict[str, str]) -> None:
    for name, value in left_over.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process, "cores", lambda: 12)
    seen: list[tuple[str, bool]] = []
    training(lambda _: seen.append((os.environ["OMP_NUM_THREADS"], "RANK" in os.environ)) or Exit.OK)  # type: ignore[func-returns-value]
    assert launch(replace(cfg, run_dir="run")) == Exit.OK
    assert seen == [("12", False)]


@pytest.mark.parametrize("code", [Exit.USAGE, Exit.DATA])
def test_a_run_that_could_not_begin_leaves_no_directory(cfg: Config, training: Callable[..., None], code: Exit) -> None:
    def fail(given: Config) -> int:
        Path(str(given.run_dir), "tokenizer.json").touch()
        raise UserError("train.en: is empty", code)

    training(fail)
    with pytest.raises(UserError):
        launch(replace(cfg, run_dir="run"))
    assert not Path("run").exists()


@pytest.mark.parametrize("code", [Exit.DATA, Exit.STORAGE])
def test_a_run_that_learned_something_stays(cfg: Config, training: Callable[..., None], code: Exit) -> None:
    def fail(given: Config) -> int:
        if code is Exit.DATA:
            Path(str(given.run_dir), "checkpoints").mkdir()
        raise UserError("test.en: is not UTF-8", code)

    training(fail)
    with pytest.raises(UserError):
        launch(replace(cfg, run_dir="run"))
    assert Path("run/config.yaml").is_file()


# --- the run directory


def test_runs_that_begin_together_get_directories_of_their_own(cfg: Config) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: open_run_dir(cfg), range(16)))
    assert len({run_dir for run_dir, _ in made}) == 16
    assert all(is_new and (run_dir / "config.yaml").is_file() for run_dir, is_new in made)


def test_runs_that_begin_together_in_one_directory_are_all_refused_but_one(cfg: Config) -> None:
    def begin(_: int) -> str:
        try:
            open_run_dir(replace(cfg, run_dir="same"))
        except UserError as error:
            return error.code.name
        return "began"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(begin, range(16))) == ["STORAGE"] * 15 + ["began"]


def make_file() -> str:
    Path("occupied").touch()
    return "occupied"


def make_below_a_file() -> str:
    return make_file() + "/run"


def make_dangling() -> str:
    Path("runs").symlink_to("scratch")
    return "runs/mine"


def make_occupied() -> str:
    Path("used").mkdir()
    Path("used/thesis.tex").touch()
    return "used"


@pytest.mark.parametrize(("make", "resume", "line"), [
    (make_file, "never", "run_dir=occupied: is a file, not a folder"),
    (make_dangling, "never", "run_dir=runs/mine: runs is a link that leads nowhere"),
    (make_below_a_file, "never", "run_dir=occupied/run: cannot be used: Not a directory"),
    (make_occupied, "never", "run_dir=used: is not empty; name a new folder, or add resume=auto"),
    (make_occupied, "auto", "run_dir=used: no run to resume, it has no config.yaml"),
    (lambda: "/proc/minitx", "never", "run_dir=/proc/minitx: cannot be used: No such file or directory"),
])  # fmt: skip
def test_a_directory_that_cannot_be_used(cfg: Config, make: Callable[[], str], resume: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        open_run_dir(replace(cfg, run_dir=make(), resume=resume))
    assert str(caught.value) == line
    assert caught.value.code == Exit.STORAGE


def test_resume_begins_a_run_where_there_is_none_and_then_goes_on(cfg: Config) -> None:
    resumed = replace(cfg, run_dir="run", resume="auto")
    assert open_run_dir(resumed) == (Path("run"), True)
    before = Path("run/config.yaml").read_bytes()
    longer = replace(resumed, trainer=replace(cfg.trainer, max_steps=99, threads=1))
    assert open_run_dir(longer) == (Path("run"), False)
    assert Path("run/config.yaml").read_bytes() == before


def test_resume_refuses_another_training(cfg: Config) -> None:
    resumed = replace(cfg, run_dir="run", resume="auto")
    open_run_dir(resumed)
    with pytest.raises(UserError) as caught:
        open_run_dir(replace(resumed, seed=7, optim=replace(cfg.optim, lr=0.5)))
    assert str(caught.value).splitlines() == [
        "run_dir=run: was begun with other settings; resume=auto trains on as begun. To start a new run from its "
        "weights: init_from=run and another run_dir", "  seed: was 1, asked 7", "  optim.lr: was 0.003, asked 0.5"]


def test_a_run_killed_while_its_config_was_written_begins(cfg: Config) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").touch()
    with pytest.raises(UserError, match="is not empty"):
        open_run_dir(replace(cfg, run_dir="run"))
    assert open_run_dir(replace(cfg, run_dir="run", resume="auto")) == (Path("run"), True)
    assert Path("run/config.yaml").stat().st_size


# --- this process


def test_threads_are_the_config_s_then_the_user_s_then_all_cores(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "cores", lambda: 6)
    set_threads(cfg)
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "6"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    set_threads(cfg)
    assert os.environ["MKL_NUM_THREADS"] == "3"
    set_threads(replace(cfg, trainer=replace(cfg.trainer, threads=2)))
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "2"


@pytest.mark.parametrize(("exported", "threads"), [("4,2", "4"), ("", "6")])
def test_threads_as_openmp_reads_them(cfg: Config, monkeypatch: pytest.MonkeyPatch, exported: str,
                                      threads: str) -> None:
    monkeypatch.setattr(process, "cores", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", exported)
    set_threads(cfg)
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == threads


@pytest.mark.parametrize("exported", ["many", "0", "-1", "1.5"])
def test_threads_that_are_no_number_are_refused(cfg: Config, monkeypatch: pytest.MonkeyPatch, exported: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", exported)
    with pytest.raises(UserError) as caught:
        set_threads(cfg)
    assert str(caught.value) == (f"OMP_NUM_THREADS={exported}: must be a whole number of at least 1; unset it, or set "
                                 "trainer.threads")


def test_cores_are_at_least_one_and_no_more_than_there_are() -> None:
    assert 1 <= process.cores() <= (os.cpu_count() or 1)


def test_a_gpu_run_keeps_its_allocator(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("restarted"))
    monkeypatch.setattr(process, "program", lambda: str(PACKAGE / "cli/main.py"))
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    tune_allocator(replace(cfg, trainer=replace(cfg.trainer, accelerator="gpu")))


def test_what_is_our_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("minitx", "train.py", "driver.py"):
        (tmp_path / name).touch()
    ours = (PACKAGE.parents[1] / "train.py", PACKAGE / "cli/main.py", tmp_path / "minitx")
    assert all(is_our_program(str(path)) for path in ours)
    others = (tmp_path / "train.py", tmp_path / "driver.py", tmp_path / "missing/minitx")
    assert not any(is_our_program(str(path)) for path in others)
    monkeypatch.chdir(PACKAGE)
    assert not any(map(is_our_program, ("<stdin>", "<string>", "<python-input-0>")))


def test_a_program_that_another_calls_is_not_restarted(tmp_path: Path) -> None:
    """runpy makes a script believe to be the program: here that is pytest."""
    script = tmp_path / "minitx"
    script.write_text("import sys; from minitx.training.process import is_our_program, program\n"
                      "claims = sys.argv[0], __name__, sys.modules['__main__'].__file__\n"
                      "restarts = is_our_program(program())")
    values = runpy.run_path(str(script), run_name="__main__")
    assert (values["claims"], values["restarts"]) == ((str(script), "__main__", str(script)), False)


OURS = """\
import json, os, sys; print('begins', sys.argv[1:], sys.warnoptions, flush=True)
from minitx.config.schema import Config; from minitx.config.fields import parse
from minitx.training.process import tune_allocator
tune_allocator(parse(Config, json.loads({config!r})))
print(os.environ.get('MALLOC_TOP_PAD_')); sys.exit(7)
"""


@pytest.mark.slow
@pytest.mark.skipif(not process._glibc(), reason="the setting is glibc's")
@pytest.mark.parametrize(("name", "chosen", "begins"), [
    ("minitx", {}, 2), ("minitx", {"MALLOC_ARENA_MAX": "2"}, 1), ("minitx", {"GLIBC_TUNABLES": ""}, 1),
    ("driver.py", {}, 1), ("-", {}, 1)])
def test_the_process_restarts_once_with_the_same_words(name: str, chosen: dict[str, str], begins: int,
                                                       tmp_path: Path) -> None:
    """Words, interpreter options and exit code are those of the first process; the user's own MALLOC_* win.

    A script that is not ours, or comes through stdin, goes on without.
    """
    script = OURS.format(config=json.dumps(as_dict(compose(["trainer.accelerator=cpu"]))))
    (tmp_path / name).write_text(script)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "MINITX_", "GLIBC_"))} | chosen
    command = [sys.executable, "-W", "once", "-" if name == "-" else str(tmp_path / name), "a b"]
    done = subprocess.run(command, env=env, input=script, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["begins ['a b'] ['once']"] * begins + ["268435456" if begins == 2 else "None"]
    assert done.returncode == 7, done.stderr


TRAINS = """\
import sys, types
stub = types.ModuleType("minitx.training.train")
stub.train = lambda cfg: print("TRAINS", cfg.seed, flush=True) or 4
sys.modules["minitx.training.train"] = stub
"""


@pytest.mark.slow
def test_a_script_that_comes_through_stdin_trains(tmp_path: Path) -> None:
    script = TRAINS + (PACKAGE.parents[1] / "train.py").read_text()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "MINITX_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-", "seed=5"], env=env, input=script, cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert (done.stdout, done.returncode) == ("TRAINS 5\n", 4), done.stderr
