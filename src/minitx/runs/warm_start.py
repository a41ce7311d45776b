"""Begin with the weights and vocabulary of another run: checked before torch is imported."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minitx.config.fields import parse, show
from minitx.config.saved import read_settings
from minitx.config.schema import Config, ModelConfig, TokenizerConfig, resolve_size
from minitx.utils.errors import UserError

# Keys of `model` that trained weights do not depend on, widths being written out.
SHAPELESS = ("dropout", "size", "cell_loop", "window")


def adopt(cfg: Config) -> Config:
    """Return `cfg` with the tokenizer settings of the run it starts from.

    A run that resumes from its own checkpoint no longer needs that run.
    Errors: `UserError` if that is no run with weights, or its weights or its vocabulary are not those asked for.
    """
    if cfg.init_from is None:
        return cfg
    own = None if cfg.run_dir is None else Path(cfg.run_dir)
    if own is not None and (own / "config.yaml").is_file() and any((own / "checkpoints").glob("step-*.safetensors")):
        return replace(cfg, tokenizer=_tokenizer(cfg, _read(own, cfg.init_from)))
    donor = Path(cfg.init_from)
    values = _read(donor, cfg.init_from)
    for name, files in (("model.safetensors", "model.safetensors"), ("tokenizer.json", "tokenizer*.json")):
        if not any(donor.glob(files)):
            raise UserError(f"init_from={donor}: has no {name} to begin with")
    _refuse_other_shapes(cfg, values)
    return replace(cfg, tokenizer=_tokenizer(cfg, values))


def _read(run_dir: Path, asked: str) -> dict[str, Any]:
    try:
        values = read_settings(run_dir)
    except UserError as slip:
        raise UserError(f"init_from={asked}: {slip}") from slip
    if not {"data", "model", "tokenizer", "choices"} <= values.keys():
        raise UserError(f"init_from={asked}: its config.yaml is not that of a run")
    return values


def _tokenizer(cfg: Config, values: dict[str, Any]) -> TokenizerConfig:
    """Return a run's tokenizer settings. Errors: `UserError` if others are asked for than the text recommends."""
    asked, theirs = cfg.tokenizer, parse(TokenizerConfig, values["tokenizer"], "tokenizer.")
    other = [name for name, differs in (
        ("vocab_size", asked.vocab_size not in (theirs.vocab_size, cfg.data.recommends.vocab_size)),
        ("joint", theirs.joint and not asked.joint)) if differs]
    for name in other:
        was, wanted = show(getattr(theirs, name)), show(getattr(asked, name))
        raise UserError(f"init_from={cfg.init_from}: its vocabulary is of tokenizer.{name}={was}, asked was {wanted}; "
                        f"write tokenizer.{name}={was}")
    return theirs


def _refuse_other_shapes(cfg: Config, values: dict[str, Any]) -> None:
    asked = asdict(resolve_size(cfg.model))
    try:
        theirs = asdict(resolve_size(parse(ModelConfig, values["model"], "model.")))
    except UserError as slip:
        raise UserError(f"init_from={cfg.init_from}: a model that this version does not know: {slip}") from slip
    if asked["family"] != theirs["family"]:
        raise UserError(f"init_from={cfg.init_from}: its weights are of model.family={theirs['family']}, asked was "
                        f"{asked['family']}; write model={values['choices']['model']}")
    free = SHAPELESS if theirs.get("pos_encoding") == "learned" else (*SHAPELESS, "max_positions")
    differ = {name: value for name, value in theirs.items() if name not in free and asked[name] != value}
    if differ:
        lines = [f"model.{name}: is {show(value)} there, asked {show(asked[name])}" for name, value in differ.items()]
        words = " ".join(f"model.{name}={show(value)}" for name, value in differ.items())
        raise UserError("\n  ".join([f"init_from={cfg.init_from}: its weights are those of another network; write "
                                     f"{words}", *lines]))
