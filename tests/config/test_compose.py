"""Composing: the same words once, unless they name a folder of the user's."""

from pathlib import Path

import pytest

from minitx.config import compose as composing
from minitx.config.compose import CONF, compose
from minitx.utils.errors import UserError


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that Hydra composed."""
    composed: list[list[str]] = []
    plain = composing.compose_job

    def counted(app: object, args: object, overrides: list[str]) -> object:
        composed.append(list(overrides))
        return plain(app, args, overrides)  # type: ignore[arg-type]

    monkeypatch.setattr(composing, "compose_job", counted)
    composing._compose_once.cache_clear()
    return composed


def test_the_same_words_are_composed_once(jobs: list[list[str]]) -> None:
    first = compose(["model=lstm", "seed=7"])
    assert compose(("model=lstm", "seed=7")) is first
    assert compose(["seed=7", "model=lstm"]) == first, "another order is another command line"
    assert jobs == [["model=lstm", "seed=7"], ["seed=7", "model=lstm"]]


def test_what_is_refused_is_refused_each_time(jobs: list[list[str]]) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="unknown key sead=7"):
            compose(["sead=7"])
    assert len(jobs) == 2


def test_a_folder_of_ones_own_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for seed in (5, 6):
        (tmp_path / "experiment/mine.yaml").write_text(f"# @package _global_\nseed: {seed}\n")
        assert compose(["--config-dir", str(tmp_path), "experiment=mine"]).seed == seed


def test_nothing_but_words_decides() -> None:
    """Else the same words could mean another config later."""
    assert not [path for path in CONF.rglob("*.yaml") if "oc.env" in path.read_text(encoding="utf-8")]
