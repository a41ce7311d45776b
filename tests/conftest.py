"""What holds for every test: no deadlines, since a busy machine is no bug; no network."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

settings.register_profile("minitx", deadline=None)
settings.load_profile("minitx")
os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose model knows nothing."""
    from served import write_run

    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def shouter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands load a stub that translates into upper case, and English."""
    from served import Shouter

    text = SimpleNamespace(tgt="en", bleu_tokenizer=None)
    monkeypatch.setattr("minitx.cli.evaluate.read_config", lambda run_dir: SimpleNamespace(data=text))

    for command in ("translate", "evaluate"):
        monkeypatch.setattr(f"minitx.cli.{command}.load", lambda *asked: Shouter(*asked))
