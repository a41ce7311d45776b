"""The formats that a run can be exported to, and what each of them can hold; checked before torch is imported.

The module of this folder that has a format's name writes it: `write(trained, folder, quantization)` -> `Limits`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx.config.schema import Config, TransformerConfig
from minitx.utils.errors import UserError

if TYPE_CHECKING:
    from minitx.data.tokenizer import TokenizerPair
    from minitx.models.base import Seq2Seq


@dataclass(frozen=True)
class Trained:
    """Hold what is exported: the weights that serve, in fp32, the vocabulary and the settings."""

    model: "Seq2Seq"
    tokenizers: "TokenizerPair"
    config: Config
    result: dict[str, Any] | None  # see `provenance.result_summary`
    name: str  # for people: of the folder, or of a repository


@dataclass(frozen=True)
class Limits:
    """Say how many tokens the files that a format wrote can read and write, EOS included; None = any number."""

    max_source_length: int | None
    max_target_length: int | None


@dataclass(frozen=True)
class Format:
    """Say what a format needs and can hold."""

    packages: tuple[str, ...]  # that write it
    quantizations: tuple[str, ...]
    refusal: Callable[[Config], str | None]  # why a run cannot be exported to it, and what to do
    serves: bool  # `minitx translate` takes the folder like a run


def _only_transformers(cfg: Config) -> str | None:
    if not isinstance(cfg.model, TransformerConfig):
        return f"it holds Transformers alone, and this run's model.family is {cfg.model.family}; use --to onnx"
    if cfg.model.window is not None:
        return f"it has no attention to a window (model.window={cfg.model.window}); use --to onnx"
    return None


def _hugging_face(cfg: Config) -> str | None:
    if (why := _only_transformers(cfg)) or not isinstance(cfg.model, TransformerConfig):
        return why  # the second is there for its type alone
    model = cfg.model
    if model.pos_encoding == "rope":
        return "its translation models have no rotary positions (model.pos_encoding=rope); use --to ctranslate2"
    if not model.pre_norm and model.pos_encoding != "sinusoidal":
        return (f"its post-norm model has sinusoidal positions alone, and this run's model.pos_encoding is "
                f"{model.pos_encoding}; use --to ctranslate2")
    if not model.tie_embeddings:  # with two vocabularies it is always so
        return ("its models and tokenizers have one vocabulary and one matrix of embeddings for both languages, and "
                "this run has several (model.tie_embeddings=false); use --to ctranslate2")
    return None


FORMATS = {
    "ctranslate2": Format(("ctranslate2",), ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16",
                                             "float16", "bfloat16"), _only_transformers, serves=True),
    "huggingface": Format(("safetensors",), (), _hugging_face, serves=False),
    "onnx": Format(("onnx",), ("int8",), lambda cfg: None, serves=True),
}


def check(cfg: Config, name: str, quantization: str | None) -> None:
    """Refuse what a format cannot hold. Errors: `UserError` with the reason, and what to do instead"""
    chosen = FORMATS[name]
    if missing := [package for package in chosen.packages if find_spec(package) is None]:
        raise UserError(f"--to {name}: needs {', '.join(missing)}: pip install 'minitx[export]'")
    if quantization is not None and quantization not in chosen.quantizations:
        can = f"it has {', '.join(chosen.quantizations)}" if chosen.quantizations else "it has none; leave it out"
        raise UserError(f"--quantize {quantization}: {name} does not have it; {can}")
    if why := chosen.refusal(cfg):
        raise UserError(f"--to {name}: {why}")


def writer(name: str) -> Callable[[Trained, Path, str | None], Limits]:
    """Import the function that writes a format."""
    write: Callable[[Trained, Path, str | None], Limits] = import_module(f"minitx.export.{name}").write
    return write
