"""Reading: whatever a line holds, it stays the line of its pair."""

import json
import re
import warnings

import pyarrow as pa
import pyarrow.parquet
import pytest
from data.test_corpus import fill, load, table, write
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data.lines import is_blank

ANY = st.text(st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("\u2028\u2029\x85\v\f\r\ufeff\0")),
              max_size=8)
FORMATS = {  # what a format cannot say: a line's end in lines, a tab in columns, CR before the line's end
    "plain": lambda text: "\n" not in text and not text.endswith("\r"),
    "tsv": lambda text: not set("\n\t") & set(text) and not text.endswith("\r"),
    "jsonl": lambda text: True, "parquet": lambda text: True,
}


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data(), end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=40)
def test_no_text_shifts_a_pair_in_any_format(tmp_path_factory, kind, data, end):
    side = ANY.filter(FORMATS[kind])
    pairs = data.draw(st.lists(st.tuples(side, side), min_size=1, max_size=8))
    folder = tmp_path_factory.mktemp(kind)
    write(folder / "val.en", ["a"])
    write(folder / "val.de", ["b"])
    if kind == "plain":
        for column, lang in enumerate(("en", "de")):
            path = folder / f"train.{lang}"
            write(path, [pair[column] for pair in pairs], end)
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    elif kind == "tsv":
        write(folder / "train.tsv", ["de\tnote\ten", *(f"{tgt}\t\t{src}" for src, tgt in pairs)], end)
    elif kind == "jsonl":
        rows = [{"en": src, "de": tgt} for src, tgt in pairs]
        write(folder / "train.jsonl", [json.dumps(row, ensure_ascii=data.draw(st.booleans())) for row in rows], end)
    else:
        columns = dict(zip(("en", "de"), zip(*pairs, strict=True), strict=True))
        pa.parquet.write_table(pa.table(columns), folder / "train.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NUL
        assert load(folder).read("train") == pairs
        limit = data.draw(st.integers(1, 9))
        assert load(folder, max_pairs=limit).read("train") == pairs[:limit]


@given(st.lists(st.binary(max_size=6).filter(lambda line: b"\n" not in line and not line.endswith(b"\r")), min_size=1))
@settings(max_examples=60)
def test_bytes_that_are_no_text_cost_a_training_pair_and_no_other(tmp_path_factory, lines):
    folder = fill(tmp_path_factory.mktemp("bytes"))
    lines = [b"first", *lines]
    (folder / "train.en").write_bytes(b"\n".join(lines) + b"\n")
    write(folder / "train.de", map(str, range(len(lines))))

    def is_text(line):
        try:
            return not set(line.decode()) & {*map(chr, (*range(9), *range(14, 32), *range(127, 133), *range(134, 160)))}
        except UnicodeDecodeError:
            return False

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs, cleaning = load(folder).training
    good = [(line.decode(), str(row)) for row, line in enumerate(lines)
            if is_text(line) and not is_blank(line.decode())]
    assert pairs == good
    assert cleaning.pairs == len(lines)
    assert cleaning.kept == len(good)


@pytest.mark.parametrize(("file", "data", "line"), [
    ("train.en", b"a dog\ncaf\xe9\n\xff\n",
     "train.en: line 2 is not UTF-8 (byte 0xe9 at byte offset 9); convert the file, e.g. with iconv"),
    ("train.de", b"a\nb\0\nc\n", "train.de: line 2 holds a NUL byte (byte offset 3): a binary file?"),
])
def test_the_first_training_line_that_is_no_text_is_named(tmp_path, file, data, line):
    (fill(tmp_path) / file).write_bytes(data)
    with pytest.warns(UserWarning, match=re.escape(f"/{line}; training goes on without such pairs")) as told:
        assert len(load(tmp_path).read("train")) == 3
    assert len(told) == 1


@pytest.mark.filterwarnings("ignore:.*training goes on")
def test_a_bad_json_line_of_the_training_text_costs_its_pair(tmp_path):
    table(tmp_path, "jsonl")
    rows = [b'{"en": "a", "de": "b"}', b'{"en": "\xff", "de": "c"}', b'{"en": "\\ud800", "de": "d"}',
            b'{"en": "\\u0000", "de": "e"}', b'{"en": "\x01", "de": "f"}', b'{"en": "g", "de": "h"}']
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(rows))
    pairs, cleaning = load(tmp_path).training
    assert pairs == [("a", "b"), ("g", "h")]
    assert cleaning.dropped | {"with invalid UTF-8": 1, "with control characters": 3} == cleaning.dropped
