"""What is known of the text that a run, or an export of one, learned from; read before anything slow is imported."""

from dataclasses import dataclass
from pathlib import Path

from minitx.config.saved import read_config
from minitx.export.manifest import is_exported, read_description


@dataclass(frozen=True)
class Origin:
    """Hold the languages, and the tokenizer of BLEU, None = what suits the language."""

    src: str
    tgt: str
    bleu_tokenizer: str | None


def read_origin(folder: Path) -> Origin:
    """Read it of a run or an export. Errors: `UserError` if the folder is neither, or its description is damaged"""
    if is_exported(folder):
        manifest = read_description(folder)
        return Origin(manifest.src, manifest.tgt, manifest.bleu_tokenizer)
    data = read_config(folder).data
    return Origin(data.src, data.tgt, data.bleu_tokenizer)
