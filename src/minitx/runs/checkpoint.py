"""Save so that nothing good is ever lost; load only what is proven whole.

A checkpoint is one safetensors file, `step-00000300-<sha256>.safetensors`: the digest in its name exposes a truncated
or altered file. It is written to a temporary file, flushed, renamed, and only then are older ones deleted. Imports
neither Lightning nor Hydra: this file, the model's and the tokenizer's serve a run directory.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from minitx.config.saved import read_config
from minitx.config.schema import Config
from minitx.data.tokenizer import TokenizerPair
from minitx.models.base import Seq2Seq
from minitx.models.registry import build_model
from minitx.runs.compatibility import init_from
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

FORMAT = 5
_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{64})\.safetensors")
_LEFTOVER = re.compile(r"\..+\.\d+")  # what a killed writer left beside the file it meant


@dataclass(frozen=True)
class Checkpoint:
    """Hold a checkpoint that was read: tensors by name, and the metadata saved with them."""

    path: Path
    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def section(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with `prefix/`, without it, sorted: all ranks need one order.

        (The library's differs from process to process.)
        """
        return {n.removeprefix(prefix + "/"): self.tensors[n] for n in sorted(self.tensors)
                if n.startswith(prefix + "/")}


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], keep: int,
                    stopgap: int | None = None) -> Path:
    """Write a checkpoint, then delete all but the newest `keep`, one a step. Errors: OSError; older ones are then kept.

    stopgap: the step of one that was written only because the run was stopped there; it is deleted, too
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = save({n: t.detach().contiguous().cpu() for n, t in tensors.items()},
                   {"format": str(FORMAT), "meta": json.dumps(meta)})
    path = folder / f"step-{step:08d}-{hashlib.sha256(content).hexdigest()}.safetensors"
    write_atomically(path, content)
    for old in _newest_first(folder):
        if old != path and int(old.name[5:13]) in (step, stopgap):
            old.unlink()
    for old in _newest_first(folder)[keep:]:
        old.unlink()
    return path


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None; `warn` gets a line for each damaged one that is newer.

    Errors: `UserError` if there are some and none is whole: starting over is for a person to decide.
    """
    for path in _newest_first(folder):
        if (found := _read(path)) is not None:
            return found
        warn(f"{path.name[:13]} is damaged (its content does not match its name); trying the one before")
        path.rename(path.with_suffix(".damaged"))  # out of the way of those to come
    if damaged := list(folder.glob("step-*.damaged")):
        raise UserError(f"{folder}: each of its {len(damaged)} checkpoints is damaged, nothing is left to go on from; "
                        f"remove the folder to start this run over, or start another with {init_from(folder.parent)}",
                        Exit.STORAGE)
    return None


def whole_checkpoints(folder: Path, warn: Callable[[str], None] | None = None) -> Iterator[Checkpoint]:
    """Yield the checkpoints that are whole, newest first, and change nothing; `warn` gets a line for each other."""
    for path in _newest_first(folder):
        try:
            found = _read(path)
        except FileNotFoundError:  # the run that trains there has just dropped it
            continue
        if found is not None:
            yield found
        elif warn is not None:
            warn(f"{path.name[:13]} is damaged (its content does not match its name); passed over")


