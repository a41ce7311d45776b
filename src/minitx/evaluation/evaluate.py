"""Score a trained model on a corpus's test sets, and keep what it wrote."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from minitx.data.corpus import Corpus
from minitx.data.synthetic.text import PHENOMENA, role_accuracy_pct, role_swaps_pct, word_for_word
from minitx.decoding.translator import Translator
from minitx.evaluation.metrics import SENTENCE_COLUMNS, score, sentence_statistics
from minitx.evaluation.moses import moses_score
from minitx.runs.result import TestScore
from minitx.utils.files import write_atomically

Progress = Callable[[str, int, int], None]  # test set, lines done, lines in all
Warn = Callable[[str], None]
PAIRS = re.compile("minimal_pairs|pairs_")  # names of the embedded test sets that come in minimal pairs


def evaluate(translator: Translator, corpus: Corpus, run_dir: Path, progress: Progress, warn: Warn) -> dict[
        str, TestScore]:
    """Translate every line of each test set into RUN/hypotheses/SET.LANG, and score it with sacreBLEU.

    Of the ranks that share the translating, the first writes and scores; the others return nothing.

    RUN/sentence_statistics.json gets the counts that BLEU is made of, sentence by sentence, and the source's words; no
    text. The embedded text also gets BLEU per phenomenon, exact role accuracy on minimal pairs and how often roles are
    swapped, and, for comparison, the BLEU of a word-for-word dictionary; other text, the BLEU of `moses`, where that
    knows the language.
    """
    scores: dict[str, TestScore] = {}
    sentences: dict[str, list[list[int]]] = {}
    source_words: dict[str, list[int]] = {}
    for name in corpus.test_sets:
        sources, references = (list(side) for side in zip(*corpus.pairs(name), strict=True))

        def cut(row: int, what: str, name: str = name) -> None:
            warn(f"{name}: line {row + 1}: {what}")

        hypotheses = translator.translate(sources, progress=partial(progress, name), warn=cut)
        if not translator.ranks.is_main:
            continue
        folder = run_dir / "hypotheses"
        folder.mkdir(exist_ok=True)
        lines = "".join(" ".join(hypothesis.split("\n")) + "\n" for hypothesis in hypotheses)
        (folder / f"{name}.{corpus.tgt}").write_text(lines, encoding="utf-8", newline="\n")
        entry: TestScore = {**asdict(score(hypotheses, references))}  # type: ignore[typeddict-item]
        phenomena = corpus.phenomena(name)
        if phenomena is None and (moses := moses_score(hypotheses, references, corpus.tgt)) is not None:
            entry |= asdict(moses)  # type: ignore[typeddict-item]
        if phenomena is not None and corpus.tgt == "de":
            entry["dictionary_bleu"] = score([word_for_word(source) for source in sources], references).bleu
            if PAIRS.match(name):
                entry["role_accuracy_pct"] = role_accuracy_pct(hypotheses, references)
                entry["roles_swapped_pct"] = role_swaps_pct(hypotheses, references)
        if phenomena is not None and not PAIRS.match(name):
            for phenomenon in PHENOMENA:
                rows = [i for i, found in enumerate(phenomena) if phenomenon in found]
                if not rows:
                    continue  # a length set has no questions
                part = score([hypotheses[i] for i in rows], [references[i] for i in rows])
                entry.setdefault("phenomena_bleu", {})[phenomenon] = part.bleu
        scores[name] = entry
        sentences[name] = sentence_statistics(hypotheses, references)
        source_words[name] = [len(source.split()) for source in sources]
    if not translator.ranks.is_main:
        return {}
    counts = {"columns": SENTENCE_COLUMNS, "sets": sentences, "source_words": source_words}
    write_atomically(run_dir / "sentence_statistics.json", json.dumps(counts, separators=(",", ":")).encode() + b"\n")
    return scores
