"""Checkpoints: what is saved comes back, what is damaged is passed over, what was good is never lost."""

import hashlib
import subprocess
from pathlib import Path

import pytest
import torch
from toys import tiny_transformer

from minitx.runs.checkpoint import (
    keep_weights,
    load_checkpoint,
    load_tensors,
    load_weights,
    model_tensors,
    remove_leftovers,
    restore_weights,
    save_checkpoint,
    save_model,
    whole_checkpoints,
)
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return save_checkpoint(folder, step, {"model/a": torch.full((3,), step)}, {"state": {"step": step}}, keep)


def newest(folder: Path) -> tuple[int | None, list[str]]:
    said: list[str] = []
    found = load_checkpoint(folder, said.append)
    return (None if found is None else int(found.tensors["model/a"][0])), said


def test_the_newest_comes_back_and_older_ones_go(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert newest(tmp_path) == (15, [])
    assert [path.name[:13] for path in sorted(tmp_path.iterdir())] == ["step-00000010", "step-00000015"]
    found = load_checkpoint(tmp_path, print)
    assert found is not None
    assert found.meta == {"state": {"step": 15}}
    assert list(found.section("model")) == ["a"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "nothing") == (None, [])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_one_is_passed_over_aloud(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 5)
    path = save(tmp_path, 10)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"truncated": content[:-4], "flipped": content, "empty": b""}[damage])
    step, said = newest(tmp_path)
    assert step == 5
    assert said == ["step-00000010 is damaged (its content does not match its name); trying the one before"]
    save(tmp_path, 7)
    assert newest(tmp_path) == (7, []), "a damaged one takes no good one's place"


def test_what_a_kill_leaves_half_written_is_not_seen(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / ".step-00000010-abc.safetensors.123").write_bytes(b"half")
    assert newest(tmp_path) == (5, [])


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 5)
    (tmp_path / "hypotheses").mkdir()
    kept = {".lock", "metrics.jsonl", "config.yaml", "notes.2024", "hypotheses", "checkpoints"}
    for name in kept - {"hypotheses", "checkpoints"} | {".model.safetensors.12", ".tokenizer.json.7"}:
        (tmp_path / name).touch()
    (tmp_path / "checkpoints/.step-00000010-abc.safetensors.123").touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_where_none_is_whole_a_person_decides(tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, step).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match="each of its 2 checkpoints is damaged") as caught:
            load_checkpoint(tmp_path, lambda _: None)
        assert caught.value.code == Exit.STORAGE
    save(tmp_path, 15)
    assert newest(tmp_path) == (15, [])


def test_a_step_has_one_and_a_stopgap_goes(tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, step, keep=3)
    other = save_checkpoint(tmp_path, 10, {"model/a": torch.zeros(3)}, {"state": {"step": 10}}, 3)
    assert list(tmp_path.glob("step-00000010-*")) == [other]
    save(tmp_path, 13, keep=3)
    save_checkpoint(tmp_path, 15, {"model/a": torch.ones(3)}, {"state": {"step": 15}}, 3, stopgap=13)
    assert sorted(int(path.name[5:13]) for path in tmp_path.iterdir()) == [5, 10, 15]


def test_reading_the_whole_ones_touches_nothing(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        path = save(tmp_path, step, keep=3)
    path.write_bytes(b"damaged")
    heard: list[str] = []
    assert [int(found.tensors["model/a"][0]) for found in whole_checkpoints(tmp_path, heard.append)] == [10, 5]
    assert heard == ["step-00000015 is damaged (its content does not match its name); passed over"]
    assert path.exists()


def test_another_format_says_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.runs.checkpoint.FORMAT", 1)
    save(tmp_path / "RUN/checkpoints", 5)
    monkeypatch.undo()
    with pytest.raises(UserError, match="checkpoint format 1, this version reads 5; .* init_from=.*/RUN and"):
        newest(tmp_path / "RUN/checkpoints")


def test_a_failed_write_leaves_what_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"good")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"good"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    """On a real file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        save(disk, 5)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(disk, 10, {"model/a": torch.zeros(2**19)}, {}, 2)
        assert newest(disk) == (5, [])
    finally:
        subprocess.run(["umount", disk], check=True)


def test_tied_weights_are_saved_once_and_fit_back() -> None:
    one, other = tiny_transformer(seed=0), tiny_transformer(seed=1)
    assert "output.weight" not in model_tensors(one)
    load_tensors(other, {name: tensor.detach().clone() for name, tensor in model_tensors(one).items()})
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert other.output.weight is other.src_embed.weight


def test_weights_of_another_model_are_refused_by_name() -> None:
    one, other = tiny_transformer(), tiny_transformer(d_model=32)
    with pytest.raises(ValueError, match=r"src_embed.weight has shape \[13, 16\], the model wants \[13, 32\]"):
        load_tensors(other, model_tensors(one))
    with pytest.raises(ValueError, match="do not fit"):
        load_tensors(tiny_transformer(num_layers=1), model_tensors(one))


def test_weights_that_a_checkpoint_knows_of_come_back(tmp_path: Path) -> None:
    """Of a part of the run that is lost, the better weights are lost too: those before them serve again."""
    digests = []
    for seed in range(4):
        digests.append(save_model(tmp_path, tiny_transformer(seed=seed)))
        if seed < 3:
            keep_weights(tmp_path, digests[-1], keep=2)
    assert restore_weights(tmp_path, digests[3]), "they serve"
    assert restore_weights(tmp_path, digests[2])
    assert hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest() == digests[2]
    assert restore_weights(tmp_path, digests[1])
    assert not restore_weights(tmp_path, digests[0]), "as many are kept as there are checkpoints"
    assert not restore_weights(tmp_path, digests[3])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_weights_that_serve_are_verified(tmp_path: Path, damage: str) -> None:
    model, other = tiny_transformer(seed=1), tiny_transformer(seed=2)
    save_model(tmp_path, model)
    load_weights(tmp_path, other)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 64
    path.write_bytes({"truncated": content[:-4], "flipped": content, "empty": b""}[damage])
    with pytest.raises(UserError, match="damaged"):
        load_weights(tmp_path, other)
