"""What translates: a run, several with one vocabulary, or an exported folder, each behind a `Translator`.

The module of this folder that has an export's format for its name runs it: `open_backend(folder, manifest)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch

from minitx.config.schema import SEARCH_PRECISIONS, DecodeConfig
from minitx.data.tokenizer import TokenizerPair
from minitx.decoding.backend import Backend
from minitx.decoding.torch_backend import TorchBackend
from minitx.decoding.translator import Translator
from minitx.export.formats import FORMATS
from minitx.export.manifest import Manifest, is_exported, read_manifest
from minitx.runs.checkpoint import load_model
from minitx.utils.errors import UserError


def load(folders: Sequence[Path], device: str, precision: str | None) -> Translator:
    """Load runs, one or an ensemble, or one export. device, precision: as of `minitx.load`

    Errors: `UserError` for a device or precision that is not there, for a folder that is neither run nor export, and
    for folders that cannot translate together.
    """
    place = _device(device)
    if precision not in (None, *SEARCH_PRECISIONS):
        raise UserError(f"precision={precision}: must be {' or '.join(SEARCH_PRECISIONS)}, or None = as the run")
    exports = [folder for folder in folders if is_exported(folder)]
    if not exports:
        return _runs(folders, place, precision)
    if len(folders) > 1:
        raise UserError(f"{exports[0]}: is an export, and only runs can translate together; name it alone, or the run "
                        "that it was made from")
    return _export(exports[0], device, precision)


def _runs(folders: Sequence[Path], device: str, precision: str | None) -> Translator:
    models, pairs, configs = zip(*(load_model(folder, torch.device(device)) for folder in folders), strict=True)
    for folder, pair, cfg in zip(folders, pairs, configs, strict=True):
        if (cfg.data.src, cfg.data.tgt) != (configs[0].data.src, configs[0].data.tgt):
            raise UserError(f"{folder}: translates {cfg.data.src} into {cfg.data.tgt}, {folders[0]} "
                            f"{configs[0].data.src} into {configs[0].data.tgt}; only runs of one pair can translate "
                            "together")
        if pair.fingerprint != pairs[0].fingerprint:
            raise UserError(f"{folder}: has another vocabulary than {folders[0]}; only runs with one vocabulary can "
                            "translate together: train them on one text, with the same settings of tokenizer")
    for model in models:
        model.requires_grad_(False)  # so what is laid out for the search may be kept
    decode: DecodeConfig = configs[0].decode if precision is None else replace(configs[0].decode, precision=precision)
    return Translator(TorchBackend(models, device, decode.precision, serves=True), pairs[0], decode,
                      language=configs[0].data.src)


def _export(folder: Path, device: str, precision: str | None) -> Translator:
    manifest = read_manifest(folder)
    if not FORMATS[manifest.format].serves:
        ours = " or ".join(name for name, known in FORMATS.items() if known.serves)
        raise UserError(f"{folder}: is an export to {manifest.format}, which minitx writes for others; take the run "
                        f"that it was made from, or an export to {ours}")
    if device not in ("auto", "cpu", "cpu:0"):
        raise UserError(f"device={device}: {folder} is an export to {manifest.format}, which runs on the CPU here; "
                        "leave the device out")
    if precision is not None:
        raise UserError(f"precision={precision}: {folder} has the number format that it was exported in; leave it out")
    try:
        engine = import_module(f"minitx.serving.{manifest.format}")
    except ModuleNotFoundError as error:
        raise UserError(f"{folder}: needs {error.name}: pip install 'minitx[export]'") from error
    open_backend: Callable[[Path, Manifest], Backend] = engine.open_backend
    return Translator(open_backend(folder, manifest), TokenizerPair.load(folder),
                      replace(manifest.decode, precision=None),  # it has that of its export
                      language=manifest.src)


def _device(name: str) -> str:
    """Return a device's name, that of the best one for "auto". Errors: `UserError` if it is not there"""
    gpus = torch.cuda.device_count()
    apple = ["mps", "mps:0"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name not in ("cpu", "cpu:0", *apple, *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))):
        raise UserError(f"device={name}: PyTorch sees {gpus + bool(apple)} GPUs here; use auto, cpu, cuda[:index] "
                        "or mps")
    return name
