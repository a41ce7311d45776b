"""Score a trained model on a corpus's test sets, and keep what it wrote."""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from minitx.data.corpus import Corpus
from minitx.data.synthetic.text import PHENOMENA, role_accuracy_pct, role_swaps_pct, word_for_word
from minitx.decoding.translator import Translator
from minitx.evaluation.metrics import SENTENCE_COLUMNS, bleu_from_sentences, score, sentence_statistics
from minitx.evaluation.moses import moses_score
from minitx.runs.result import TestScore
from minitx.utils.files import write_atomically

Progress = Callable[[str, int, int], None]  # test set, lines done, lines in all
Warn = Callable[[str], None]
PAIRS = re.compile("minimal_pairs|pairs_")  # names of the embedded test sets that come in minimal pairs


def evaluate(translator: Translator, corpus: Corpus, run_dir: Path, tokenizer: str, progress: Progress,
             warn: Warn) -> dict[str, TestScore]:
    """Translate every line of each test set into RUN/hypotheses/SET.LANG, and score it with sacreBLEU.

    tokenizer: that of BLEU. Ranks share the translating; the first one writes and scores, the others return nothing.

    RUN/sentence_statistics.json gets the counts that BLEU is made of, sentence by sentence, and the number of words in
    each source; no text. The embedded text also gets BLEU per phenomenon, exact role accuracy on minimal pairs and how
    often roles are swapped, and, for comparison, the BLEU of a word-for-word dictionary; other text gets the BLEU of
    `moses`, if that knows the language.
    """
    scores: dict[str, TestScore] = {}
    sentences: dict[str, list[list[int]]] = {}
    source_words: dict[str, list[int]] = {}
    for name in corpus.test_sets:
        sources, references = (list(side) for side in zip(*corpus.pairs(name), strict=True))

        def warn_of_line(row: int, what: str, name: str = name) -> None:
            warn(f"{name}: line {row + 1}: {what}")

        hypotheses = translator.translate(sources, split="never", progress=partial(progress, name), warn=warn_of_line)
        if not translator.ranks.is_main:
            continue
        _write_lines(run_dir / "hypotheses" / f"{name}.{corpus.tgt}", hypotheses)
        sentences[name] = sentence_statistics(hypotheses, references, tokenizer)
        source_words[name] = [len(source.split()) for source in sources]
        scores[name] = {**asdict(score(hypotheses, references, tokenizer))}  # type: ignore[typeddict-item]
        if (phenomena := corpus.phenomena(name)) is None:
            if (moses := moses_score(hypotheses, references, corpus.tgt)) is not None:
                scores[name] |= asdict(moses)  # type: ignore[typeddict-item]
            continue
        if corpus.tgt == "de":
            dictionary = [word_for_word(source) for source in sources]
            scores[name]["dictionary_bleu"] = score(dictionary, references, tokenizer).bleu
        if not PAIRS.match(name):
            scores[name]["phenomena_bleu"] = _by_phenomenon(phenomena, sentences[name])
        elif corpus.tgt == "de":
            scores[name]["role_accuracy_pct"] = role_accuracy_pct(hypotheses, references)
            scores[name]["roles_swapped_pct"] = role_swaps_pct(hypotheses, references)
    if not translator.ranks.is_main:
        return {}
    counts = {"columns": SENTENCE_COLUMNS, "sets": sentences, "source_words": source_words}
    write_atomically(run_dir / "sentence_statistics.json", json.dumps(counts, separators=(",", ":")).encode() + b"\n")
    return scores


def _write_lines(path: Path, texts: Sequence[str]) -> None:
    """Write each text as one line, whatever line breaks the model wrote."""
    path.parent.mkdir(exist_ok=True)
    lines = "".join(" ".join(text.split("\n")) + "\n" for text in texts)
    path.write_text(lines, encoding="utf-8", newline="\n")


def _by_phenomenon(phenomena: Sequence[Collection[str]], rows: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the BLEU of the sentences that exercise each phenomenon; a test set of lengths has no questions."""
    parts = {name: [row for row, exercised in zip(rows, phenomena, strict=True) if name in exercised]
             for name in PHENOMENA}
    return {name: bleu_from_sentences(part) for name, part in parts.items() if part}
