"""The schema: types, ranges, names and settings that are wrong together."""

import hashlib
import json
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, get_type_hints

import pytest

from minitx.config.compose import compose
from minitx.config.fields import SYNONYMS, allowed, keys, nearest, parse, show
from minitx.config.schema import (
    Config,
    ModelConfig,
    TransformerConfig,
    as_dict,
    check,
    config_sha256,
    resolve_size,
)
from minitx.utils.errors import UserError


@pytest.fixture(scope="module")
def cfg() -> Config:
    return compose([])


def changed(cfg: Config, **changes: Any) -> Config:
    """Replace `group__key=value`."""
    values = as_dict(cfg)
    for path, value in changes.items():
        *groups, name = path.split("__")
        node = values
        for group in groups:
            node = node[group]
        node[name] = value
    return parse(Config, values)


def test_as_dict_and_parse_are_inverse(cfg: Config) -> None:
    assert parse(Config, as_dict(cfg)) == cfg


def dataclasses(cls: type[Any]) -> set[type[Any]]:
    hints = [kind for kind in get_type_hints(cls).values() if is_dataclass(kind)]
    return {cls}.union(*(dataclasses(kind) for kind in hints))  # type: ignore[arg-type]


def test_no_key_has_a_default_and_each_has_a_doc() -> None:
    for cls in dataclasses(Config) | set(ModelConfig.members.values()):
        for spec in fields(cls):
            assert spec.default is MISSING
            assert spec.default_factory is MISSING
            assert spec.metadata["doc"]


