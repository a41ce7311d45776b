"""Exported ONNX folders as a backend: onnxruntime computes the steps, our own search takes them.

Tensors go to onnxruntime and come back without a copy: both libraries see the same memory.
"""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from minitx.data.batch import Packed
from minitx.decoding.ensemble import Ensemble
from minitx.decoding.stepping import SteppingBackend
from minitx.export.manifest import read_manifest
from minitx.models.base import DecodeState

MEMORY, STATE, NEXT = "memory.", "state.", "next."


class OnnxBackend(SteppingBackend):
    """Search with one export, or with several over one vocabulary, whose probabilities are averaged; on a CPU."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Errors: `UserError` for a folder that is damaged or was not exported"""
        manifests, models = [read_manifest(folder) for folder in folders], [OnnxModel(folder) for folder in folders]
        self.model = models[0] if len(models) == 1 else Ensemble(models)
        self.max_source_length, self.max_target_length = (
            min((limit for limit in limits if limit is not None), default=None) for limits in (
                [manifest.max_source_length for manifest in manifests],
                [manifest.max_target_length for manifest in manifests]))


class OnnxModel:
    """Do what `Seq2Seq` does for a search, on a CPU. Threads may share one.

    B sentences, K hypotheses a sentence, V target vocabulary.
    """

    def __init__(self, folder: Path) -> None:
        self.encoder, self.decoder = (open_session(folder / f"{name}.onnx") for name in ("encoder", "decoder"))
        outputs = [output.name for output in self.encoder.get_outputs()]
        self.memory, self.state = ([name for name in outputs if name.startswith(kind)] for kind in (MEMORY, STATE))
        self.next = [NEXT + name.removeprefix(STATE) for name in self.state]

    def encode(self, src: Packed) -> dict[str, Tensor]:
        """Read the source. --> what decoding keeps of it and begins with, by name, a row a sentence"""
        given = {"source": src.ids[src.rows], "lengths": src.lengths}
        return run(self.encoder, [*self.memory, *self.state], given)

    def init_state(self, memory: dict[str, Tensor], src: Packed, beam_size: int = 1) -> DecodeState:
        """Prepare decoding of K hypotheses a sentence."""
        return DecodeState([memory[name] for name in self.memory],
                           [memory[name].repeat_interleave(beam_size, dim=0) for name in self.state], beam_size)

    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Read one token a hypothesis. tokens: [B*K] --> logits [B*K, V], next state"""
        given = {"tokens": tokens, "position": torch.tensor(state.position)}
        given |= dict(zip(self.memory, state.sentences, strict=True)) | dict(zip(self.state, state.beams, strict=True))
        after = run(self.decoder, ["logits", *self.next], given)
        return after["logits"], DecodeState(state.sentences, [after[name] for name in self.next], state.beam_size,
                                            state.position + 1)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Load a graph, to run on as many threads as torch does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, outputs: list[str], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a graph on tensors, and return its outputs by name."""
    values = {name: onnxruntime.OrtValue.from_dlpack(tensor.contiguous()) for name, tensor in given.items()}
    found = session.run_with_ort_values(outputs, values)
    return {name: from_dlpack(value) for name, value in zip(outputs, found, strict=True)}
