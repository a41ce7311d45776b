"""An exported ONNX folder as a backend: onnxruntime computes the steps, our own search takes them.

Tensors go to onnxruntime and come back without a copy: both libraries see the same memory.
"""

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from minitx.data.batch import Packed
from minitx.decoding.backend import Backend
from minitx.decoding.torch_backend import SteppingBackend
from minitx.export.manifest import Manifest
from minitx.models.base import DecodeState
from minitx.utils.errors import UserError

MEMORY, STATE, NEXT = "memory.", "state.", "next."


def open_backend(folder: Path, manifest: Manifest) -> Backend:
    """Return the backend of a folder that `manifest` proves whole. Errors: `UserError` if onnxruntime cannot load it"""
    return SteppingBackend(OnnxModel(folder), "cpu", manifest.max_source_length, manifest.max_target_length)


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
    """Load a graph, to run on as many threads as torch does. Errors: `UserError` if onnxruntime does not take it"""
    onnxruntime.disable_telemetry_events()  # which it has on Windows
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of types of its own
        raise UserError(f"{path}: onnxruntime {onnxruntime.__version__} cannot load it ({str(error)[:200]}); "
                        "pip install -U 'minitx[export]'") from error


def run(session: onnxruntime.InferenceSession, outputs: list[str], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a graph on tensors, and return its outputs by name."""
    values = {name: onnxruntime.OrtValue.from_dlpack(tensor.contiguous()) for name, tensor in given.items()}
    found = session.run_with_ort_values(outputs, values)
    return {name: from_dlpack(value) for name, value in zip(outputs, found, strict=True)}
