"""Composing: the same words once, unless they name a folder of the user's."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from minitx.config import compose as composing
from minitx.config.compose import CONF, NOT_OF_A_RUN, arguments, compose, config_groups, hydra_app
from minitx.config.fields import text_word
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


def test_groups_are_those_that_hydra_lists(tmp_path: Path) -> None:
    (tmp_path / "experiment/own").mkdir(parents=True)
    (tmp_path / "experiment/own/mine.yaml").touch()
    with hydra_app(arguments(["--config-dir", str(tmp_path)])) as app:
        groups = {name: app.config_loader.get_group_options(name) for name in app.list_all_config_groups()}
        assert groups["experiment/own"] == ["mine"]
        assert config_groups(app) == {name: options for name, options in groups.items()
                                      if name.partition("/")[0] not in NOT_OF_A_RUN}


def test_a_folder_of_ones_own_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for seed in (5, 6):
        (tmp_path / "experiment/mine.yaml").write_text(f"# @package _global_\nseed: {seed}\n")
        assert compose(["--config-dir", str(tmp_path), "experiment=mine"]).seed == seed


def test_nothing_but_words_decides() -> None:
    """Else the same words could mean another config later."""
    assert not [path for path in CONF.rglob("*.yaml") if "oc.env" in path.read_text(encoding="utf-8")]


def value_of(word: str) -> object:
    """Read a word as train.py does."""
    (override,) = arguments([word]).overrides
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize("text", [
    "runs/läufe", "runs/試", "~x/y", "a [1] (b)", "a b", "it's", 'a "b"', "a,b", "#1", "C:\\runs\\",
    "a\\'b", "2024_05", "a=b", "1e5", "Null", "true", "a{b}", "!&;<>|*?"])
def test_a_text_comes_back_as_it_was(text: str) -> None:
    assert value_of(text_word("run_dir", text)) == text
    if not {"'", '"', ","} & set(text) and text != "Null":
        assert value_of(f"run_dir={text}") == text, "no quotes are needed"


@pytest.mark.parametrize("word", ["run_dir='a", 'run_dir="a', "run_dir=ä,b"])
def test_quotes_that_do_not_close_and_several_values_are_refused(word: str) -> None:
    with pytest.raises(UserError, match="write key=value, and quote special characters$"):
        compose([word])


@pytest.mark.parametrize("quote", ["", "'"])
def test_a_tilde_is_the_home_folder(quote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    words = [f"{name}={quote}~/{name}{quote}" for name in ("run_dir", "init_from", "data.dir")]
    cfg = compose(["data=files", *words])
    assert (cfg.run_dir, cfg.init_from, cfg.data.dir) == ("/home/a/run_dir", "/home/a/init_from", "/home/a/data.dir")


def test_a_folder_of_ones_own_may_be_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_text("# @package _global_\nseed: 77\n")
    assert compose(["--config-dir=~/mine", "experiment=own"]).seed == 77