def _read(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None if it is damaged. Errors: `UserError` for one of another format."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem.rsplit("-", 1)[1]:
        return None
    header = _header(content)["__metadata__"]
    if header["format"] != str(FORMAT):
        raise UserError(f"{path}: checkpoint format {header['format']}, this version reads {FORMAT}; start a new "
                        f"run from its weights: {init_from(path.parents[1])} and another run_dir", Exit.STORAGE)
    return Checkpoint(path, load(content), json.loads(header["meta"]))


def _header(content: bytes) -> dict[str, Any]:
    """Return a safetensors file's header: dtype, shape and offsets of each tensor by name, and `__metadata__`."""
    header: dict[str, Any] = json.loads(content[8:_start(content)])
    return header


def _start(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _digest(content: bytes) -> str:
    """Hash names, types, shapes and numbers, but not the metadata."""
    tensors = {name: place for name, place in _header(content).items() if name != "__metadata__"}
    return hashlib.sha256(json.dumps(tensors, sort_keys=True).encode() + content[_start(content):]).hexdigest()


def remove_leftovers(run_dir: Path) -> None:
    """Remove temporary files of killed writers. Only for the process that holds the run directory."""
    for folder in (run_dir, run_dir / "checkpoints"):
        for path in folder.glob("*"):
            if _LEFTOVER.fullmatch(path.name) and path.is_file():
                path.unlink()


def keep_weights(run_dir: Path, sha256: str, keep: int) -> None:
    """Keep a copy of the weights that serve, which have this digest, beside the checkpoints.

    A run that resumes from an older checkpoint needs the weights that served then. The last `keep` copies are kept, as
    many as there are checkpoints. Errors: OSError
    """
    folder = run_dir / "checkpoints"
    folder.mkdir(exist_ok=True)
    copy = folder / f"best-{sha256}.safetensors"
    if not copy.exists():
        write_atomically(copy, (run_dir / "model.safetensors").read_bytes())
    os.utime(copy)
    for old in sorted(folder.glob("best-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)[:-keep]:
        old.unlink()


def restore_weights(run_dir: Path, sha256: str) -> bool:
    """Make the weights of this digest serve again, and tell whether they could be found.

    A part of the run that is lost may have replaced them.

    Errors: OSError
    """
    served = run_dir / "model.safetensors"
    for path in (served, run_dir / "checkpoints" / f"best-{sha256}.safetensors"):
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() == sha256:
            if path != served:
                write_atomically(served, content)
            return True
    return False


def _newest_first(folder: Path) -> list[Path]:
    found = []
    for path in folder.glob("step-*.safetensors"):
        with suppress(FileNotFoundError):  # dropped just now
            if _NAME.fullmatch(path.name):
                found.append((path.name[:13], path.stat().st_mtime_ns, path))
    return [path for *_, path in sorted(found, reverse=True)]


def save_model(run_dir: Path, model: Seq2Seq) -> str:
    """Write RUN/model.safetensors, the weights that serve, with their digest inside. Returns the file's SHA-256."""
    tensors = {n: t.detach().contiguous().cpu() for n, t in model_tensors(model).items()}
    content = save(tensors, {"sha256": _digest(save(tensors))})
    write_atomically(run_dir / "model.safetensors", content)
    return hashlib.sha256(content).hexdigest()


def model_tensors(model: Seq2Seq) -> dict[str, Tensor]:
    """Return each of the model's tensors once, under its first name where several are tied."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    return {n: t for n, t in named.items() if n in model.state_dict()}


def load_tensors(model: Seq2Seq, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model that has exactly these. Errors: ValueError naming those that differ."""
    own = model_tensors(model)
    if own.keys() != tensors.keys():
        raise ValueError(f"weights do not fit the model: {sorted(own.keys() ^ tensors.keys())[:5]}")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise ValueError(f"{name} has shape {list(tensors[name].shape)}, the model wants {list(tensor.shape)}")
            tensor.copy_(tensors[name])


def load_weights(run_dir: Path, model: Seq2Seq) -> str:
    """Copy RUN/model.safetensors into a model. Returns its SHA-256. Errors: `UserError` if it is missing or no fit."""
    path = _weights(run_dir)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        tensors = load(content)
        if _header(content).get("__metadata__", {}).get("sha256") != _digest(content):
            raise ValueError("its content does not match its digest")
        load_tensors(model, tensors)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path}: damaged, or of another model: {error}", Exit.STORAGE) from error
    return hashlib.sha256(content).hexdigest()


def _weights(run_dir: Path) -> Path:
    path = run_dir / "model.safetensors"
    if not path.exists():
        raise UserError(f"{run_dir}: no model.safetensors yet; it is written at the first validation")
    return path


def load_model(run_dir: Path | str, device: torch.device | str = "cpu") -> tuple[Seq2Seq, TokenizerPair, Config]:
    """Rebuild the trained model of a run directory, in fp32 and ready to translate.

    Errors: `UserError` where the folder is no run, has no weights yet, or its weights are damaged.
    """
    run_dir = Path(run_dir)
    cfg = read_config(run_dir)
    _weights(run_dir)  # before the tokenizer: a run that has just begun may have neither
    tokenizers = TokenizerPair.load(run_dir)
    model = build_model(cfg.model, src_vocab_size=tokenizers.src.vocab_size, tgt_vocab_size=tokenizers.tgt.vocab_size)
    load_weights(run_dir, model)
    return model.to(device).eval(), tokenizers, cfg
