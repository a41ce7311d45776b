"""The schema of a run: one dataclass per config group and per model family; types, units and ranges, no torch.

Values live in `conf/*.yaml` alone, so a dataclass has no defaults: a key in one and not in the other is an error.
`parse` turns the composed, resolved mapping into these classes and checks it; `as_dict` is its inverse.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from math import isfinite
from operator import ge, gt, le, lt
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from minitx.errors import UserError


def key(doc: str, *, choices: tuple[str, ...] = (), **bounds: float) -> Any:
    """Declare a config key: what it means, and the values it may take (`ge`, `gt`, `le`, `lt`)."""
    return field(metadata={"doc": doc, "choices": choices, "bounds": bounds})


@dataclass(frozen=True, kw_only=True)
class RecommendsConfig:
    model_size: str = key("size that suits this much text", choices=("tiny", "small", "base", "big"))
    vocab_size: int | None = key("tokenizer entries; null = what the data supports, at most 8,000", ge=260, le=65_536)
    tokens_per_update: int = key("non-padding target tokens an optimizer step", ge=1)
    max_steps: int = key("optimizer steps", ge=1)
    lr: float = key("peak learning rate", gt=0)
    dropout: float = key("dropout probability", ge=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    source: str = key("where pairs come from", choices=("synthetic", "files", "hub"))
    src: str = key("source language, as in the file names")
    tgt: str = key("target language, as in the file names")
    dir: str | None = key("folder with {split}.{lang}[.gz], .tsv, .jsonl or .parquet files")
    folder: str | None = key("sub-folder of $MINITX_DATA that is looked in before the hub")
    hub_id: str | None = key("data set on the Hugging Face hub")
    seed: int = key("seed of the synthetic text, apart from the run's seed", ge=0)
    train_size: int = key("training pairs of the synthetic text", ge=1)
    test_sets: list[str] | None = key("test sets to score; null = all, but synthetic length sets")
    max_tokens: int = key("padded positions a micro-batch, B * max(S, T), never exceeded", ge=8)
    max_length: int = key("training pairs with a longer side (tokens with EOS) are left out, and counted", ge=2)
    pad_to_multiple: int = key("widths of batches are rounded up to this", ge=1)
    recommends: RecommendsConfig = key("what suits this text; experiments and the command line override it")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    vocab_size: int | None = key("entries, bytes and specials included; null = what the data supports, at most 8,000",
                                 ge=260, le=65_536)
    joint: bool = key("one vocabulary for both languages; tied embeddings need it")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Widths left null are those of `size`; `resolve_size` fills them in."""

    family: str = key("model family", choices=("transformer",))
    size: str = key("widths and depth by name", choices=("tiny", "small", "base", "big"))
    num_layers: int | None = key("encoder layers, and as many decoder layers", ge=1)
    d_model: int | None = key("width of the residual stream", ge=2)
    d_ff: int | None = key("width of the feed-forward layer", ge=1)
    n_heads: int | None = key("attention heads; divides d_model", ge=1)
    dropout: float = key("probability, on embeddings and on each sub-layer's output", ge=0, lt=1)
    pos_encoding: str = key("how positions are told apart", choices=("sinusoidal", "learned", "rope", "none"))
    pre_norm: bool = key("normalise before each sub-layer; false = after it, as in 2017")
    tie_embeddings: bool = key("one matrix for source, target and output; needs a joint vocabulary")
    max_positions: int = key("rows of the learned position table; longer inputs are cut", ge=2)


