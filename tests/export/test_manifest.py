"""An exported folder is proven whole when it is read, or refused in a line."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import DECODE

from minitx.config.schema import DecodeConfig
from minitx.export.manifest import NAME, VERSION, Manifest, is_exported, read_manifest, records, write_manifest
from minitx.utils.errors import Exit, UserError

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files and their manifest."""
    folder = tmp_path / "exported"
    (folder / "parts").mkdir(parents=True)
    (folder / "model.bin").write_bytes(Random(0).randbytes(200))
    (folder / "parts" / "words.txt").write_text("Größe")
    write_manifest(folder, manifest(folder))
    return folder


def manifest(folder: Path) -> Manifest:
    return Manifest(version=VERSION, minitx="0.2.0", format="ctranslate2", quantization="int8", src="en", tgt="de",
                    model={"family": "transformer"}, decode=DecodeConfig(**DECODE),  # type: ignore[arg-type]
                    max_source_length=30, max_target_length=None, bleu_tokenizer=None,
                    data={"name": "files", "source": None, "licence": None}, result=None, files=records(folder))


def test_what_was_written_is_read(folder: Path) -> None:
    assert is_exported(folder)
    found = read_manifest(folder)
    assert found == replace(manifest(folder), files=found.files)
    assert found.files["parts/words.txt"]["bytes"] == len("Größe".encode())
    (folder / "README.md").write_text("a note of the user's")
    assert read_manifest(folder) == found


@in_one_folder
@given(name=st.sampled_from(["model.bin", "parts/words.txt", NAME]), data=st.data())
def test_any_changed_byte_is_found(name: str, data: st.DataObject, folder: Path) -> None:
    """Or it is white space between the values of JSON, and changes nothing."""
    whole, content = read_manifest(folder), (folder / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    (folder / name).write_bytes(content[:place] + bytes([byte]) + content[place + 1:])
    try:
        found = read_manifest(folder)
    except UserError:
        return
    finally:
        (folder / name).write_bytes(content)
    assert found == whole
    assert name == NAME
    assert chr(byte).isspace()


@pytest.mark.parametrize("name", ["model.bin", "parts/words.txt", NAME])
def test_a_file_that_was_cut_or_is_missing_is_found(name: str, folder: Path) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match="damaged") as cut:
        read_manifest(folder)
    assert cut.value.code == Exit.STORAGE
    path.unlink()
    with pytest.raises(UserError, match="is missing" if name != NAME else "was not written by minitx export"):
        read_manifest(folder)


@pytest.mark.parametrize(("content", "why"), [
    ("[]", "is not a file of minitx export"), ("{}", "is not a file of minitx export"),
    ('{"version": 99}', "of version 99, this minitx reads"), ("{", "not JSON"), ("\x00", "not JSON")])
def test_a_file_of_the_same_name_is_not_taken_for_ours(content: str, why: str, folder: Path) -> None:
    (folder / NAME).write_text(content)
    with pytest.raises(UserError, match=why):
        read_manifest(folder)


def test_a_folder_that_was_not_exported_is_refused(tmp_path: Path) -> None:
    assert not is_exported(tmp_path)
    with pytest.raises(UserError, match="was not written by minitx export"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match="was not written by minitx export"):
        read_manifest(tmp_path / "none")


@pytest.mark.parametrize("name", ["../model.bin", "/etc/passwd"])
def test_no_manifest_leads_out_of_its_folder(name: str, folder: Path) -> None:
    values = manifest(folder)
    (folder / NAME).unlink()
    write_manifest(folder, replace(values, files={name: values.files["model.bin"]}))
    with pytest.raises(UserError, match="names files outside its folder"):
        read_manifest(folder)


def test_a_manifest_is_json_that_people_can_read(folder: Path) -> None:
    values = json.loads((folder / NAME).read_text(encoding="utf-8"))
    assert values["decode"]["beam_size"] == DECODE["beam_size"]
    assert values["files"].keys() == {"model.bin", "parts/words.txt"}
