"""Family name -> class: a config or a checkpoint can name these and nothing else."""

from dataclasses import asdict
from importlib import import_module

from torch import nn

from minitx.config.schema import ModelConfig, resolve_size
from minitx.models.base import Seq2Seq

MODELS = {  # family: module of this package, class in it
    "transformer": "transformer.Transformer",
    "lstm": "lstm.LSTMSeq2Seq",
    "gnmt": "gnmt.GNMT",
    "linear_rnn": "linear_rnn.LinearRNN",
}


def model_class(family: str) -> type[Seq2Seq]:
    """Import the class of a family that `MODELS` names."""
    module, _, name = MODELS[family].partition(".")
    family_class: type[Seq2Seq] = getattr(import_module(f"minitx.models.{module}"), name)
    return family_class


def build_model(cfg: ModelConfig, *, src_vocab_size: int, tgt_vocab_size: int) -> Seq2Seq:
    """Construct the family that `cfg` names, with freshly drawn weights."""
    settings = asdict(resolve_size(cfg))
    family = model_class(settings.pop("family"))
    settings.pop("size")
    model = family(src_vocab_size=src_vocab_size, tgt_vocab_size=tgt_vocab_size, **settings)
    if not isinstance(getattr(model, "output", None), nn.Linear) or model.output.bias is not None:
        raise TypeError(f"{family.__name__}.output: must be a Linear without bias: the loss takes its weight alone")
    return model
