"""The text that all systems train on and translate, prepared once: raw lines, and pieces for the peers."""

import json
import shutil
import subprocess
from pathlib import Path

from benchmarks.venvs import ROOT, python
from benchmarks.work import SRC, TEST, TGT, read_lines
from minitx.data.files import find_splits


def prepare_text(source: Path, peers: Path) -> Path:
    """Write the splits of `source` and the peers' pieces into a folder, if that was not done before. --> the folder

    Errors: `UserError` for a folder without the splits; `NotInstalled` if sentencepiece cannot be run
    """
    folder = peers / "text"
    if (folder / "pieces.json").exists():
        return folder
    splits = find_splits(source, SRC, TGT, test_sets=[TEST], required=("train", "valid", TEST))
    interpreter = python("plain", peers)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("train", "valid", TEST):
        for lang, lines in zip((SRC, TGT), zip(*splits[name].read(SRC, TGT), strict=True), strict=True):
            (folder / f"{name}.{lang}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    subprocess.run([interpreter, "-m", "benchmarks.pieces", folder, "train", "valid", TEST], cwd=ROOT, check=True)
    return folder


def with_test_as_valid(text: Path) -> Path:
    """Copy the text to where the test set is the validation set: only to see when minitx reaches a peer's score."""
    folder = text.with_name("text-test-as-valid")
    folder.mkdir(exist_ok=True)
    for lang in (SRC, TGT):
        shutil.copy(text / f"train.{lang}", folder)
        for name in ("valid", TEST):
            shutil.copy(text / f"{TEST}.{lang}", folder / f"{name}.{lang}")
    return folder


def tokens_per_sentence(text: Path) -> float:
    """Return the mean number of target pieces of a training sentence, EOS included."""
    return float(json.loads((text / "pieces.json").read_text())["tokens_per_sentence"])


def references(text: Path) -> list[str]:
    """Read the test set's target side."""
    return read_lines(text / f"{TEST}.{TGT}")
