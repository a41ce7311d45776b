"""Every yaml under conf/ composes into a checked config: a new file is covered the moment it exists."""

import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from toys import ROOT

from minitx.config.compose import CONF, compose
from minitx.config.fields import keys
from minitx.config.schema import Config, ModelConfig, config_sha256, resolve_size
from minitx.experiments.reports.results import read_rows

FILES = sorted(CONF.rglob("*.yaml"))
OPTIONS = [(path.parent.name, path.stem) for path in FILES if path.parent not in (CONF, CONF / "suite")]
# Rows that were trained before some keys were there: the beginning of what their commands have composed to since then.
OLDER = {"synthetic_lstm": "c027a0eb76470697", "synthetic_lstm_attention": "52345fc685ed9849",
         "synthetic_transformer": "6affae04190550d1", "synthetic_transformer_nope": "6eab2b487c78e240",
         "multi30k_30min_transformer": "83bc29ced60a4870", "multi30k_30min_lstm_attention": "ccbd0db05e23837b"}


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_each_option_composes_and_passes_every_check(group: str, option: str, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bible-en-fr").mkdir()
    monkeypatch.setenv("MINITX_DATA", str(tmp_path))
    needs = [f"data.dir={tmp_path}"] if option == "files" else []
    cfg = compose([f"{group}={option}", *needs])
    if group in ("data", "model", "experiment"):
        assert getattr(cfg.choices, group) == option


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_each_chapter_is_short_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    says = lines[1] if lines[0] == "# @package _global_" else lines[0]
    assert says.startswith("# ")
    if path.parent != CONF:
        assert len(lines) <= 25
        assert len(says) <= 110


def test_what_a_data_set_recommends_is_a_default_and_no_more() -> None:
    small = compose(["data=multi30k"])
    recommended = small.data.recommends
    assert small.model.size == recommended.model_size == "small"
    assert small.model.dropout == recommended.dropout
    assert small.tokenizer.vocab_size == recommended.vocab_size == 8000
    assert small.trainer.tokens_per_update == recommended.tokens_per_update
    assert small.trainer.max_steps == recommended.max_steps
    assert small.optim.lr == recommended.lr
    assert small.optim.warmup_steps == recommended.warmup_steps
    assert compose(["data=multi30k", "model.size=base"]).model.size == "base"
    assert compose([]).model.size == "tiny"


def test_nope_is_the_transformer_but_for_positions() -> None:
    with_positions, without = compose([]), compose(["model=transformer_nope"])
    assert without.model.pos_encoding == "none"
    assert with_positions.model.pos_encoding == "sinusoidal"
    assert yaml.safe_load((CONF / "model/transformer_nope.yaml").read_text()) == {
        "defaults": ["transformer", "_self_"], "pos_encoding": "none"}  # fmt: skip


def test_experiments_differ_by_what_their_name_says() -> None:
    german, french = compose(["experiment=multi30k_en_de"]), compose(["experiment=multi30k_en_fr"])
    assert (german.data.tgt, french.data.tgt) == ("de", "fr")
    assert french.trainer == german.trainer
    assert german.trainer.max_minutes == 15
    assert german.trainer.max_steps is None
    assert french.choices.data == "multi30k"


def test_experiments_can_be_stacked_and_are_reported_together() -> None:
    cfg = compose(["experiment=[multi30k_en_de,quick]"])
    assert cfg.choices.experiment == "multi30k_en_de+quick"
    assert cfg.data.source == "hub"
    assert cfg.trainer.max_steps == 20


def test_the_command_line_wins_over_an_experiment() -> None:
    assert compose(["experiment=multi30k_en_de", "trainer.max_minutes=2", "model=transformer_nope"]).choices.model == (
        "transformer_nope")  # fmt: skip


def test_what_was_published_composes_to_the_config_it_was_trained_with() -> None:
    """Where a data set comes to recommend other settings, experiments with published rows write down the old ones."""
    rows = {row.result.system: row for row in reversed(read_rows(ROOT / "results"))}
    assert {"synthetic_transformer", "positions_all.transformer"} <= rows.keys()
    for row in rows.values():
        cfg = compose(shlex.split(row.command)[2:])
        composed = config_sha256(replace(cfg, model=resolve_size(cfg.model)))
        assert composed.startswith(OLDER.get(row.result.system, row.result.config_sha256)), row.command


@pytest.mark.parametrize("name", ["2024_05", "1e3", "007", "-5", "true", "nan", "2024-05", "runs/7"])
def test_text_is_taken_as_it_is_written(name: str) -> None:
    cfg = compose([f"run_dir={name}", f"+init_from={name}", "data=files", f"data.dir={name}", f"data.tgt={name}"])
    assert (cfg.run_dir, cfg.init_from, cfg.data.dir, cfg.data.tgt) == (name, name, name, name)
    assert compose(["run_dir=null"]).run_dir is None


@pytest.mark.parametrize("name", [name for name, spec in keys(Config).items() if spec["optional"]])
def test_conf_has_the_keys_that_a_config_may_lack(name: str) -> None:
    """Of the models, those of the families that have it."""
    group, _, leaf = name.partition(".")
    having = {family for family, member in ModelConfig.members.items() if leaf in {key.name for key in fields(member)}}
    options = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (CONF / group).glob("*.yaml")]
    options = [settings for settings in options if "defaults" not in settings
               and (group != "model" or settings["family"] in having)]
    assert options
    assert all(leaf in settings for settings in options)


def test_interpolation_names_a_run_by_what_it_is() -> None:
    assert compose(["run_dir=runs/${choices.model}-${seed}", "seed=7"]).run_dir == "runs/transformer-7"
