"""Family name -> class: a configuration or a checkpoint can name these and nothing else."""

from dataclasses import asdict

from minitx.config import ModelConfig, resolve_size
from minitx.models.base import Seq2Seq
from minitx.models.lstm import LSTMSeq2Seq
from minitx.models.transformer import Transformer

MODELS: dict[str, type[Seq2Seq]] = {"transformer": Transformer, "lstm": LSTMSeq2Seq}


def build_model(cfg: ModelConfig, *, src_vocab_size: int, tgt_vocab_size: int) -> Seq2Seq:
    """Construct the family that `cfg` names, with freshly drawn weights."""
    settings = asdict(resolve_size(cfg))
    family = MODELS[settings.pop("family")]
    settings.pop("size")
    return family(src_vocab_size=src_vocab_size, tgt_vocab_size=tgt_vocab_size, **settings)
