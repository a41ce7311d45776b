"""Which words of a translation come from which of its source, by what the decoder attends to.

The weights are those of cross attention as the decoder chooses each token, averaged over the heads of the penultimate
layer (of the only one), which agrees best with alignments by people (Garg et al. 2019, "Jointly Learning to Align and
Translate with Transformer Models"). A token is aligned with the token of the source that it attends to most, and two
words are if any of their tokens are. Words are what spaces part.

B sentences, H heads, T target tokens, S source tokens, EOS included in both.
"""

import re
from collections.abc import Iterable, Sequence

from torch import Tensor

from minitx.data.batch import collate
from minitx.data.batching import evaluation_plan
from minitx.data.lines import is_blank
from minitx.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from minitx.decoding.arguments import as_lines
from minitx.decoding.translator import Progress, Translator, Warn, source_limit, warn_of_line
from minitx.models.base import evaluating
from minitx.utils.errors import UserError

MAX_WEIGHTS = 2**24  # of a batch: 64 MiB in fp32
MAX_WEIGHTS_A_PAIR = 2**28  # of a pair that fills a batch alone: 1 GiB

Links = list[tuple[int, int]]  # a word of the source and one of the target, both counted from 0


def align(translator: Translator, sources: Iterable[str], targets: Iterable[str], *, progress: Progress | None = None,
          warn: Warn | None = None) -> list[Links]:
    """Align the words of pairs, by forced decoding. --> links of each pair, sorted; none for a blank side

    `warn` is called for pairs longer than the model reads or writes, which have no links. Errors: `UserError` for a
    model without attention between the languages, for an ensemble and for an export; as `score_pairs` else.
    """
    sources, targets = as_lines(sources, "sources"), as_lines(targets, "targets")
    if len(sources) != len(targets):
        raise ValueError(f"sources has {len(sources)} lines, targets has {len(targets)}: must be as many")
    model, tokenizers, heads = translator.model, translator.tokenizers, cross_heads(translator)
    rows = [row for row, pair in enumerate(zip(sources, targets, strict=True)) if not any(map(is_blank, pair))]
    src = dict(zip(rows, tokenizers.src.encode_batch([sources[row] for row in rows]), strict=True))
    tgt = dict(zip(rows, tokenizers.tgt.encode_batch([targets[row] for row in rows]), strict=True))
    longest, most = source_limit(translator.decode, translator.backend), translator.backend.max_target_length
    long = {row for row in rows if len(src[row]) >= longest or most is not None and len(tgt[row]) >= most
            or (len(src[row]) + 1) * (len(tgt[row]) + 1) * heads > MAX_WEIGHTS_A_PAIR}
    for row in sorted(long):
        (warn or warn_of_line)(row, "is too long to be aligned")
    rows = [row for row in rows if row not in long]
    lengths = [max(len(src[row]), len(tgt[row])) + 1 for row in rows]
    max_tokens = MAX_WEIGHTS // (max(lengths, default=1) * heads)
    links: dict[int, Links] = {}
    with evaluating(model):
        for plan in evaluation_plan(lengths, max_tokens):
            batch = [rows[i] for i in plan]
            pairs = collate([src[row] for row in batch], [tgt[row] for row in batch], pad_id=PAD_ID, bos_id=BOS_ID,
                            eos_id=EOS_ID).to(translator.device)
            weights = model.attention_weights(pairs.src, pairs.tgt, {"cross"})["cross"]  # --> [layers, B, H, T, S]
            for row, seen in zip(batch, weights[max(0, len(weights) - 2)].mean(1), strict=True):
                links[row] = _word_links(_attended(seen, len(src[row]), len(tgt[row])),
                                         word_of_tokens(tokenizers.src, src[row]),
                                         word_of_tokens(tokenizers.tgt, tgt[row]))
            if progress is not None:
                progress(len(links), len(rows))
    return [links.get(row, []) for row in range(len(sources))]


def cross_heads(translator: Translator) -> int:
    """Count the heads, of all layers, that attend to the source. Errors: `UserError` if `align` cannot use them"""
    if not (layers := translator.model.attentions().get("cross")):
        raise UserError("this model's decoder does not attend to the source, so its words cannot be aligned; take a "
                        "run with attention, such as model=transformer or model=lstm_attention")
    return sum(layer.n_heads for layer in layers)


def pharaoh(links: Links) -> str:
    """Write links as most tools for alignments do: `0-0 1-2`, the source's word first."""
    return " ".join(f"{src}-{tgt}" for src, tgt in links)


def word_of_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int | None]:
    """Return the number of the word that each token belongs to, that of its first letter; None for space alone."""
    pieces = tokenizer.pieces(ids)
    words = [match.span() for match in re.finditer(r"\S+", "".join(pieces))]
    found: list[int | None] = []
    start = 0
    for piece in pieces:
        at = start + len(piece) - len(piece.lstrip())
        found.append(next((n for n, (begin, end) in enumerate(words) if begin <= at < end and piece.strip()), None))
        start += len(piece)
    return found


def _attended(weights: Tensor, n_source: int, n_target: int) -> list[int]:
    """Return the source token that each target token attends to most, EOS left out on both sides. weights: [T, S]"""
    attended: list[int] = weights[:n_target, :n_source].argmax(1).tolist()
    return attended


def _word_links(attended: Sequence[int], src_words: Sequence[int | None], tgt_words: Sequence[int | None]) -> Links:
    return sorted({(src, tgt) for token, tgt in zip(attended, tgt_words, strict=True)
                   if tgt is not None and (src := src_words[token]) is not None})
