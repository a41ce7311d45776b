"""The attention weights of every head for a sentence and its translation, by forced decoding."""

from minitx.config.schema import Config, config_sha256
from minitx.data.batch import collate
from minitx.data.lines import is_blank
from minitx.decoding.translator import Translator, Warn, source_limit, warn_of_line
from minitx.evaluation.attention_maps import EOS, SCALE, AttentionMaps
from minitx.models.base import evaluating
from minitx.utils.errors import Exit, UserError


def attention_maps(translator: Translator, cfg: Config, source: str, target: str | None = None, *,
                   warn: Warn | None = None) -> AttentionMaps | None:
    """Run a pair through the model as training does and return its attention; None if the model has no attention.

    cfg: that of the run. target: None = the model's own translation, tokenized again. A source that is too long is cut
    as for translation, after a `warn`. Errors: `UserError` for a blank source, and for a target longer than the model
    can write.
    """
    model, tokenizers = translator.model, translator.tokenizers
    if not model.attentions():
        return None
    if is_blank(source):
        raise UserError("the sentence is blank, so there is nothing to attend to", Exit.DATA)
    src, longest = tokenizers.src.encode(source), source_limit(translator.decode, model)
    if len(src) >= longest:
        (warn or warn_of_line)(0, f"{len(src) + 1:,} tokens, cut to {longest:,}")
        src = src[:longest - 1]
    if target is None:
        (target,) = translator.translate([source], warn=lambda row, what: None)  # the warning was given above
    tgt = tokenizers.tgt.encode("" if is_blank(target) else target)
    if model.max_target_length is not None and len(tgt) >= model.max_target_length:
        raise UserError(f"the translation has {len(tgt) + 1:,} tokens, this model writes at most "
                        f"{model.max_target_length:,}; take a shorter one", Exit.DATA)
    batch = collate([src], [tgt], pad_id=tokenizers.tgt.pad_id, bos_id=tokenizers.tgt.bos_id,
                    eos_id=tokenizers.tgt.eos_id).to(translator.device)
    with evaluating(model):
        kinds = model.attention_weights(batch.src, batch.tgt)  # --> [layers, 1, H, L, S] each
    weights = {kind: (layers[:, 0].cpu().double() * SCALE).round().long().numpy() for kind, layers in kinds.items()}
    return AttentionMaps(cfg.choices.experiment, cfg.choices.model, cfg.seed, config_sha256(cfg),
                         [*tokenizers.src.pieces(src), EOS], [*tokenizers.tgt.pieces(tgt), EOS], weights)
