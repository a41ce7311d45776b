"""The schema of a run: one dataclass per config group and per model family, with types, units and ranges; no torch.

Values live in `conf/*.yaml` alone, so a dataclass has no defaults: a key in one and not in the other is an error.
`fields.parse` turns the composed, resolved mapping into these classes and checks it; `as_dict` is its inverse.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

from minitx.config.fields import key
from minitx.utils.errors import UserError

SEARCH_PRECISIONS = ("bf16-mixed",)
BLEU_TOKENIZERS = ("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores200")  # as sacreBLEU names them
SIZES = ("toy", "tiny", "small", "base", "big")
ATTENTIONS = ("none", "additive", "dot")
ATTENTION = "how the decoder attends to the source; none = it has the encoder's final state alone"
D_HIDDEN = "width of the recurrent state; even if the encoder is bidirectional"
CELL_LOOP = ("compute each LSTM as a loop over cells, one product of input and state a step and then gate by gate, and "
             "GNMT's decoder a target step at a time through all layers, as most code of 2017 did: slower, and the "
             "same but for rounding and the order in which GNMT draws dropout; null = fused")


@dataclass(frozen=True, kw_only=True)
class RecommendsConfig:
    """Settings that suit a text; the other groups take them as defaults."""

    model_size: str = key("size that suits this much text", choices=SIZES)
    vocab_size: int | None = key("tokenizer entries; null = what the data supports: two for five training pairs, "
                                 "but at least 1,000 and at most 8,000", unit="entries", ge=260, le=65_536)
    tokens_per_update: int = key("non-padding target tokens per optimizer step", unit="tokens", ge=1)
    max_steps: int = key("optimizer steps", unit="updates", ge=1)
    lr: float = key("peak learning rate", gt=0)
    warmup_steps: int = key("linear warm-up", unit="updates", ge=0)
    dropout: float = key("dropout probability", ge=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Which training pairs are left out, besides broken and empty ones; other sets are never filtered."""

    identical: bool = key("leave out pairs whose sides are the same")
    duplicates: bool = key("leave out exact repetitions of earlier pairs")
    max_ratio: float | None = key("leave out pairs with one side more than this many times as long (tokens with EOS); "
                                  "null = none", gt=1)
    max_dropped_pct: float = key("share of training pairs left out above which the run refuses to start",
                                 unit="%", ge=0, le=100)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The text: where it comes from, what is left out, and how much of it a batch holds."""

    source: str = key("where pairs come from", choices=("synthetic", "files", "hub"))
    src: str = key("source language, as in the file names")
    tgt: str = key("target language, as in the file names")
    bleu_tokenizer: str | None = key("sacreBLEU tokenizer of all BLEU scores; null = the one that suits data.tgt",
                                     choices=BLEU_TOKENIZERS, optional=True)
    dir: str | None = key("folder with {split}.{lang}[.gz], .tsv, .jsonl or .parquet files", path=True)
    folder: str | None = key("sub-folder of $MINITX_DATA to read if data.dir is null")
    hub_id: str | None = key("data set on the Hugging Face hub")
    hub_name: str | None = key("its configuration, or a folder in it; null = src-tgt or tgt-src, if it has them")
    hub_revision: str | None = key("commit or branch of it; null = the newest")
    hold_out: int | None = key("training pairs to set aside as the validation set, and as many as the test set, "
                               "if the text has none", unit="pairs", ge=1)
    max_pairs: int | None = key("train on the first N pairs only; null = on all", unit="pairs", ge=1)
    streaming: bool = key("hold only some shards of the training text (train-00000-of-00016 ...) in memory")
    window_shards: int = key("shards held in memory, and shuffled, together", unit="shards", ge=1)
    clean: CleanConfig = key("which training pairs are left out")
    seed: int = key("seed of the synthetic text, apart from the run's seed", ge=0)
    train_size: int = key("training pairs of the synthetic text", unit="pairs", ge=1)
    train_words: int = key("words in its longest training sentence; above 16, half of them are longer than 16",
                           unit="words", ge=16)
    test_sets: list[str] | None = key("test sets to score; null = all (synthetic text: test and minimal_pairs)")
    max_tokens: int = key("most padded positions in a micro-batch, B * max(S, T); rounding B may add an eighth",
                          unit="positions", ge=8)
    max_length: int = key("training pairs with a longer side (tokens with EOS) are left out, and counted",
                          unit="tokens", ge=2)
    pad_to_multiple: int = key("widths of batches are rounded up to this", unit="tokens", ge=1)
    recommends: RecommendsConfig = key("what suits this text; experiments and the command line override it")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Byte-level BPE: how many entries, and whether both languages share them."""

    vocab_size: int | None = key("entries, bytes and specials included; null = what the data supports: two for five "
                                 "training pairs, but at least 1,000 and at most 8,000", unit="entries", ge=260,
                                 le=65_536)
    joint: bool = key("one vocabulary for both languages; tied embeddings need it")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The keys that every family has. `class F(ModelConfig, family="f")` adds one; `size` fills widths left null."""

    family: str = key("model family")
    size: str = key("widths and depth by name", choices=SIZES)
    d_model: int | None = key("width of embeddings and of the features projected to the vocabulary", ge=2)
    dropout: float = key("dropout probability", ge=0, lt=1)
    tie_embeddings: bool = key("one matrix for source, target and output; needs a joint vocabulary")

    members: ClassVar[dict[str, type["ModelConfig"]]] = {}
    sizes: ClassVar[Mapping[str, Mapping[str, int]]]  # by the names in SIZES

    def __init_subclass__(cls, family: str) -> None:
        ModelConfig.members[family] = cls

    def check(self, data: DataConfig) -> None:
        """Refuse widths or lengths that do not fit together. Errors: `UserError` naming both keys."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(ModelConfig, family="transformer"):
    """The keys of the Transformer (Vaswani et al. 2017)."""

    num_layers: int | None = key("encoder layers, and as many decoder layers", ge=1)
    d_ff: int | None = key("width of the feed-forward layer", ge=1)
    n_heads: int | None = key("attention heads; divides d_model", ge=1)
    pos_encoding: str = key("how positions are encoded", choices=("sinusoidal", "learned", "rope", "none"))
    pre_norm: bool = key("normalise before each sub-layer; false = after it, as in 2017")
    window: int | None = key("tokens on either side that a token attends to in the encoder, and before it in the "
                             "decoder; the source is attended to whole. null = all of them", optional=True,
                             unit="tokens", ge=1)
    max_positions: int = key("rows of the learned position table; longer inputs are cut", unit="positions", ge=2)

    sizes = {
        "toy": {"num_layers": 1, "d_model": 32, "d_ff": 64, "n_heads": 2},
        "tiny": {"num_layers": 2, "d_model": 128, "d_ff": 512, "n_heads": 4},
        "small": {"num_layers": 3, "d_model": 256, "d_ff": 1024, "n_heads": 4},
        "base": {"num_layers": 6, "d_model": 512, "d_ff": 2048, "n_heads": 8},
        "big": {"num_layers": 6, "d_model": 1024, "d_ff": 4096, "n_heads": 16},
    }

    def check(self, data: DataConfig) -> None:
        """Refuse positions that are too few, a window beyond them, and heads that do not divide the width evenly."""
        longest = data.max_length + data.pad_to_multiple
        if self.pos_encoding == "learned" and self.max_positions < longest:
            raise UserError(f"model.max_positions={self.max_positions}: must be at least {longest}, the "
                            f"longest padded sentence; or lower data.max_length={data.max_length}")
        if self.pos_encoding == "learned" and self.window is not None and self.window >= self.max_positions:
            raise UserError(f"model.window={self.window}: limits nothing, since a sentence has at most "
                            f"model.max_positions={self.max_positions} tokens; lower it, or leave it out")
        if self.d_model is not None and self.n_heads is not None and self.d_model % (2 * self.n_heads):
            raise UserError(f"model.n_heads={self.n_heads}: must divide model.d_model={self.d_model} into equal "
                            "even parts")


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(ModelConfig, family="lstm"):
    """The keys of the LSTM; a size has as many parameters as the Transformer's of that name, within 10 %."""

    num_layers: int | None = key("encoder layers, and as many decoder layers", ge=1)
    d_hidden: int | None = key(D_HIDDEN, ge=2)
    attention: str = key(ATTENTION, choices=ATTENTIONS)
    bidirectional: bool = key("read the source both ways, each with half of d_hidden")
    input_feeding: bool = key("feed the last attentional state back in (Luong et al. 2015): slower to train")
    cell_loop: bool | None = key(CELL_LOOP, optional=True)

    sizes = {
        "toy": {"num_layers": 1, "d_model": 32, "d_hidden": 36},
        "tiny": {"num_layers": 2, "d_model": 128, "d_hidden": 160},
        "small": {"num_layers": 2, "d_model": 256, "d_hidden": 416},
        "base": {"num_layers": 3, "d_model": 512, "d_hidden": 960},
        "big": {"num_layers": 4, "d_model": 1024, "d_hidden": 1664},
    }

    def check(self, data: DataConfig) -> None:
        """Refuse an odd width of two directions, and input feeding without attention."""
        if self.bidirectional and self.d_hidden is not None and self.d_hidden % 2:
            raise UserError(f"model.d_hidden={self.d_hidden}: must be even, since model.bidirectional=true halves it")
        if self.input_feeding and self.attention == "none":
            raise UserError("model.input_feeding=true: needs an attention to feed back; model.attention=none has none")


