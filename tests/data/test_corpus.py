"""Text from files, the hub's layout and the grammar: every format, and the line a user sees for every slip."""

import gzip
import json
import subprocess
import sys
import warnings

import pyarrow as pa
import pyarrow.parquet
import pytest
from data.conftest import data_config, needs_data

from minitx.data import corpus as sources
from minitx.data.cleaning import Overlap
from minitx.data.corpus import check_text, find_text, load_corpus, local_folder
from minitx.utils.errors import Exit, UserError

PAIRS = {
    "train": [("a dog", "ein Hund"), ("two cats", "zwei Katzen"), ("", "leer")],
    "valid": [("a cat", "eine Katze")],
    "test_2016": [("dogs", "Hunde"), ("cats", "Katzen")],
}
STEMS = {"train": "train", "valid": "val", "test_2016": "test_2016"}


def write(path, lines, end="\n"):
    data = "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def fill(folder, stems=STEMS, suffix="", end="\n"):
    """Write all splits as plain files."""
    for split, stem in stems.items():
        for side, lang in enumerate(("en", "de")):
            write(folder / f"{stem}.{lang}{suffix}", [pair[side] for pair in PAIRS[split]], end)
    return folder


def table(folder, kind, stems=STEMS, nested=False):
    """Write all splits as tables of `kind`."""
    for split, stem in stems.items():
        rows = [{"id": i, "en": en, "de": de} for i, (en, de) in enumerate(PAIRS[split])]
        rows = [{"translation": row} for row in rows] if nested else rows
        path = folder / f"{stem}.{kind}"
        if kind == "parquet":
            pa.parquet.write_table(pa.Table.from_pylist(rows), path)
        elif kind.startswith("jsonl"):
            write(path, [json.dumps(row) for row in rows])
        else:
            write(path, ["\t".join(pair) for pair in PAIRS[split]])
    return folder


def load(folder, **changes):
    return load_corpus(data_config(dir=str(folder), **changes))


def read_all(folder, **changes):
    corpus = load(folder, **changes)
    return {split: corpus.read(split) for split in corpus.splits}


def refusal(folder, *, is_early=True, **changes) -> str:
    """Return the line a user sees: where the text is read and, `is_early`, before torch is imported."""
    with pytest.raises(UserError) as caught:
        read_all(folder, **changes)
    if is_early:
        with pytest.raises(UserError) as early:
            find_text(data_config(dir=str(folder), **changes))
        assert (str(early.value), early.value.code) == (str(caught.value), caught.value.code)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "").replace(str(folder), "DIR")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_plain_files(tmp_path, name, suffix):
    fill(tmp_path, STEMS | {"valid": name}, suffix)
    assert read_all(tmp_path) == PAIRS
    assert list(load(tmp_path).splits) == ["train", "valid", "test_2016"]


