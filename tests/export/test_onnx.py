"""A run's graphs: all families have them, ONNX's own checker passes them, and each weight is stored once."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from exportable import TIED, write_drawn_run
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from toys import FAMILIES

from minitx.export.graphs.graph import Weights
from minitx.export.manifest import read_manifest
from minitx.export.onnx import FAMILIES as GRAPHS
from minitx.export.onnx import write_graphs
from minitx.export.writing import export_run
from minitx.models.linear_rnn import LinearRNN
from minitx.models.registry import MODELS, model_class
from minitx.runs.checkpoint import load_model
from minitx.utils.errors import UserError

NAMES = ("encoder", "decoder")


def graphs(folder: Path) -> list[onnx.GraphProto]:
    return [onnx.load(folder / f"{name}.onnx", load_external_data=False).graph for name in NAMES]


def test_every_family_has_graphs() -> None:
    assert set(GRAPHS) == {model_class(family) for family in MODELS}


def test_a_family_without_graphs_is_refused(tmp_path: Path) -> None:
    class Another(LinearRNN):
        pass

    model = FAMILIES["linear_rnn ssru"]()
    model.__class__ = Another
    with pytest.raises(UserError, match="graphs of Another"):
        write_graphs(model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_graphs_are_onnx_and_fit_together(family: str, quantization: str | None, tmp_path: Path) -> None:
    """What the encoder returns the decoder takes, by name and shape; what it calls next it takes again."""
    write_graphs(FAMILIES[family](), tmp_path, quantization)
    for name in NAMES:
        onnx.checker.check_model(tmp_path / f"{name}.onnx", full_check=True)
    (_, read), (given_, stepped) = ([shapes(side) for side in (graph.input, graph.output)]
                                    for graph in graphs(tmp_path))
    assert {name: shape for name, shape in given_.items() if "." in name} == {
        name: ["hypotheses" if size == "sentences" and name.startswith("state.") else size for size in shape]
        for name, shape in read.items()}
    assert {name.replace("next.", "state."): ["past" if size == "present" else size for size in shape]
            for name, shape in stepped.items() if name != "logits"} == {
        name: shape for name, shape in given_.items() if name.startswith("state.")}


def shapes(values: Any) -> dict[str, list[str | int]]:
    return {value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in values}


@pytest.mark.parametrize("family", ["transformer learned", "lstm dot", "gnmt", "linear_rnn rglru attention"])
def test_a_weight_is_stored_once(family: str, tmp_path: Path) -> None:
    """Embeddings that are tied, and that both graphs look up, too."""
    model = FAMILIES[family](d_model=64)
    write_graphs(model, tmp_path)
    encoder, decoder = ({tuple(field.value for field in tensor.external_data[1:]) for tensor in graph.initializer
                         if tensor.external_data} for graph in graphs(tmp_path))  # offset and length
    assert encoder & decoder
    stored = sum(int(length) for _, length in encoder | decoder)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert 0.9 * weights < stored <= weights


@given(arrays.arrays("float32", arrays.array_shapes(min_dims=2, max_dims=3, max_side=9),
                     elements=st.floats(-1e3, 1e3, width=32)))
def test_int8_is_off_by_half_a_step_at_most(matrix: Any) -> None:
    with Weights(Path("/dev/null"), {}) as weights:
        rounded, scale = weights.rounded(torch.from_numpy(matrix))
    step = torch.from_numpy(matrix).abs().amax(-1, keepdim=True) / 127
    assert rounded.dtype is torch.int8
    error = (rounded * scale[..., None] - torch.from_numpy(matrix)).abs()
    assert (error <= 0.5001 * step + 1e-30).all()


def test_int8_is_smaller(tmp_path: Path) -> None:
    run_dir = write_drawn_run(tmp_path / "run", "model.d_model=128", "model.d_ff=512", *TIED)
    sizes = [export_run(run_dir, "onnx", tmp_path / str(how), how).files["weights.bin"]["bytes"]
             for how in (None, "int8")]
    assert sizes[1] < 0.3 * sizes[0]


def test_a_folder_says_what_it_reads_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    run_dir = write_drawn_run(tmp_path / "run", "model.pos_encoding=learned")
    out = tmp_path / "out"
    export_run(run_dir, "onnx", out)
    manifest, model = read_manifest(out), load_model(run_dir)[0]
    assert (manifest.max_source_length, manifest.max_target_length) == (model.max_source_length,) * 2 == (1024, 1024)
    assert {"encoder.onnx", "decoder.onnx", "weights.bin"} < manifest.files.keys()
    weights = out / "weights.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="weights.bin: damaged"):
        read_manifest(out)
