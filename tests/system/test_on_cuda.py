"""A whole run on a GPU that is played: the CPU's losses, and what events, driver and data sheet say of the machine."""

from pathlib import Path

import pytest
from played_cuda import NAME, played_gpu
from trials import losses, train

import minitx
from minitx.runs.result import Result

WORDS = ("model.dropout=0", "trainer.max_steps=6", "checkpoint.every_n_steps=3")


def test_it_trains_as_a_cpu_does_and_says_what_the_gpu_says(text: Path, tmp_path: Path) -> None:
    assert train(text, tmp_path / "cpu", *WORDS, "trainer.accelerator=cpu").returncode == 0
    with played_gpu():
        done = train(text, tmp_path / "gpu", *WORDS, "trainer.accelerator=gpu")
    assert done.returncode == 0, done.stderr
    assert dict(losses(tmp_path / "gpu")) == pytest.approx(dict(losses(tmp_path / "cpu")), rel=1e-5)
    result = Result.read(tmp_path / "gpu/result.json")
    assert (result.device, result.hardware["gpu"], result.hardware["gpu_memory_gib"]) == ("cuda", NAME, 80.0)
    assert (result.peak_tflops, result.peak_source) == (66.9, "data sheet")
    assert (result.busy_pct, result.gpu_memory_gib, result.peak_memory_gib) == (75.0, 5.0, 3.0)
    assert result.energy_wh is not None
    assert result.energy_wh >= 0.01
    assert not {"busy_pct", "energy_wh", "gpu_memory_gib", "peak_tflops"} & result.not_measured.keys()
    split = result.time_split
    assert split["optimizer"] == pytest.approx(6 * 0.001), "an event a millisecond: that is what was reported"
    assert split["forward"] == split["backward"] >= split["optimizer"]


@pytest.mark.parametrize("model", [
    "lstm_attention", pytest.param("transformer", marks=pytest.mark.slow),
    pytest.param("linear_rnn_attention", marks=pytest.mark.slow)])
def test_by_itself_it_takes_the_gpu_and_its_units_for_bf16(model: str, text: Path, tmp_path: Path) -> None:
    words = ["data=files", f"data.dir={text}", f"model={model}", "model.size=toy", "trainer.log_every_n_steps=2",
             "trainer.tokens_per_update=256", "data.max_tokens=256", "trainer.threads=1", *WORDS]
    cpu = minitx.train([*words, "trainer.precision=32-true", "trainer.accelerator=cpu"], tmp_path / "cpu")
    with played_gpu():
        gpu = minitx.train(words, tmp_path / "gpu")
    assert (gpu.result.device, gpu.result.precision, gpu.result.peak_tflops) == ("cuda", "bf16-mixed", 989.4)
    assert dict(losses(tmp_path / "gpu")) == pytest.approx(dict(losses(tmp_path / "cpu")), rel=5e-3)
    assert cpu.result.device == "cpu"
