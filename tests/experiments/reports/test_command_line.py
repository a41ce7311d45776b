"""A run's command is the shortest that composes to the same config."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from published import write_run

from minitx.config.compose import compose
from minitx.config.schema import resolve_size
from minitx.experiments.reports.command_line import command_line, exact_command
from minitx.runs.result import Result
from minitx.utils.errors import UserError


@pytest.mark.parametrize(("typed", "shortest"), [
    ("experiment=quick run_dir=/tmp/mine logger=wandb debug=true", "experiment=quick"),
    ("data.tgt=fr experiment=multi30k_en_de seed=3", "experiment=multi30k_en_de seed=3 data.tgt=fr"),
    ("experiment=synthetic_lstm model=transformer model.size=toy",
     "experiment=synthetic_lstm model=transformer model.size=toy"),
    ("experiment=quick data.test_sets=[test,minimal_pairs] optim.clip_norm=null",
     "experiment=quick 'data.test_sets=[test,minimal_pairs]' optim.clip_norm=null"),
    ("experiment=quick data.recommends.lr=0.01 trainer.max_steps=null trainer.max_minutes=3.5",
     "experiment=quick data.recommends.lr=0.01 trainer.max_steps=null trainer.max_minutes=3.5"),
    ("experiment=multi30k_30min_lstm model.size=small", "experiment=multi30k_30min_lstm"),
])  # fmt: skip
def test_the_command_is_found_again(typed: str, shortest: str) -> None:
    cfg = compose(shlex.split(typed))
    for same in (cfg, replace(cfg, model=resolve_size(cfg.model))):
        assert command_line(same) == f"python train.py {shortest}"


@pytest.mark.parametrize(("typed", "result", "repeats"), [
    ("experiment=headline_small model=lstm", {"steps": 900, "horizon_steps": 920},
     "experiment=headline_small model=lstm trainer.precision=bf16-mixed trainer.max_steps=900 "
     "trainer.max_minutes=null trainer.horizon_steps=920"),
    ("experiment=headline_small trainer.threads=1 seed=2", {"steps": 900, "horizon_steps": 900, "threads": 1},
     "experiment=headline_small trainer.threads=1 seed=2 trainer.precision=bf16-mixed trainer.max_steps=900 "
     "trainer.max_minutes=null"),
    ("experiment=headline_small", {"steps": 9, "horizon_steps": None},
     "experiment=headline_small trainer.precision=bf16-mixed trainer.max_steps=9 trainer.max_minutes=null "
     "trainer.horizon_steps=90"),
    ("experiment=synthetic_lstm trainer.precision=bf16-mixed", {"steps": 800, "horizon_steps": 800},
     "experiment=synthetic_lstm trainer.precision=bf16-mixed"),
    ("experiment=synthetic_lstm trainer.patience=3 trainer.max_steps=1000", {"steps": 500, "horizon_steps": 1000},
     "experiment=synthetic_lstm trainer.patience=3 trainer.precision=bf16-mixed trainer.max_steps=500 "
     "trainer.horizon_steps=1000"),
])  # fmt: skip
def test_a_command_that_repeats_a_run_says_what_the_run_decided(typed: str, result: dict[str, int], repeats: str,
                                                                tmp_path: Path) -> None:
    write_run(tmp_path / "run", **{"precision": "bf16-mixed", "threads": 2, **result})
    again = exact_command(f"python train.py {typed}", Result.read(tmp_path / "run/result.json"))
    words = shlex.split(again)[2:]
    assert [word for word in words if not word.startswith("trainer.threads=2")] == shlex.split(repeats)
    trainer = compose(words).trainer
    assert (trainer.max_steps, trainer.precision) == (result["steps"], "bf16-mixed")
    assert trainer.threads == result.get("threads", 2)


def test_a_cosine_that_followed_a_clock_is_not_repeated(tmp_path: Path) -> None:
    write_run(tmp_path / "run", horizon_steps=900)
    with pytest.raises(UserError, match="a decay over minutes or operations from the start is not repeated"):
        exact_command("python train.py experiment=headline_small optim.schedule=cosine",
                Result.read(tmp_path / "run/result.json"))


def test_a_config_of_no_experiment_is_refused() -> None:
    cfg = compose([])
    with pytest.raises(UserError, match="experiment=gone: no such option"):
        command_line(replace(cfg, choices=replace(cfg.choices, experiment="gone")))


def test_the_text_need_not_be_there_any_more() -> None:
    cfg = compose(["experiment=multi30k_en_de", "data.dir=no/such", "data.tgt=fr"])
    assert command_line(cfg) == "python train.py experiment=multi30k_en_de data.tgt=fr"