ModelConfig = TransformerConfig
MODEL_CONFIGS: dict[str, type[ModelConfig]] = {"transformer": TransformerConfig}
SIZES: dict[str, dict[str, dict[str, int]]] = {
    "transformer": {
        "tiny": {"num_layers": 2, "d_model": 128, "d_ff": 512, "n_heads": 4},
        "small": {"num_layers": 3, "d_model": 256, "d_ff": 1024, "n_heads": 4},
        "base": {"num_layers": 6, "d_model": 512, "d_ff": 2048, "n_heads": 8},
        "big": {"num_layers": 6, "d_model": 1024, "d_ff": 4096, "n_heads": 16},
    },
}


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    lr: float = key("peak learning rate of AdamW", gt=0)
    beta1: float = key("decay of the first moment", ge=0, lt=1)
    beta2: float = key("decay of the second moment", ge=0, lt=1)
    eps: float = key("added to the root of the second moment", gt=0)
    weight_decay: float = key("decoupled, on matrices only", ge=0)
    label_smoothing: float = key("probability mass spread over the vocabulary", ge=0, lt=1)
    clip_norm: float | None = key("largest global gradient norm; null = no clipping", gt=0)
    schedule: str = key("learning rate over steps", choices=("inverse_sqrt", "cosine", "wsd", "constant"))
    warmup_steps: int = key("linear warm-up", ge=0)
    decay_fraction: float = key("share of the horizon in which wsd decays to 0", gt=0, le=1)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    accelerator: str = key("what to train on; auto = a GPU if there is one", choices=("auto", "cpu", "gpu"))
    devices: int = key("processes, one a device", ge=1)
    threads: int | None = key("CPU threads a rank; null = cores / ranks", ge=1)
    precision: str = key("number format; auto = bf16 where it is fast",
                         choices=("auto", "32-true", "bf16-mixed", "bf16-true", "64-true"))
    tokens_per_update: int = key("non-padding target tokens an optimizer step", ge=1)
    max_steps: int | None = key("stop after so many optimizer steps", ge=1)
    max_minutes: float | None = key("stop after so many minutes of updates, evaluation and saving not counted", gt=0)
    target_bleu: float | None = key("stop when the full validation set reaches this BLEU", gt=0, le=100)
    patience: int | None = key("stop after so many validations without a better BLEU", ge=1)
    valid_every_n_steps: int = key("optimizer steps between validations", ge=1)
    valid_sentences: int = key("fixed subset of the validation set that is decoded each time", ge=1)
    samples: int = key("translations shown at each validation", ge=0)
    log_every_n_steps: int = key("optimizer steps between lines of metrics.jsonl", ge=1)
    max_nonfinite: int = key("non-finite updates (each is skipped) after which the run stops", ge=1)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    every_n_steps: int = key("optimizer steps between checkpoints", ge=1)
    keep: int = key("newest checkpoints that are kept", ge=2)


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    beam_size: int = key("hypotheses kept a sentence; 1 = greedy", ge=1)
    length_penalty: float = key("a of ((5 + length) / 6) ** a (Wu et al. 2016)", ge=0)
    max_tokens: int = key("padded source positions a batch, times beam_size", ge=1)
    max_length_ratio: float = key("longest output: ratio * source tokens + extra", gt=0)
    max_length_extra: int = key("longest output: ratio * source tokens + extra", ge=1)
    max_source_length: int = key("longer sources are cut, with a warning (tokens)", ge=2)


@dataclass(frozen=True, kw_only=True)
class LoggerConfig:
    name: str = key("in addition to metrics.jsonl", choices=("none", "wandb", "tensorboard"))
    project: str = key("wandb project")
    mode: str = key("wandb mode", choices=("offline", "online", "disabled"))


@dataclass(frozen=True, kw_only=True)
class ChoicesConfig:
    """The group options by name, as results report them."""

    data: str = key("option of the group data")
    model: str = key("option of the group model")
    experiment: str | None = key("option of the group experiment")


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = key("seed of weights, order and dropout", ge=0)
    run_dir: str | None = key("where the run lives; null = a new folder under runs/")
    resume: str = key("auto = go on from run_dir's newest good checkpoint", choices=("never", "auto"))
    debug: bool = key("show tracebacks of a user's slip too")
    choices: ChoicesConfig = key("names of the group options")
    data: DataConfig = key("the text")
    tokenizer: TokenizerConfig = key("text <-> ids")
    model: ModelConfig = key("the network")
    optim: OptimConfig = key("AdamW, loss and schedule")
    trainer: TrainerConfig = key("device, length of the run, validation")
    checkpoint: CheckpointConfig = key("what is saved when")
    decode: DecodeConfig = key("search at test time")
    logger: LoggerConfig = key("where metrics go")


C = TypeVar("C")


def parse(cls: type[C], values: Mapping[str, Any], path: str = "") -> C:
    """Build `cls` from a mapping, checking every key, type and range.

    Errors: `UserError` naming the key, the value and, for an unknown name, the nearest valid one.
    """
    if cls is ModelConfig and values.get("family") in MODEL_CONFIGS:
        cls = MODEL_CONFIGS[values["family"]]  # type: ignore[assignment]
    hints = get_type_hints(cls)
    specs = {f.name: f.metadata for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in specs]:
        raise UserError(f"unknown key {path}{unknown[0]}={show(values[unknown[0]])}{nearest(unknown[0], specs, path)}")
    if missing := [name for name in specs if name not in values]:
        raise UserError(f"{path}{missing[0]} is missing: {specs[missing[0]]['doc']}")
    return cls(**{name: _value(hints[name], values[name], path + name, spec) for name, spec in specs.items()})


