"""What holds for every test: no deadlines, since a busy machine is no bug; no network."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from zygote import Zygote

settings.register_profile("full", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)  # make test
settings.load_profile("full")
os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


TESTS = Path(__file__).parent
LONGEST = (  # files that take minutes with their slow tests, the longest first: the last to end should be short ones
    "test_pages.py", "system/test_ranks.py", "system/test_elastic.py", "training/test_compilation.py",
    "system/test_compiled.py", "test_cuda_branches.py", "system/test_run.py", "system/test_kill.py",
    "system/test_learning.py", "test_gpu_run.py", "profiling/test_fake_cuda.py",
    "experiments/prediction/test_update.py", "system/test_wheel.py", "experiments/studies/test_gpu.py",
    "experiments/prediction/test_validation.py", "data/synthetic/test_text.py", "system/test_fp16.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    if missing := [str(path) for path in places if not path.is_file()]:
        raise pytest.UsageError(f"tests/conftest.py: LONGEST names files that are not there: {', '.join(missing)}")
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name compressed bytes: they hold the time, and the processes of a run must agree on each test's name."""
    return "gzip" if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with an untrained model."""
    from served import write_run

    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Zygote]":
    """The process that commands are forked from."""
    from zygote import Zygote

    process = Zygote(tmp_path_factory.mktemp("zygote"))
    yield process
    process.close()


@pytest.fixture
def shouter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands load a stub that translates into upper case, and English."""
    from served import Shouter

    text = SimpleNamespace(tgt="en", bleu_tokenizer=None)
    monkeypatch.setattr("minitx.cli.evaluate.read_origin", lambda run_dir: text)

    for command in ("translate", "evaluate"):
        monkeypatch.setattr(f"minitx.cli.{command}.load", lambda *asked: Shouter(*asked))
