"""What a result says of the machine: the units that make bf16 worth while."""

import pytest
import torch

from minitx.profiling.provenance import bf16_units, hardware


@pytest.mark.parametrize(("tiles", "vectors", "units"), [
    (True, True, "AMX"), (False, True, "AVX-512"), (False, False, None)])
def test_the_fastest_units_for_bf16_are_named(monkeypatch: pytest.MonkeyPatch, tiles: bool, vectors: bool,
                                              units: str | None) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    assert bf16_units() == units
    assert hardware(torch.device("cpu"))["bf16_units"] == units