@pytest.mark.parametrize("kind", ["tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_tables(tmp_path, kind):
    assert read_all(table(tmp_path, kind)) == PAIRS


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_nested_tables_in_both_directions(tmp_path, kind):
    table(tmp_path, kind, nested=True)
    assert read_all(tmp_path) == PAIRS
    turned = {split: [(tgt, src) for src, tgt in pairs] for split, pairs in PAIRS.items()}
    assert read_all(tmp_path, src="de", tgt="en") == turned


@pytest.mark.parametrize("place", [".", "data"])
def test_the_hubs_parquet_names_and_shards(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    stems = {"train": "train-00000-of-00002", "valid": "validation-00000-of-00001", "test_2016": "test-00000-of-00001"}
    table(folder, "parquet", stems, nested=True)
    assert "the train split has 1 of its shards, not all" in refusal(tmp_path)
    (folder / "train-00001-of-00002.parquet").write_bytes((folder / "train-00000-of-00002.parquet").read_bytes())
    assert read_all(tmp_path) == {"train": PAIRS["train"] * 2, "valid": PAIRS["valid"], "test": PAIRS["test_2016"]}


def test_a_tsv_header_names_the_columns(tmp_path):
    fill(tmp_path)
    for lang in ("en", "de"):
        (tmp_path / f"train.{lang}").unlink()
    write(tmp_path / "train.tsv", ["note\tde\ten", "x\tein Hund\ta dog"])
    assert read_all(tmp_path)["train"] == [("a dog", "ein Hund")]
    write(tmp_path / "train.tsv", ["note\tde\ten", "x\tein Hund\ta dog", "ein Hund\ta dog"])
    assert refusal(tmp_path) == "train.tsv: line 3 has 2 tab-separated columns, not 3"
    write(tmp_path / "train.tsv", ["a dog\tein Hund", "a dog"])
    assert refusal(tmp_path).startswith("train.tsv: line 2 has 1 tab-separated columns, not 2 (en, de; other layouts")


def test_a_tsv_header_that_lacks_a_language_is_no_pair(tmp_path):
    table(tmp_path, "tsv")
    slips = (("en\tfr", "en, fr", "de"), ("note\tde\tfr", "note, de, fr", "en"), ("de", "de", "en"))
    for header, shown, lacking in slips:
        write(tmp_path / "train.tsv", [header, "a\tb"])
        assert refusal(tmp_path) == (f"train.tsv: line 1 reads as a header, '{shown}', that lacks {lacking}; write one "
                                     "that names en and de")
    write(tmp_path / "train.tsv", ["en\tde", "de\tein Wort"])
    assert read_all(tmp_path)["train"] == [("de", "ein Wort")]
    write(tmp_path / "train.tsv", ["the old den\tde la", "a\tb"])
    assert len(read_all(tmp_path)["train"]) == 2


@pytest.mark.parametrize("header", ["EN\tDE", "En\tde", " en \t'de'"])
def test_a_tsv_header_is_one_in_any_case(tmp_path, header):
    table(tmp_path, "tsv")
    for stem in ("train", "test_2016"):
        write(tmp_path / f"{stem}.tsv", [header, "a dog\tein Hund"])
    read = read_all(tmp_path)
    assert read["train"] == read["test_2016"] == [("a dog", "ein Hund")]


@pytest.mark.parametrize("stem", ["train", "val", "test_2016"])
@pytest.mark.parametrize("header", ["source\ttarget", "English\tDeutsch", "en_US\tde_DE", "eng\tdeu",
                                    "text_en\ttext_de", "Source sentence 1\tTranslation"])
def test_a_tsv_header_of_other_names_is_no_pair(tmp_path, stem, header):
    table(tmp_path, "tsv")
    write(tmp_path / f"{stem}.tsv", [header, "a dog\tein Hund"])
    shown = header.replace("\t", ", ")
    assert refusal(tmp_path) == (f"{stem}.tsv: line 1 reads as a header, {shown!r}, that lacks en and de; write one "
                                 "that names en and de")


@pytest.mark.parametrize("first", ["Source code\tQuelltext", "English\tEnglisch", "Original text\tOriginaltext", "1\t1",
                                   "?\t?", "the target\tdas Ziel"])
def test_a_pair_of_words_is_no_header(tmp_path, first):
    table(tmp_path, "tsv")
    write(tmp_path / "train.tsv", [first])
    assert read_all(tmp_path)["train"] == [tuple(first.split("\t"))]


def test_crlf_and_bom(tmp_path):
    fill(tmp_path, end="\r\n")
    path = tmp_path / "train.en"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_all(tmp_path) == PAIRS


def test_odd_separators_never_shift_a_pair(tmp_path):
    fill(tmp_path)
    odd = ["a\u2028b", "c\x85d", "e\x0cf", "g\rh", "\x1c\x1d\x1e", "\v"]
    write(tmp_path / "train.en", odd)
    write(tmp_path / "train.de", "123456")
    assert read_all(tmp_path)["train"] == list(zip(odd, "123456", strict=True))


def test_max_pairs_is_the_start_of_the_training_text(tmp_path):
    fill(tmp_path)
    whole, part = load(tmp_path), load(tmp_path, max_pairs=2)
    assert part.read("train") == PAIRS["train"][:2]
    assert part.read("test_2016") == PAIRS["test_2016"]
    assert load(tmp_path, max_pairs=9).read("train") == PAIRS["train"]
    assert len({corpus.fingerprint for corpus in (whole, part, load(tmp_path, max_pairs=1))}) == 3
    some = load_corpus(data_config(source="synthetic", max_pairs=10))
    assert some.read("train") == load_corpus(data_config(source="synthetic")).read("train")[:10]
    (tmp_path / "train.en").write_bytes(b"a dog\n\xff\n")  # shorter than train.de, but not within what is read
    assert load(tmp_path, max_pairs=1).read("train") == [("a dog", "ein Hund")]


def test_what_is_held_out_makes_the_sets_that_are_missing(tmp_path):
    pairs = [(f"word {n}", f"Wort {n}") for n in range(40)]
    write(tmp_path / "train.tsv", ["\t".join(pair) for pair in [*pairs, pairs[0], ("", "x")]])
    assert "no valid split for en-de" in refusal(tmp_path)
    assert "or hold pairs of train out with data.hold_out" in refusal(tmp_path)
    corpus = load(tmp_path, hold_out=3)
    assert (corpus.splits, corpus.test_sets) == (("train", "valid", "test"), ("test",))
    held = [pair for split in ("valid", "test") for pair in corpus.pairs(split)]
    assert len(set(held)) == 6
    assert corpus.read("train") == [pair for pair in [*pairs, pairs[0], ("", "x")] if pair not in held]
    assert corpus.training[1].overlap == dict.fromkeys(("valid", "test"), Overlap(3, [], []))
    back = load(tmp_path, hold_out=3, src="de", tgt="en")
    assert back.splits == corpus.splits
    assert load(tmp_path, hold_out=3, max_pairs=5).read("train") == corpus.read("train")[:5]
    assert load(tmp_path, hold_out=3, max_pairs=5).read("test") == corpus.read("test")
    assert refusal(tmp_path, is_early=False, hold_out=20).startswith(
        "data.hold_out=20: takes 40 pairs whose source and target occur")
    write(tmp_path / "dev.tsv", ["a\tb"])
    assert load(tmp_path, hold_out=3).read("valid") == [("a", "b")]
    assert load(tmp_path, hold_out=3).read("test") == corpus.read("test")
    write(tmp_path / "test.tsv", ["c\td"])
    assert refusal(tmp_path, hold_out=3) == (
        "data.hold_out=3: DIR has a validation set and test sets of its own; write data.hold_out=null")


def test_validation_and_test_are_never_filtered(tmp_path):
    fill(tmp_path)
    for stem in ("val", "test_2016"):
        write(tmp_path / f"{stem}.en", ["", "  ", "x " * 10_000])
        write(tmp_path / f"{stem}.de", ["", "y", ""])
    assert [len(pairs) for pairs in read_all(tmp_path).values()] == [3, 3, 3]


def test_unequal_line_counts(tmp_path):
    write(fill(tmp_path) / "val.de", ["eins", "zwei"])
    assert refusal(tmp_path) == "val.en has 1 lines and val.de has 2: line n of one must translate line n of the other"


@pytest.mark.parametrize(("file", "data", "line"), [
    ("test_2016.en", b"a dog\ncaf\xe9 x\n\n",
     "test_2016.en: line 2 is not UTF-8 (byte 0xe9 at byte offset 9); convert the file, e.g. with iconv"),
    ("val.de", b"\xef\xbb\xbf\xff\n",
     "val.de: line 1 is not UTF-8 (byte 0xff at byte offset 3); convert the file, e.g. with iconv"),
    ("test_2016.en", b"dogs\n\x00\x01cats\n",
     "test_2016.en: line 2 holds a NUL byte (byte offset 5): a binary file?"),
    ("train.en", "a\nb\nc\n".encode("utf-16"),
     "train.en: is UTF-16; convert the file, e.g. with iconv -f UTF-16 -t UTF-8"),
])
def test_bytes_that_are_no_text(tmp_path, file, data, line):
    (fill(tmp_path) / file).write_bytes(data)
    assert refusal(tmp_path) == line


@pytest.mark.parametrize("stem", ["train", "val", "test_2016"])
def test_empty_files(tmp_path, stem):
    for lang in ("en", "de"):
        (fill(tmp_path) if lang == "en" else tmp_path).joinpath(f"{stem}.{lang}").write_bytes(b"")
    assert refusal(tmp_path) == f"{stem}.en + {stem}.de: empty, no pair of sentences in it"


def test_a_damaged_gzip_file(tmp_path):
    fill(tmp_path, suffix=".gz")
    path = tmp_path / "val.en.gz"
    path.write_bytes(path.read_bytes()[:-6])
    assert refusal(tmp_path).startswith("val.en.gz: a damaged gzip file (")
    path.write_bytes(b"plain text\n")
    assert refusal(tmp_path).startswith("val.en.gz: a damaged gzip file (")


def test_missing_splits_and_languages(tmp_path):
    assert refusal(tmp_path) == ("DIR: no train split for en-de: wants train.en and train.de (or .gz) or train.tsv, "
                                 ".jsonl, .parquet; there are: no files")
    fill(tmp_path)
    assert refusal(tmp_path, src="it", tgt="es").startswith("DIR: no train split for it-es: wants train.it and ")
    assert refusal(tmp_path, tgt="fr") == (
        "train.en: its other side, train.fr, is missing (there are: train.de, train.en)")
    (tmp_path / "val.de").unlink()
    assert refusal(tmp_path) == "val.en: its other side, val.de, is missing (there are: val.en)"
    write(tmp_path / "dev.de", ["eine Katze"])
    assert refusal(tmp_path) == "dev.de: its other side, dev.en, is missing (there are: dev.de)"
    (tmp_path / "dev.de").unlink()
    (tmp_path / "val.en").unlink()
    assert "no valid split for en-de: wants val.en and val.de (or .gz) or val.tsv" in refusal(tmp_path)


@pytest.mark.parametrize(("name", "lines"), [
    ("test_2017.en", ["alone"]), ("test_2017.tsv", ["fr\ten", "x\ty"]), ("test_2017.jsonl", ['{"en": "a", "fr": "b"}']),
    ("test_2017.jsonl.gz", ['{"translation": {"en": "a"}}']),
])
def test_a_test_set_without_the_pair_is_left_out_unless_it_was_asked_for(tmp_path, name, lines):
    write(fill(tmp_path) / name, lines)
    with pytest.warns(UserWarning, match=f"^{tmp_path}: leaves out test sets without this pair: test_2017 .no de.$"):
        corpus = load(tmp_path)
    assert corpus.test_sets == ("test_2016",)
    assert {split: corpus.read(split) for split in corpus.splits} == PAIRS
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not a word of a set that nobody asked for
        assert load(tmp_path, test_sets=["test_2016"]).test_sets == ("test_2016",)
        line = refusal(tmp_path, test_sets=["test_2016", "test_2017"])
    assert line.startswith(f"{name}: ")
    if name == "test_2017.en":
        assert line == ("test_2017.en: its other side, test_2017.de, is missing (there are: test_2017.en); add it, or "
                        "leave the set out of data.test_sets")


def test_a_parquet_test_set_without_the_pair_is_left_out(tmp_path):
    pa.parquet.write_table(pa.table({"en": ["a"], "fr": ["b"]}), fill(tmp_path) / "test_2018.parquet")
    with pytest.warns(UserWarning, match=r"leaves out test sets without this pair: test_2018 \(no de\)$"):
        assert read_all(tmp_path) == PAIRS


def test_the_official_release_of_multi30k_has_czech_for_some_sets(tmp_path):
    for stem in ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr"):
        for lang in ("en", "de", "fr", "cs") if "2017" not in stem else ("en", "de", "fr"):
            write(tmp_path / f"{stem}.{lang}.gz", [f"{stem} {lang}"])
    with pytest.warns(UserWarning, match=r": test_2017_flickr \(no cs\), test_2017_mscoco \(no cs\)$"):
        assert load(tmp_path, tgt="cs").test_sets == ("test_2016_flickr", "test_2018_flickr")
    assert len(load(tmp_path).test_sets) == 4


def test_a_test_set_that_nobody_asked_for_is_not_in_the_fingerprint(tmp_path):
    before = load(fill(tmp_path), test_sets=["test_2016"]).fingerprint
    assert before == load(tmp_path).fingerprint
    for lang in ("en", "de"):
        write(tmp_path / f"test_2017.{lang}", ["new"])
    assert load(tmp_path, test_sets=["test_2016"]).fingerprint == before != load(tmp_path).fingerprint


def test_test_sets_are_chosen_by_name(tmp_path):
    fill(tmp_path, STEMS)
    for lang in ("en", "de"):
        write(tmp_path / f"test_2018.{lang}", ["x"])
    assert load(tmp_path).test_sets == ("test_2016", "test_2018")
    assert load(tmp_path, test_sets=["test_2018"]).test_sets == ("test_2018",)
    assert load(tmp_path, test_sets=[]).test_sets == ()
    assert refusal(tmp_path, test_sets=["test_2817"]) == (
        "data.test_sets: no test set test_2817; there are: test_2016, test_2018; did you mean test_2018?")


@pytest.mark.parametrize("extra", [
    "val.tsv", "validation.en", "val.en.gz", "dev.jsonl", "valid-00000-of-00001.parquet"])
def test_the_same_split_twice_is_ambiguous(tmp_path, extra):
    write(fill(tmp_path) / extra, ["x\ty"])
    line = refusal(tmp_path)
    assert "the valid split is there more than once (" in line
    assert extra in line
    assert "val.en" in line


@pytest.mark.parametrize(("row", "line"), [
    ("{", "train.jsonl: line 2 is not JSON (Expecting property name"),
    ("", "train.jsonl: line 2 is not JSON (Expecting value"),
    ("[1]", "train.jsonl: line 2 is no record with fields en and de"),
    ('{"en": "a"}', "train.jsonl: line 2 has no field de (it has en)"),
    ('{"translation": {"fr": "a"}}', "train.jsonl: line 2 has no field en (it has fr)"),
    ('{"translation": "b", "en": "a"}', "train.jsonl: line 2 has no field de (it has translation, en)"),
    ("[" * 100_000, "train.jsonl: line 2 is no record with fields en and de"),
    ('{"en":' * 100_000, "train.jsonl: line 2 is no record with fields en and de"),
    ('{"en": "a", "de": null}', "train.jsonl: line 2: field de is null, not text"),
])
def test_bad_json_lines(tmp_path, row, line):
    table(tmp_path, "jsonl")
    write(tmp_path / "train.jsonl", ['{"en": "a", "de": "b"}', row])
    assert refusal(tmp_path).startswith(line)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_called_translation_need_not_be_a_mapping(tmp_path, kind):
    rows = [{"en": "a dog", "de": "ein Hund", "translation": "by hand"}]
    path = table(tmp_path, kind) / f"train.{kind}"
    if kind == "jsonl":
        write(path, map(json.dumps, rows))
    else:
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    assert read_all(tmp_path)["train"] == [("a dog", "ein Hund")]


def test_a_lone_surrogate_in_a_json_line_is_no_text(tmp_path):
    table(tmp_path, "jsonl")
    write(tmp_path / "val.jsonl", ['{"en": "a", "de": "b"}', '{"en": "a", "de": "\\ud800"}'])
    assert refusal(tmp_path) == "val.jsonl: line 2 holds a lone surrogate, which is no text"


def test_bad_parquet(tmp_path):
    table(tmp_path, "parquet")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    assert refusal(tmp_path).startswith("train.parquet: not a readable parquet file (")
    pa.parquet.write_table(pa.table({"en": ["a", None], "de": ["b", "c"]}), tmp_path / "train.parquet")
    assert refusal(tmp_path) == "train.parquet: row 2: field en is null, not text"


def test_what_needs_no_look_into_the_text_is_told_at_the_door(tmp_path):
    (tmp_path / "file").touch()
    for changes, line in (
        ({"dir": f"{tmp_path}/file"}, f"data.dir={tmp_path}/file: is a file, not a folder"),
        ({"source": "synthetic", "tgt": "fr"}, "data.src=en data.tgt=fr: the synthetic text is en-de or de-en"),
        ({"source": "synthetic", "test_sets": ["minimal"]}, "data.test_sets: no test set minimal; there are: test, "
         "minimal_pairs, length_10, length_20, length_50, length_100, length_200, pairs_20, pairs_50, pairs_100, "
         "pairs_200, test_shuffled; did you mean minimal_pairs?"),
        ({"source": "hub"}, "data.hub_id=null: names no data set; or set data.dir to a folder of files"),
    ):
        with pytest.raises(UserError) as caught:
            check_text(data_config(**changes))
        assert str(caught.value) == line
        assert caught.value.code == Exit.USAGE
    check_text(data_config(source="synthetic", src="de", tgt="en", test_sets=["length_10"]))
    check_text(data_config(dir=str(tmp_path)))


def test_large_files_are_known_by_their_names_and_large_tables_by_their_first_row(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SMALL", 1)
    write(fill(tmp_path) / "val.de", ["eins", "zwei"])
    find_text(data_config(dir=str(tmp_path)))
    (tables := tmp_path / "tables").mkdir()
    table(tables, "jsonl")
    find_text(data_config(dir=str(tables)))
    with pytest.raises(UserError, match=r"train.jsonl: line 1 has no field fr"):
        find_text(data_config(dir=str(tables), tgt="fr"))


def test_what_looking_at_the_text_warns_of_is_told_once(tmp_path):
    (fill(tmp_path) / "train.en").write_bytes(b"\xff\ntwo\nthree\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_text(data_config(dir=str(tmp_path)))
    with pytest.warns(UserWarning, match="not UTF-8"):
        load(tmp_path).read("train")


def test_missing_paths_are_usage_errors(tmp_path, monkeypatch):
    for changes, line in (
        ({"dir": "/no/such"}, "data.dir=/no/such: no such folder"),
        ({}, "data=files needs data.dir: a folder with train.en, train.de, val.en ..."),
        ({"source": "hub", "folder": "multi30k"}, f"MINITX_DATA={tmp_path}/gone: no such folder"),
    ):
        monkeypatch.setenv("MINITX_DATA", f"{tmp_path}/gone")
        with pytest.raises(UserError) as caught:
            load_corpus(data_config(**changes))
        assert str(caught.value) == line
        assert caught.value.code == Exit.USAGE


def test_files_may_lie_in_the_folder_that_minitx_data_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MINITX_DATA", str(tmp_path))
    with pytest.raises(UserError, match="^data.dir=null: set it, or MINITX_DATA to where verses lies: a folder with "):
        load_corpus(data_config(folder="verses"))
    (tmp_path / "verses").mkdir()
    fill(tmp_path / "verses")
    (mine := tmp_path / "mine").mkdir()
    assert load_corpus(data_config(folder="verses")).origin == str(tmp_path / "verses")
    assert load_corpus(data_config(folder="verses", dir=str(fill(mine)))).origin == str(mine), "data.dir comes first"


def test_the_fingerprint_is_of_content_and_direction(tmp_path):
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    prints = [load(fill(one)).fingerprint, load(fill(two)).fingerprint]
    assert prints[0] == prints[1]
    assert len(prints[0]) == 64
    prints.append(load(two, src="de", tgt="en").fingerprint)
    write(two / "test_2016.de", ["Hunde", "Kater"])
    prints.append(load(two).fingerprint)
    assert len(set(prints)) == 3


def test_the_fingerprint_needs_no_parsing(tmp_path):
    (fill(tmp_path) / "train.en").write_bytes(b"\xff")
    assert load(tmp_path).fingerprint


def test_the_hubs_copy_is_looked_for_in_order(tmp_path, monkeypatch):
    (root := tmp_path / "root").mkdir()
    fill_here, fill_there = root / "multi30k", tmp_path / "mine"
    for folder in (fill_here, fill_there):
        folder.mkdir()
        fill(folder)
    monkeypatch.setenv("MINITX_DATA", str(root))
    hub = {"source": "hub", "folder": "multi30k", "hub_id": "nobody/nothing"}
    assert local_folder(data_config(**hub)) == fill_here
    assert local_folder(data_config(**hub, dir=str(fill_there))) == fill_there
    assert load_corpus(data_config(**hub)).origin == str(fill_here)
    assert local_folder(data_config(**hub | {"folder": "other"})) is None
    monkeypatch.delenv("MINITX_DATA")
    assert local_folder(data_config(**hub)) is None


def test_reading_files_imports_neither_torch_nor_datasets(tmp_path):
    code = ("import sys; sys.path[:0] = sys.argv[2:]; from data.conftest import *\n"
            "load_corpus(data_config(dir=sys.argv[1])).pairs('train')\n"
            "print([name for name in ('torch', 'lightning', 'datasets', 'pyarrow') if name in sys.modules])")
    run = [sys.executable, "-c", code, str(fill(tmp_path)), *filter(None, sys.path)]
    assert subprocess.run(run, capture_output=True, text=True).stdout == "[]\n"


@needs_data
@pytest.mark.parametrize(("folder", "tgt", "counts"), [
    ("multi30k", "de", [29_000, 1_014, 1_000]), ("multi30k", "fr", [29_000, 1_014, 1_000]),
    ("bible-en-fr", "fr", [27_864, 1_416, 1_775]),
])
def test_real_text(folder, tgt, counts):
    corpus = load_corpus(data_config(source="hub", folder=folder, tgt=tgt))
    assert [len(corpus.pairs(split)) for split in corpus.splits] == counts
    assert corpus.splits[2:] == (("test_2016_flickr",) if folder == "multi30k" else ("test",))


def test_the_embedded_text_in_both_directions():
    pytest.importorskip("minitx.data.synthetic.text")
    there = load_corpus(data_config(source="synthetic"))
    back = load_corpus(data_config(source="synthetic", src="de", tgt="en"))
    assert there.splits[:2] == ("train", "valid")
    assert not any(name.startswith("length_") for name in there.test_sets)
    assert {"test", "minimal_pairs"} <= set(there.test_sets)
    assert there.fingerprint != back.fingerprint
    assert back.pairs("valid") == [(tgt, src) for src, tgt in there.pairs("valid")]
    assert len(there.pairs("train")) == 100
    assert len(there.phenomena("valid")) == len(there.pairs("valid"))
    with pytest.raises(UserError, match="data.src=en data.tgt=fr: the synthetic text is en-de or de-en"):
        load_corpus(data_config(source="synthetic", tgt="fr"))
    chosen = load_corpus(data_config(source="synthetic", test_sets=["length_10"]))
    assert chosen.test_sets == ("length_10",)