def _value(kind: Any, value: Any, path: str, spec: Mapping[str, Any]) -> Any:
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind = next(arm for arm in get_args(kind) if arm is not NoneType)
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{path}={show(value)}: is a group of keys, not a value")
        return parse(kind, value, path + ".")  # type: ignore[arg-type]
    if get_origin(kind) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{path}={show(value)}: must be a list, like [a,b] ({spec['doc']})")
        return [_value(get_args(kind)[0], item, path, spec) for item in value]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is float and not isfinite(value)):
        raise UserError(f"{path}={show(value)}: must be {_KINDS[kind]} ({spec['doc']})")
    if spec["choices"] and value not in spec["choices"]:
        raise UserError(f"{path}={value}: must be one of {', '.join(spec['choices'])}{nearest(value, spec['choices'])}")
    for sign, bound in spec["bounds"].items():
        words, holds = _BOUNDS[sign]
        if not holds(value, bound):
            raise UserError(f"{path}={show(value)}: must be {words} {bound:,} ({spec['doc']})")
    return value


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "ge": ("at least", ge), "gt": ("greater than", gt), "le": ("at most", le), "lt": ("less than", lt),
}  # fmt: skip


def show(value: Any) -> str:
    """Write a value as the command line would: null, true, [a,b]."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{show(item)}' for name, item in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def nearest(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """Say which valid name was probably meant, or nothing."""
    close = get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def keys(cls: type[Any] = Config, path: str = "") -> dict[str, Mapping[str, Any]]:
    """Return every dotted key, of every model family, with its doc, choices and bounds."""
    found: dict[str, Mapping[str, Any]] = {}
    hints = get_type_hints(cls)
    for spec in fields(cls):
        groups = MODEL_CONFIGS.values() if spec.name == "model" and cls is Config else [hints[spec.name]]
        for kind in groups:
            found |= keys(kind, f"{path}{spec.name}.") if is_dataclass(kind) else {path + spec.name: spec.metadata}
    return found


def allowed(spec: Mapping[str, Any]) -> str:
    """Say which values a key may take, ready to follow its doc; nothing where its type says all."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    values = [*spec["choices"], *(f"{signs[sign]} {bound:,}" for sign, bound in spec["bounds"].items())]
    return f" [{', '.join(values)}]" if values else ""


def as_dict(cfg: Config) -> dict[str, Any]:
    """Return plain nested dicts, ready for YAML or JSON."""
    return asdict(cfg)


def resolve_size(model: ModelConfig) -> ModelConfig:
    """Fill the widths left null with those of `model.size`."""
    preset: dict[str, Any] = SIZES[model.family][model.size]
    return replace(model, **{name: width for name, width in preset.items() if getattr(model, name) is None})


def check(cfg: Config) -> None:
    """Refuse settings that are fine one by one and wrong together; no file is looked at.

    Errors: `UserError` naming both keys.
    """
    data, trainer, model = cfg.data, cfg.trainer, resolve_size(cfg.model)
    if all(end is None for end in (trainer.max_steps, trainer.max_minutes, trainer.patience, trainer.target_bleu)):
        raise UserError("trainer.max_steps=null: nothing would end the run; set it, or trainer.max_minutes, "
                        "trainer.patience or trainer.target_bleu")
    if cfg.optim.schedule in ("cosine", "wsd") and trainer.max_steps is None and trainer.max_minutes is None:
        raise UserError(f"optim.schedule={cfg.optim.schedule}: needs trainer.max_steps or trainer.max_minutes")
    if data.source == "synthetic" and data.dir is not None:
        raise UserError(f"data.dir={data.dir}: the synthetic text reads no folder; did you mean data=files?")
    if data.src == data.tgt:
        raise UserError(f"data.tgt={data.tgt}: must differ from data.src={data.src}")
    if data.max_length > data.max_tokens:
        raise UserError(f"data.max_length={data.max_length}: must be at most data.max_tokens={data.max_tokens}, "
                        "or the longest pair fits no micro-batch")
    longest = cfg.data.max_length + cfg.data.pad_to_multiple
    if model.pos_encoding == "learned" and model.max_positions < longest:
        raise UserError(f"model.max_positions={model.max_positions}: must be at least {longest}, as long as a padded "
                        f"sentence may be; or lower data.max_length={cfg.data.max_length}")
    if model.tie_embeddings and not cfg.tokenizer.joint:
        raise UserError("tokenizer.joint=false: model.tie_embeddings=true needs one vocabulary for both languages")
    if model.d_model is not None and model.n_heads is not None and model.d_model % (2 * model.n_heads):
        raise UserError(f"model.n_heads={model.n_heads}: must cut model.d_model={model.d_model} into equal even parts")
    if cfg.resume == "auto" and cfg.run_dir is None:
        raise UserError("resume=auto: needs run_dir, the run to go on with")
