"""Export a run: a folder in a format of others, with its vocabulary and `minitx.json`, whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from minitx.config.saved import read_config
from minitx.config.schema import as_dict
from minitx.export.formats import FORMATS, Limits, Trained, check, writer
from minitx.export.manifest import VERSION, Manifest, records, write_manifest
from minitx.export.provenance import result_summary, text_origin
from minitx.utils.checkout import own_version
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import new_folder

if TYPE_CHECKING:
    from minitx.models.base import Seq2Seq


def export_run(run_dir: Path, to: str, out: Path, quantization: str | None = None,
               name: str | None = None) -> Manifest:
    """Write the run's best weights into the new folder `out`. to: of `FORMATS`; name: for people, None = the folder's

    Errors: `UserError` for what the format cannot hold, a run without weights, and a folder that exists or cannot be
    written; nothing is left behind.
    """
    cfg = read_config(run_dir)
    check(cfg, to, quantization)
    result = result_summary(run_dir)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists; name a new folder", Exit.STORAGE)

    from minitx.data.source_text import SourceText
    from minitx.runs.checkpoint import load_model  # brings torch

    model, tokenizers, cfg = load_model(run_dir)
    _check_layers(model, to)
    source_text = SourceText.read(run_dir)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(out) as folder:
            trained = Trained(model, tokenizers, cfg, result, name or out.name)
            limits = writer(to)(trained, folder, quantization)
            if FORMATS[to].serves:
                tokenizers.save(folder)
                if source_text is not None:
                    source_text.save(folder)
            manifest = _manifest(trained, to, quantization, limits, folder)
            write_manifest(folder, manifest)
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot be written: {error.strerror}", Exit.STORAGE) from error
    return manifest


def _check_layers(model: "Seq2Seq", to: str) -> None:
    """Refuse a layer that all writers would take for another. Errors: `UserError`"""
    from minitx.models.layers import FeedForward

    for name, module in model.named_modules():
        if name.endswith(".feed_forward") and type(module) is not FeedForward:
            raise UserError(f"--to {to}: knows the feed-forward layer with a rectifier alone, and {name} is a "
                            f"{type(module).__name__}; src/minitx/export/ has to learn it first")


def _manifest(trained: Trained, to: str, quantization: str | None, limits: Limits, folder: Path) -> Manifest:
    cfg = trained.config
    return Manifest(version=VERSION, minitx=own_version(), format=to, quantization=quantization, src=cfg.data.src,
                    tgt=cfg.data.tgt, model=as_dict(cfg)["model"], decode=cfg.decode,
                    max_source_length=limits.max_source_length, max_target_length=limits.max_target_length,
                    bleu_tokenizer=cfg.data.bleu_tokenizer, data=text_origin(cfg), result=trained.result,
                    files=records(folder))