@pytest.mark.parametrize(("change", "line"), [
    ({"optim__lr": "fast"}, "optim.lr=fast: must be a number (peak learning rate of AdamW)"),
    ({"optim__lr": 0}, "optim.lr=0.0: must be greater than 0 (peak learning rate of AdamW)"),
    ({"optim__lr": float("nan")}, "optim.lr=nan: must be a number (peak learning rate of AdamW)"),
    ({"model__dropout": 1.0}, "model.dropout=1.0: must be less than 1 "
                              "(dropout probability)"),
    ({"trainer__max_steps": 1.5}, "trainer.max_steps=1.5: must be a whole number "
                                  "(stop after this many optimizer steps)"),
    ({"trainer__max_steps": True}, "trainer.max_steps=true: must be a whole number "
                                   "(stop after this many optimizer steps)"),
    ({"debug": 1}, "debug=1: must be true or false (show the traceback of a user's mistake too)"),
    ({"seed": None}, "seed=null: must be a whole number (seed of weights, order and dropout)"),
    ({"data__test_sets": "test"}, "data.test_sets=test: must be a list, like [a,b] "
                                  "(test sets to score; null = all (synthetic text: test and minimal_pairs))"),
    ({"data__test_sets": [1]}, "data.test_sets=1: must be text, in quotes if it looks like a number (test sets to "
                               "score; null = all (synthetic text: test and minimal_pairs))"),
    ({"optim__shedule": "wsd"}, "unknown key optim.shedule=wsd; did you mean optim.schedule?"),
    ({"optim": 3}, "optim=3: is a group of keys, not a value"),
    ({"model__size": "smal"}, "model.size=smal: must be one of toy, tiny, small, base, big; did you mean small?"),
    ({"model__family": "lstn"}, "model.family=lstn: must be one of transformer, lstm, gnmt, linear_rnn; did you "
                                "mean lstm?"),
])  # fmt: skip
def test_a_wrong_value_is_named_in_one_line(cfg: Config, change: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(cfg, **change)
    assert str(caught.value) == line


def test_a_missing_key_is_named(cfg: Config) -> None:
    values = as_dict(cfg)
    del values["optim"]["lr"]
    with pytest.raises(UserError, match=r"^optim\.lr is missing: peak learning rate"):
        parse(Config, values)


OPTIONAL = {"data__bleu_tokenizer": "char", "checkpoint__average": 2, "trainer__max_pflop": 1.5,
            "model__cell_loop": True, "model__window": 9, "trainer__compile": True,
            "trainer__activation_checkpointing": True}


def test_optional_keys_are_listed() -> None:
    assert {name.replace(".", "__") for name, spec in keys(Config).items() if spec["optional"]} == set(OPTIONAL)


@pytest.mark.parametrize("option", ["lstm", "transformer"])
def test_an_optional_key_may_be_missing_and_is_hashed_only_if_it_is_set(option: str) -> None:
    cfg = compose([f"model={option}"])
    older = as_dict(cfg)
    own = {path: value for path, value in OPTIONAL.items() if path.split("__")[1] in older[path.split("__")[0]]}
    assert {path for path in OPTIONAL if not path.startswith("model__")} < own.keys()
    for path in own:
        group, name = path.split("__")
        del older[group][name]
    assert parse(Config, older) == cfg
    older["data"]["dir"] = older["trainer"]["price_per_hour"] = None
    hashed = {name: value for name, value in older.items() if name not in ("run_dir", "resume", "debug", "logger")}
    assert config_sha256(cfg) == hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
    others = {config_sha256(changed(cfg, **{path: value})) for path, value in own.items()}
    assert len(others | {config_sha256(cfg)}) == len(own) + 1


@pytest.mark.parametrize(("change", "both"), [
    ({"trainer__max_steps": None}, ("trainer.max_steps", "trainer.max_minutes")),
    ({"trainer__max_steps": None, "trainer__patience": 3}, ("optim.schedule", "trainer.max_steps")),
    ({"checkpoint__average": 3}, ("checkpoint.average", "checkpoint.keep")),
    ({"trainer__horizon_steps": 5}, ("trainer.horizon_steps", "trainer.max_steps")),
    ({"trainer__max_steps": None, "trainer__target_bleu": 30.0, "trainer__stop_at_target": False},
     ("trainer.max_steps", "trainer.target_bleu")),
    ({"data__dir": "text"}, ("data.dir", "data=files")),
    ({"data__tgt": "en"}, ("data.tgt", "data.src")),
    ({"data__max_length": 4000}, ("data.max_length", "data.max_tokens")),
    ({"tokenizer__joint": False}, ("tokenizer.joint", "model.tie_embeddings")),
    ({"model__n_heads": 3}, ("model.n_heads", "model.d_model")),
    ({"model__n_heads": 128}, ("model.n_heads", "model.d_model")),
    ({"model__pos_encoding": "learned", "model__window": 1024}, ("model.window", "model.max_positions")),
    ({"resume": "auto"}, ("resume", "run_dir")),
    ({"trainer__activation_checkpointing": True, "trainer__compile": True},
     ("trainer.activation_checkpointing", "trainer.compile")),
    ({"trainer__accelerator": "mps", "trainer__devices": 2}, ("trainer.accelerator", "trainer.devices")),
    ({"trainer__accelerator": "mps", "trainer__precision": "64-true"}, ("trainer.accelerator", "trainer.precision")),
    ({"trainer__accelerator": "mps", "trainer__activation_checkpointing": True, "model__dropout": 0.1},
     ("trainer.accelerator", "trainer.activation_checkpointing")),
])  # fmt: skip
def test_settings_that_are_wrong_together_name_both_keys(
    cfg: Config, change: dict[str, Any], both: tuple[str, str]
) -> None:
    check(cfg)
    with pytest.raises(UserError) as caught:
        check(changed(cfg, **change))
    assert all(key in str(caught.value) for key in both)


def test_a_key_of_several_families_is_declared_alike() -> None:
    """It has one line in the reference."""
    specs = [(spec.name, spec.type, dict(spec.metadata)) for member in ModelConfig.members.values()
             for spec in fields(member)]
    assert all(one == other for one in specs for other in specs if one[0] == other[0])


def test_a_single_layer_of_gnmt_is_refused() -> None:
    with pytest.raises(UserError, match=r"^model\.num_layers=1: must be at least 2 for model\.family=gnmt"):
        compose(["model=gnmt", "model.num_layers=1"])


def test_a_width_of_ones_own_wins_over_the_size(cfg: Config) -> None:
    assert isinstance(cfg.model, TransformerConfig)
    resolved = resolve_size(replace(cfg.model, size="small", d_ff=96))
    assert (resolved.num_layers, resolved.d_model, resolved.d_ff, resolved.n_heads) == (3, 256, 96, 4)


def test_sizes_are_those_of_the_papers() -> None:
    widths = ("num_layers", "d_model", "d_ff", "n_heads")
    base, big = TransformerConfig.sizes["base"], TransformerConfig.sizes["big"]  # Vaswani et al. 2017, table 3
    assert [base[name] for name in widths] == [6, 512, 2048, 8]
    assert [big[name] for name in widths] == [6, 1024, 4096, 16]


def test_keys_are_all_keys_of_a_config(cfg: Config) -> None:
    def flat(values: dict[str, Any], path: str = "") -> set[str]:
        nested = [flat(v, f"{path}{k}.") if isinstance(v, dict) else {path + k} for k, v in values.items()]
        return set().union(*nested)

    of_other_families = {f"model.{spec.name}" for member in ModelConfig.members.values() for spec in fields(member)}
    assert set(keys(Config)) - flat(as_dict(cfg)) == of_other_families - flat(as_dict(cfg))
    assert flat(as_dict(cfg)) <= set(keys(Config))


OUTSIDE = """model.size model.pos_encoding model.dropout data.dir data.src data.tgt data.seed
    data.max_tokens tokenizer.vocab_size seed run_dir resume debug optim.lr decode.beam_size decode.length_penalty
    checkpoint.every_n_steps trainer.accelerator trainer.devices trainer.threads trainer.precision
    trainer.tokens_per_update trainer.max_steps trainer.max_minutes trainer.target_bleu"""


def test_names_that_outside_scripts_rely_on() -> None:
    assert set(OUTSIDE.split()) <= set(keys(Config))


def test_what_others_call_a_key_is_none_of_ours_and_means_one() -> None:
    last_words = {name.rpartition(".")[2] for name in keys(Config)}
    assert not SYNONYMS.keys() & last_words
    assert set(SYNONYMS.values()) <= last_words


def test_small_words() -> None:
    assert show([None, True, 1.5, "a"]) == "[null,true,1.5,a]"
    assert show({"a": False}) == "{a:false}"
    assert nearest("dropuot", ["dropout", "size"]) == "; did you mean dropout?"
    assert nearest("zzz", ["dropout", "size"]) == ""
    assert nearest("rope", ["lstm", "ropes", "transformer_rope"]) == "; did you mean transformer_rope?"
    assert nearest("2018", ["test_2018_cut", "test_2018"]) == "; did you mean test_2018?"
    assert nearest("gpus", ["threads", "devices"]) == "; did you mean devices?"
    assert nearest("gpus", ["cpus", "threads"]) == "; did you mean cpus?"
    assert allowed(keys(Config)["model.dropout"]) == " [>= 0, < 1]"
    assert allowed(keys(Config)["resume"]) == " [never, auto]"
    assert allowed(keys(Config)["debug"]) == ""
