"""A row says what its run did, byte for byte the same; what does not hold or is not wanted is refused in one line."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from published import write_run

from minitx.experiments.reports import results
from minitx.experiments.reports.results import MAX_BYTES, Row, find_row, make_row, read_rows, write_row
from minitx.runs.result import Result
from minitx.utils.errors import UserError


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Row:
    return make_row(write_run(tmp_path_factory.mktemp("runs") / "run"))


def test_a_run_becomes_a_row_of_numbers(row: Row) -> None:
    assert row.name == f"synthetic_lstm.1.{row.result.config_sha256[:8]}"
    assert row.command == "python train.py experiment=synthetic_lstm"
    assert row.curve == [[100, 9.5, 2.0, 3.5]]
    assert {name: len(counts) for name, counts in row.sentences.items()} == {"test": 40, "minimal_pairs": 40}
    assert "Katze" not in row.json()


def test_what_is_written_is_read_and_has_the_same_bytes_each_time(row: Row, tmp_path: Path) -> None:
    path, replaced = write_row(row, tmp_path)
    before = path.read_bytes()
    assert (path.name, replaced) == (f"{row.name}.json", False)
    assert read_rows(tmp_path) == [row]
    assert write_row(row, tmp_path) == (path, True)
    assert path.read_bytes() == before


def test_a_large_row_is_packed_and_takes_the_plain_one_s_place(row: Row, tmp_path: Path) -> None:
    plain, _ = write_row(row, tmp_path)
    large = replace(row, curve=row.curve * 9_000)
    packed, replaced = write_row(large, tmp_path)
    assert (packed.name, replaced, plain.exists()) == (f"{row.name}.json.gz", True, False)
    assert packed.stat().st_size <= MAX_BYTES
    assert packed.read_bytes()[:10] == b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff"  # no time of day, no system
    assert read_rows(tmp_path) == [large]
    assert write_row(row, tmp_path) == (plain, True)
    assert not packed.exists()


def test_a_row_that_is_too_large_even_so_is_refused(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_BYTES", 500)
    with pytest.raises(UserError, match=r"bytes when packed.*data\.test_sets"):
        write_row(row, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_seed_or_config_is_another_row(row: Row, tmp_path: Path) -> None:
    others = [replace(row, result=replace(row.result, seed=10)), replace(row, result=replace(row.result, seed=2)),
              replace(row, result=replace(row.result, config_sha256="f" * 64))]
    assert not any(write_row(one, tmp_path)[1] for one in (row, *others))
    assert [one.result.seed for one in read_rows(tmp_path)] == [1, 1, 2, 10]


@pytest.mark.parametrize(("changes", "why"), [
    ({"status": "interrupted"}, "the run is interrupted; only finished runs"),
    ({"status": "diverged"}, "the run is diverged"),
    ({"experiment": None}, "names no experiment.*experiment=NAME"),
    ({"nonfinite_steps": 3}, "3 updates were not finite"),
    ({"init_from_sha256": "a" * 64}, "it began with another run's weights .init_from.; only runs that drew their own"),
    ({"config_sha256": "f" * 64}, "config.yaml is not the config that result.json is of"),
    ({"environment": {"OMP_NOTE": "Zwei Hunde laufen. " * 20}}, "text has no place"),
    ({"stop_reason": "max\nsteps"}, "text has no place"),
])  # fmt: skip
def test_what_is_not_to_be_published(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", **changes)
    with pytest.raises(UserError, match=why) as slip:
        make_row(run_dir)
    assert str(slip.value).startswith(f"{run_dir}: ")
    assert "\n" not in str(slip.value)


@pytest.mark.parametrize("name", ["sentence_statistics.json", "metrics.jsonl", "config.yaml", "result.json"])
def test_a_missing_or_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run")
    (run_dir / name).write_text('{"columns": [', encoding="utf-8")
    with pytest.raises(UserError, match=name):
        make_row(run_dir)
    (run_dir / name).unlink()
    with pytest.raises(UserError, match=name):
        make_row(run_dir)


def test_a_stacked_experiment_has_no_command_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"experiment=synthetic_lstm\+quick: no such option"):
        make_row(write_run(tmp_path / "run", composed="[synthetic_lstm,quick]"))


def test_a_row_keeps_how_long_sources_are(row: Row, tmp_path: Path) -> None:
    assert {name: len(words) for name, words in row.source_words.items()} == {"test": 40, "minimal_pairs": 40}
    known = replace(row, source_words={name: [7] * 40 for name in row.sentences})
    write_row(known, tmp_path)
    assert read_rows(tmp_path) == [known]


def test_a_row_is_found_by_its_name_or_what_that_begins_with(row: Row, tmp_path: Path) -> None:
    other = replace(row, result=replace(row.result, seed=10))
    write_row(row, tmp_path)
    write_row(other, tmp_path)
    for name in (row.name, f"{row.name}.json", "synthetic_lstm.1"):
        assert find_row(name, tmp_path) == row
    with pytest.raises(UserError, match=r"^synthetic_lstm: several rows of .*: synthetic_lstm\.1\..*, synthetic"):
        find_row("synthetic_lstm", tmp_path)
    with pytest.raises(UserError, match=r"synthetic_lstn.1: no row of .*did you mean synthetic_lstm\.1"):
        find_row("synthetic_lstn.1", tmp_path)


def drop_a_source(values: dict[str, Any]) -> None:
    values["statistics"]["source_words"]["minimal_pairs"].pop()


def count_in_letters(values: dict[str, Any]) -> None:
    values["statistics"]["source_words"]["minimal_pairs"][0] = "seven"


def change_bleu(values: dict[str, Any]) -> None:
    values["result"]["test"]["test"]["bleu"] += 1e-6


def change_count(values: dict[str, Any]) -> None:
    values["statistics"]["sets"]["test"][7][2] += 1


def drop_sentence(values: dict[str, Any]) -> None:
    values["statistics"]["sets"]["test"].pop()


def drop_set(values: dict[str, Any]) -> None:
    del values["statistics"]["sets"]["test"]


def keep_hypotheses(values: dict[str, Any]) -> None:
    values["result"]["test"]["test"]["hypotheses"] = ["Der Hund"]


def put_text_among_numbers(values: dict[str, Any]) -> None:
    values["curve"]["rows"][0].append("Der Hund")


def tell(command: str) -> Callable[[dict[str, Any]], None]:
    def tell_another_command(values: dict[str, Any]) -> None:
        values["command"] = command

    return tell_another_command


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def drop_a_key(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return drop_a_key


def mistype(*keys: str) -> Callable[[dict[str, Any]], None]:
    def mistype_a_value(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = "many"

    return mistype_a_value


def add_key(values: dict[str, Any]) -> None:
    values["samples"] = []


def older(values: dict[str, Any]) -> None:
    del values["format"]


def no_numbers(values: dict[str, Any]) -> None:
    values["statistics"]["sets"]["test"] = 3


def unfinished(values: dict[str, Any]) -> None:
    values["result"]["status"] = "interrupted"


OF_LSTM = "python train.py experiment=synthetic_lstm"


@pytest.mark.parametrize(("edit", "why"), [
    (change_bleu, "test: BLEU"), (change_count, "test: BLEU"), (drop_sentence, "of 40 sentences.* of 39"),
    (drop_set, "but statistics of minimal_pairs"), (keep_hypotheses, "unknown in a test set's scores: hypotheses"),
    (put_text_among_numbers, "numbers only"),
    (drop_a_source, "minimal_pairs: source_words has not one whole number for each of its 40 sentences"),
    (count_in_letters, "minimal_pairs: source_words has not one whole number for each of its 40 sentences"),
    (drop("statistics", "source_words"), "not a row: KeyError.'source_words'"),
    (drop("result", "mfu_pct"), "not a result of this version: missing mfu_pct"),
    (drop("result", "environment"), "not a result of this version: missing environment"),
    (mistype("result", "time_split"), "time_split has a wrong type"),
    (tell("python train.py experiment=quick"), "the command is not of experiment=synthetic_lstm"),
    (tell(f"{OF_LSTM}_attention"), "the command is not of experiment=synthetic_lstm"),
    (tell(f"{OF_LSTM} && rm -r runs"), "the command is more than words"),
    (tell(f"{OF_LSTM} 'data.src=`rm -r runs`'"), "the command is not one line of 1,000 characters without backticks"),
    (tell(f"{OF_LSTM}\nrm -r runs"), "the command is not one line"),
    (tell(f"{OF_LSTM} seed={'1' * 1000}"), "the command is not one line"),
    (tell(f"{OF_LSTM} 'seed=1"), "not a row"), (drop("command"), "see command"), (mistype("curve"), "not a row"),
    (drop("result", "hardware", "cores"), "hardware lacks cores"), (drop("result", "hardware", "cpu"), "lacks cpu"),
    (drop("result", "versions", "torch"), "versions lacks torch"),
    (drop("result", "decode", "beam_size"), "decode lacks beam_size"),
    (drop("result", "test", "test", "bleu_signature"), "test: missing in a test set's scores: bleu_signature"),
    (mistype("result", "params"), "params has a wrong type: 'many'"),
    (mistype("result", "train_s"), "train_s has a wrong type"),
    (mistype("result", "valid_loss"), "valid_loss has a wrong type"),
    (mistype("result", "test", "test", "dictionary_bleu"), "test: dictionary_bleu has a wrong type"),
    (add_key, "see samples"), (older, "row format None"),
    (no_numbers, "not a row"), (unfinished, "only finished runs"),
], ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
def test_a_row_that_was_edited_by_hand_is_noticed(edit: Callable[[dict[str, Any]], None], why: str, row: Row,
                                                  tmp_path: Path) -> None:
    path, _ = write_row(row, tmp_path)
    values = json.loads(path.read_text(encoding="utf-8"))
    edit(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=why) as slip:
        read_rows(tmp_path)
    assert str(slip.value).startswith(f"{path}: ")


def test_a_file_of_another_name_is_no_second_row(row: Row, tmp_path: Path) -> None:
    path, _ = write_row(row, tmp_path)
    path.rename(tmp_path / "mine.json")
    with pytest.raises(UserError, match=rf"mine\.json: the row in it is named {row.name}"):
        read_rows(tmp_path)


def test_two_files_of_one_row_are_refused(row: Row, tmp_path: Path) -> None:
    path, _ = write_row(row, tmp_path)
    (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match=rf"^{path}: {path.name}\.gz is there too, and a row has one file"):
        read_rows(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", gzip.compress(b"{}")[:-4], gzip.compress(b"[")])
def test_a_file_that_is_no_row_is_named(content: bytes, tmp_path: Path) -> None:
    for name in ("a.json", "a.json.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: cannot be read"):
            read_rows(tmp_path)
        (tmp_path / name).unlink()


def test_a_result_says_which_keys_are_missing_and_which_unknown(row: Row) -> None:
    values = json.loads(row.result.json())
    del values["steps"], values["seed"]
    with pytest.raises(UserError, match="^here: not a result of this version: missing seed, steps; unknown colour$"):
        Result.parse(values | {"colour": "red"}, "here")


def test_an_installed_minitx_says_where_rows_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "CHECKOUT", None)
    with pytest.raises(UserError, match="; they come with a checkout of minitx, not with the installed package: work "
                                        "in one, or name a folder of your own with --ledger$"):
        results.require_ledger(tmp_path / "none")
