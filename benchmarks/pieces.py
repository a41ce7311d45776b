"""Learn the peers' joint SentencePiece BPE from the training text, and segment every split with it.

Runs where sentencepiece is installed: `python -m benchmarks.pieces FOLDER SPLIT ...`.
"""

import json
import sys
from pathlib import Path

from benchmarks.work import BOS, EOS, PAD, SRC, TGT, UNK, VOCAB, read_lines


def main() -> None:
    """Write FOLDER/joint.{model,pieces}, pieces/SPLIT.LANG and pieces.json: target tokens a sentence, EOS included."""
    import sentencepiece

    folder, splits = Path(sys.argv[1]), sys.argv[2:]
    sentencepiece.SentencePieceTrainer.train(
        input=[str(folder / f"train.{lang}") for lang in (SRC, TGT)], model_prefix=str(folder / "joint"),
        vocab_size=VOCAB, model_type="bpe", unk_id=UNK, pad_id=PAD, bos_id=BOS, eos_id=EOS, minloglevel=1)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "joint.model"))
    _write(folder / "joint.pieces", [model.id_to_piece(i) for i in range(VOCAB)])
    (folder / "pieces").mkdir(exist_ok=True)
    counts = {}
    for split in splits:
        for lang in (SRC, TGT):
            cut = model.encode(read_lines(folder / f"{split}.{lang}"), out_type=str)
            _write(folder / "pieces" / f"{split}.{lang}", [" ".join(line) for line in cut])
            counts[f"{split}.{lang}"] = sum(map(len, cut))
    train = len(read_lines(folder / f"train.{TGT}"))
    counted = {"pieces": counts, "tokens_per_sentence": counts[f"train.{TGT}"] / train + 1}
    (folder / "pieces.json").write_text(json.dumps(counted, indent=1) + "\n")


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
