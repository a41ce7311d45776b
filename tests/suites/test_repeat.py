"""The command told of a run is the shortest that composes to the same config."""

import shlex
from dataclasses import replace

import pytest

from minitx.config import resolve_size
from minitx.door import compose
from minitx.errors import UserError
from minitx.suites.repeat import command_line


@pytest.mark.parametrize(("typed", "told"), [
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
def test_the_command_is_found_again(typed: str, told: str) -> None:
    cfg = compose(shlex.split(typed))
    assert command_line(cfg) == command_line(replace(cfg, model=resolve_size(cfg.model))) == f"python train.py {told}"


def test_a_config_of_no_experiment_is_refused() -> None:
    cfg = compose([])
    with pytest.raises(UserError, match="experiment=gone: no such option"):
        command_line(replace(cfg, choices=replace(cfg.choices, experiment="gone")))


def test_the_text_need_not_be_there_any_more() -> None:
    cfg = compose(["experiment=multi30k_en_de", "data.dir=no/such", "data.tgt=fr"], text=False)
    assert command_line(cfg) == "python train.py experiment=multi30k_en_de data.tgt=fr"