@dataclass(frozen=True, kw_only=True)
class GNMTConfig(ModelConfig, family="gnmt"):
    """The keys of GNMT (Wu et al. 2016); its `big` is the published one, of little over half as many parameters."""

    num_layers: int | None = key("encoder layers, and as many decoder layers", ge=1)
    cell_loop: bool | None = key(CELL_LOOP, optional=True)

    sizes = {
        "toy": {"num_layers": 2, "d_model": 22},
        "tiny": {"num_layers": 2, "d_model": 136},
        "small": {"num_layers": 2, "d_model": 320},
        "base": {"num_layers": 3, "d_model": 768},
        "big": {"num_layers": 4, "d_model": 1024},
    }

    def check(self, data: DataConfig) -> None:
        """Refuse a single layer: it has none above it to read what it finds."""
        if self.num_layers == 1:
            raise UserError("model.num_layers=1: must be at least 2 for model.family=gnmt, whose second layer reads "
                            "what the first one attends to")


@dataclass(frozen=True, kw_only=True)
class LinearRNNConfig(ModelConfig, family="linear_rnn"):
    """The keys of the linear RNN; a size has as many parameters as the Transformer's of that name, within 10 %."""

    num_layers: int | None = key("encoder layers, and as many decoder layers", ge=1)
    d_hidden: int | None = key(D_HIDDEN, ge=2)
    d_ff: int | None = key("width of the feed-forward layer", ge=1)
    cell: str = key("how a unit's state follows from the one before it and from the layer's input: ssru (Kim et al. "
                    "2019), mingru (Feng et al. 2024) or rglru (De et al. 2024)", choices=("ssru", "mingru", "rglru"))
    attention: str = key(ATTENTION, choices=ATTENTIONS)
    n_heads: int | None = key("attention heads; divides d_model", ge=1)

    sizes = {
        "toy": {"num_layers": 1, "d_model": 32, "d_hidden": 40, "d_ff": 64, "n_heads": 2},
        "tiny": {"num_layers": 2, "d_model": 128, "d_hidden": 160, "d_ff": 512, "n_heads": 4},
        "small": {"num_layers": 3, "d_model": 256, "d_hidden": 320, "d_ff": 1024, "n_heads": 4},
        "base": {"num_layers": 6, "d_model": 512, "d_hidden": 640, "d_ff": 2048, "n_heads": 8},
        "big": {"num_layers": 6, "d_model": 1024, "d_hidden": 1280, "d_ff": 4096, "n_heads": 16},
    }

    def check(self, data: DataConfig) -> None:
        """Refuse an odd state of two directions, an attention without heads, and heads that do not divide the width."""
        if self.d_hidden is not None and self.d_hidden % 2:
            raise UserError(f"model.d_hidden={self.d_hidden}: must be even, since half of it reads backwards")
        if self.attention == "additive":
            raise UserError("model.attention=additive: must be dot or none for model.family=linear_rnn, whose "
                            "attention is the Transformer's")
        if self.attention != "none" and self.d_model is not None and self.n_heads is not None and (
                self.d_model % self.n_heads):
            raise UserError(f"model.n_heads={self.n_heads}: must divide model.d_model={self.d_model} into equal parts")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer, the loss and the learning-rate schedule."""

    lr: float = key("peak learning rate of AdamW", gt=0)
    beta1: float = key("decay of the first moment", ge=0, lt=1)
    beta2: float = key("decay of the second moment", ge=0, lt=1)
    eps: float = key("added to the root of the second moment", gt=0)
    weight_decay: float = key("decoupled, on matrices only", ge=0)
    matrices: str = key("optimizer of matrices, except embeddings and output", choices=("adamw", "muon"))
    momentum: float = key("decay of Muon's average gradient", ge=0, lt=1)
    label_smoothing: float = key("probability mass spread over the vocabulary", ge=0, lt=1)
    clip_norm: float | None = key("largest global gradient norm; null = no clipping", gt=0)
    schedule: str = key("learning rate over steps", choices=("inverse_sqrt", "cosine", "wsd", "constant"))
    warmup_steps: int = key("linear warm-up", unit="updates", ge=0)
    decay_fraction: float = key("share of the horizon in which wsd decays to 0", gt=0, le=1)
    ema_decay: float | None = key("decay of the moving average of the weights, which is then validated and saved; "
                                  "null = no average", gt=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The device, the length of a run, and how it is validated."""

    accelerator: str = key("device to train on; auto = a CUDA GPU if there is one; mps = Apple's GPU, untested",
                           choices=("auto", "cpu", "gpu", "mps"))
    devices: int = key("ranks on this machine, one per device; under torchrun or srun, as many as they start",
                       unit="ranks", ge=1)
    strategy: str = key("how ranks share the model: ddp = each has all of it, fsdp2 = each has a part",
                        choices=("ddp", "fsdp2"))
    compress: str | None = key("number format of gradients sent between ranks (ddp); null = their own",
                               choices=("bf16",))
    max_restarts: int = key("how often the ranks on this machine restart from the last good checkpoint after one of "
                            "them has failed", unit="times", ge=0)
    timeout_s: float = key("seconds after which a rank no longer waits for the others", unit="seconds", gt=0)
    threads: int | None = key("CPU threads per rank; null = cores / ranks", unit="threads", ge=1)
    precision: str = key("number format; auto = bf16 where it is fast; 16-mixed = fp16 and a scaled loss, for GPUs "
                         "that have no bf16",
                         choices=("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"))
    compile: bool | None = key("compile the model for training; it takes a minute or more before the first update. "
                               "null = false", optional=True)
    activation_checkpointing: bool | None = key("keep the inputs of layers alone, and compute what is inside again for "
                                                "the gradient: less memory, a third more time, the same numbers. "
                                                "null = false", optional=True)
    tokens_per_update: int = key("non-padding target tokens per optimizer step", unit="tokens", ge=1)
    max_steps: int | None = key("stop after this many optimizer steps", unit="updates", ge=1)
    horizon_steps: int | None = key("step at which the learning rate's decay ends; null = max_steps, or the step "
                                    "that max_minutes or max_pflop turn out to reach", unit="updates", ge=1)
    max_minutes: float | None = key("stop after this many minutes of updates; evaluation and saving do not count",
                                    unit="minutes", gt=0)
    max_pflop: float | None = key("stop after this many 10^15 operations on real tokens, forward and backward, so "
                                  "that models do the same work", optional=True, unit="PFLOP", gt=0)
    target_bleu: float | None = key("BLEU of the full validation set to reach; result.json says what that took",
                                    unit="BLEU", gt=0, le=100)
    stop_at_target: bool = key("end the run there; false = train on, to another limit")
    price_per_hour: float | None = key("price of a device per hour, in any currency: result.json says what the run "
                                       "cost", unit="per hour", ge=0)
    patience: int | None = key("stop after this many validations without a better BLEU", unit="validations", ge=1)
    valid_every_n_steps: int = key("optimizer steps between validations", unit="updates", ge=1)
    valid_sentences: int = key("size of the fixed validation subset that is translated each time", unit="pairs", ge=1)
    samples: int = key("translations shown at each validation", unit="sentences", ge=0)
    log_every_n_steps: int = key("optimizer steps between lines of metrics.jsonl", unit="updates", ge=1)
    max_nonfinite: int = key("stop after this many non-finite updates; each is skipped", unit="updates", ge=1)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How often checkpoints are written, how many are kept, and whether their mean is tried."""

    every_n_steps: int = key("optimizer steps between checkpoints", unit="updates", ge=1)
    keep: int = key("how many of the newest checkpoints are kept", unit="checkpoints", ge=2)
    average: int | None = key("at the end, also validate the mean of the raw weights of this many newest ones, at "
                              "most `keep`, and save it if it is better; null = no mean",
                              optional=True, unit="checkpoints", ge=2)


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Search at test time; validation searches greedily."""

    beam_size: int = key("hypotheses kept per sentence; 1 = greedy", unit="hypotheses", ge=1)
    length_penalty: float = key("a of ((5 + length) / 6) ** a (Wu et al. 2016)", ge=0)
    max_tokens: int = key("padded source positions in a batch, times beam_size", unit="positions", ge=1)
    max_length_ratio: float = key("longest output: ratio * source tokens + extra", gt=0)
    max_length_extra: int = key("longest output: ratio * source tokens + extra", unit="tokens", ge=1)
    max_source_length: int = key("longer sources are cut, with a warning (tokens)", unit="tokens", ge=2)
    precision: str | None = key("number format of activations; null = that of the weights", choices=SEARCH_PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class LoggerConfig:
    """A logger besides metrics.jsonl, which is always written."""

    name: str = key("in addition to metrics.jsonl", choices=("none", "wandb", "tensorboard"))
    project: str = key("wandb project")
    mode: str = key("wandb mode", choices=("offline", "online", "disabled"))


@dataclass(frozen=True, kw_only=True)
class ChoicesConfig:
    """The chosen group options by name, as results report them."""

    data: str = key("option of the group data")
    model: str = key("option of the group model")
    experiment: str | None = key("option of the group experiment")


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run."""

    seed: int = key("seed of weights, order and dropout", ge=0, le=2**64 - 1)
    run_dir: str | None = key("folder of the run; null = a new one under runs/", path=True)
    resume: str = key("auto = continue from run_dir's newest good checkpoint", choices=("never", "auto"))
    init_from: str | None = key("run whose weights and tokenizer this one starts from; null = weights drawn from the "
                                "seed", path=True)
    debug: bool = key("show the traceback of a user's mistake too")
    choices: ChoicesConfig = key("names of the group options")
    data: DataConfig = key("the text")
    tokenizer: TokenizerConfig = key("text <-> ids")
    model: ModelConfig = key("the network")
    optim: OptimConfig = key("AdamW, loss and schedule")
    trainer: TrainerConfig = key("device, length of the run, validation")
    checkpoint: CheckpointConfig = key("what is saved when")
    decode: DecodeConfig = key("search at test time")
    logger: LoggerConfig = key("where metrics go")


def as_dict(cfg: Config) -> dict[str, Any]:
    """Return plain nested dicts, ready for YAML or JSON."""
    return asdict(cfg)


def config_sha256(cfg: Config) -> str:
    """Hash the settings that make a run what it is: not where it and its text are kept, how it is shown, or its price.

    Optional keys count only if they are set, so that adding one changes no published hash.
    """
    cfg = replace(cfg, data=replace(cfg.data, dir=None), trainer=replace(cfg.trainer, price_per_hour=None))
    values = {name: value for name, value in _without_unset(cfg).items()
              if name not in ("run_dir", "resume", "debug", "logger")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _without_unset(group: Any) -> dict[str, Any]:
    """Return nested dicts as `as_dict` does, without the optional keys that are null."""
    values = {spec.name: getattr(group, spec.name) for spec in fields(group)
              if getattr(group, spec.name) is not None or not spec.metadata["optional"]}
    return {name: _without_unset(value) if is_dataclass(value) else value for name, value in values.items()}


def resolve_size(model: ModelConfig) -> ModelConfig:
    """Return `model` with the widths left null filled in from `model.size`."""
    preset: dict[str, Any] = dict(model.sizes[model.size])
    return replace(model, **{name: width for name, width in preset.items() if getattr(model, name) is None})


def check(cfg: Config) -> None:
    """Refuse settings that are valid one by one but not together; reads no file.

    Errors: `UserError` naming both keys.
    """
    trainer, model = cfg.trainer, resolve_size(cfg.model)
    _check_length(cfg)
    if (last := cfg.checkpoint.average) is not None and last > cfg.checkpoint.keep:
        raise UserError(f"checkpoint.average={last}: must be at most checkpoint.keep={cfg.checkpoint.keep}, since the "
                        "others are deleted by then")
    if trainer.strategy == "fsdp2" and (cfg.optim.matrices == "muon" or trainer.compress is not None):
        other = "optim.matrices=muon" if cfg.optim.matrices == "muon" else f"trainer.compress={trainer.compress}"
        raise UserError(f"trainer.strategy=fsdp2: cannot be combined with {other}; use ddp")
    if trainer.activation_checkpointing and trainer.compile:
        raise UserError("trainer.activation_checkpointing=true: cannot be combined with trainer.compile=true, whose "
                        "code keeps what it will need itself; leave one of them out")
    if trainer.accelerator == "mps" and trainer.devices > 1:
        raise UserError(f"trainer.accelerator=mps: is one device; trainer.devices={trainer.devices} was asked for")
    if trainer.accelerator == "mps" and trainer.precision == "64-true":
        raise UserError("trainer.accelerator=mps: has no trainer.precision=64-true; use cpu")
    if trainer.accelerator == "mps" and trainer.activation_checkpointing and model.dropout > 0:
        raise UserError("trainer.accelerator=mps: trainer.activation_checkpointing=true cannot draw dropout there "
                        "again as it was; leave one of them out, or set model.dropout=0")
    _check_data(cfg.data)
    model.check(cfg.data)
    if model.tie_embeddings and not cfg.tokenizer.joint:
        raise UserError("tokenizer.joint=false: model.tie_embeddings=true needs one vocabulary for both languages")
    if cfg.resume == "auto" and cfg.run_dir is None:
        raise UserError("resume=auto: needs run_dir, the run to continue")


def _check_length(cfg: Config) -> None:
    """Refuse a run that nothing ends, and a learning rate that would decay at the wrong time or never."""
    trainer = cfg.trainer
    goal = trainer.target_bleu if trainer.stop_at_target else None
    limits = (trainer.max_steps, trainer.max_minutes, trainer.max_pflop)
    if all(end is None for end in (*limits, trainer.patience, goal)):
        raise UserError("trainer.max_steps=null: nothing would end the run; set it, or trainer.max_minutes, max_pflop, "
                        "patience or, to stop there, trainer.target_bleu")
    if (horizon := trainer.horizon_steps) is not None and horizon < (trainer.max_steps or horizon):
        raise UserError(f"trainer.horizon_steps={horizon}: must be at least trainer.max_steps={trainer.max_steps}, or "
                        "the last updates would change nothing")
    if cfg.optim.schedule in ("cosine", "wsd") and all(end is None for end in limits):
        raise UserError(f"optim.schedule={cfg.optim.schedule}: needs trainer.max_steps, max_minutes or max_pflop")


def _check_data(data: DataConfig) -> None:
    """Refuse keys that the synthetic text does not have, equal languages, and pairs that fit no micro-batch."""
    if data.source == "synthetic" and data.dir is not None:
        raise UserError(f"data.dir={data.dir}: the synthetic text reads no folder; did you mean data=files?")
    if data.folder is not None and data.folder.startswith(("/", "~")):
        raise UserError(f"data.folder={data.folder}: is a name in $MINITX_DATA; did you mean data.dir={data.folder}?")
    if data.source == "synthetic" and data.hold_out is not None:
        raise UserError(f"data.hold_out={data.hold_out}: the synthetic text (data.source) has sets of its own")
    if data.src == data.tgt:
        raise UserError(f"data.tgt={data.tgt}: must differ from data.src={data.src}")
    if data.max_length > data.max_tokens:
        raise UserError(f"data.max_length={data.max_length}: must be at most data.max_tokens={data.max_tokens}, "
                        "or the longest pair fits no micro-batch")
