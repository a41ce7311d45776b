"""The attention weights of every head for a sentence and its translation, by forced decoding."""

from minitx.config.schema import Config, config_sha256
from minitx.data.batch import Batch, collate
from minitx.data.lines import is_blank
from minitx.decoding.translator import Translator, Warn, source_limit, warn_of_line
from minitx.evaluation.attention_maps import EOS, SCALE, AttentionMaps
from minitx.models.base import Seq2Seq, evaluating
from minitx.profiling.memory import free_bytes
from minitx.utils.errors import Exit, UserError

BYTES = 24  # of a weight: as it is noted, as all are put together, in float64, and as a whole number
GIB = 2**30


def attention_maps(translator: Translator, cfg: Config, source: str, target: str | None = None, *,
                   warn: Warn | None = None) -> AttentionMaps | None:
    """Run a pair through the model as training does and return its attention; None if the model has no attention.

    cfg: that of the run. target: None = the model's own translation, tokenized again. A source that is too long is cut
    as for translation, after a `warn`. Errors: `UserError` for a blank source, for a target longer than the model can
    write, and for a pair whose weights do not fit the memory.
    """
    model, tokenizers = translator.model, translator.tokenizers
    if not model.attentions():
        return None
    if is_blank(source):
        raise UserError("the sentence is blank, so there is nothing to attend to", Exit.DATA)
    src, longest = tokenizers.src.encode(source), source_limit(translator.decode, translator.backend)
    if len(src) >= longest:
        (warn or warn_of_line)(0, f"{len(src) + 1:,} tokens, cut to {longest:,}")
        src = src[:longest - 1]
    if target is None:
        (target,) = translator.translate([source], split="never", warn=lambda row, what: None)  # warned of above
    tgt = tokenizers.tgt.encode("" if is_blank(target) else target)
    if model.max_target_length is not None and len(tgt) >= model.max_target_length:
        raise UserError(f"the translation has {len(tgt) + 1:,} tokens, this model writes at most "
                        f"{model.max_target_length:,}; take a shorter one", Exit.DATA)
    batch = collate([src], [tgt], pad_id=tokenizers.tgt.pad_id, bos_id=tokenizers.tgt.bos_id,
                    eos_id=tokenizers.tgt.eos_id).to(translator.device)
    check_memory(model, batch)
    with evaluating(model):
        kinds = model.attention_weights(batch.src, batch.tgt)  # --> [layers, 1, H, L, S] each
    weights = {kind: (layers[:, 0].cpu().double() * SCALE).round().long().numpy() for kind, layers in kinds.items()}
    return AttentionMaps(cfg.choices.experiment, cfg.choices.model, cfg.seed, config_sha256(cfg),
                         [*tokenizers.src.pieces(src), EOS], [*tokenizers.tgt.pieces(tgt), EOS], weights)


def check_memory(model: Seq2Seq, batch: Batch) -> None:
    """Refuse a batch whose attention weights, each token's on each, would not fit. Errors: `UserError`"""
    (B, S), T = batch.src.rows.shape, batch.tgt.longest
    pairs = {"encoder": S * S, "decoder": T * T, "cross": T * S}
    count = sum(B * layer.n_heads * pairs[kind] for kind, layers in model.attentions().items() for layer in layers)
    if (taken := BYTES * count) > (free := free_bytes(batch.labels.device)):
        raise UserError(f"attention of {S:,} tokens and {T:,} of their translation: its weights take "
                        f"{taken / GIB:,.1f} GiB, and {free / GIB:,.1f} are available; take a shorter sentence",
                        Exit.DATA)
