"""What Python callers pass: any iterable of strings works, and all else is one line of TypeError or ValueError."""

from collections import deque
from collections.abc import Callable, Iterable
from io import StringIO
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from decoding.test_translator import Copier, translate_with

from minitx.decoding.arguments import as_lines
from minitx.decoding.scoring import score_pairs
from minitx.decoding.translator import Translator

LINES = ["a dog", "", "b"]


@pytest.fixture
def translator() -> Translator:
    return translate_with(Copier())


MAKE: dict[str, Callable[[list[str]], Iterable[str]]] = {
    "tuple": tuple, "deque": deque, "generator": lambda lines: (line for line in lines), "array": np.array,
    "objects": lambda lines: np.array(lines, object), "Series": pd.Series,
    "Series of another index": lambda lines: pd.Series(lines, [7, 5, 6]),
    "keys": lambda lines: dict.fromkeys(lines).keys(),
    "file": lambda lines: StringIO("".join(line + "\n" for line in lines)),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_any_iterable_of_strings_is_translated(translator: Translator, make: Callable[[list[str]], Any]) -> None:
    assert translator.translate(make(LINES)) == LINES
    assert [best[0].text for best in translator.n_best(make(LINES), 2, beam_size=2)] == LINES


def test_a_set_is_translated_in_its_own_order(translator: Translator) -> None:
    lines = set(LINES)
    assert translator.translate(lines) == list(lines)


def test_strings_come_as_plain_lists() -> None:
    assert as_lines(np.array(LINES)) == LINES
    assert as_lines(["a\n", "a\n\n", "\n"]) == ["a", "a\n", ""], "a line's own end is no part of it"


REFUSED: list[tuple[Any, str]] = [
    ("The dog.", "lines: is one string, which would be read letter by letter; pass a list of strings"),
    (b"The dog.", "lines: must be an iterable of strings, not bytes"),
    (None, "lines: must be an iterable of strings, not NoneType"),
    (3, "lines: must be an iterable of strings, not int"),
    ({"en": "a"}, "lines: must be an iterable of strings, not dict"),
    (pd.DataFrame({"en": ["a"]}), "lines: must be an iterable of strings, not DataFrame"),
    (np.array("a"), "lines: must be an iterable of strings, not ndarray"),
    (np.array([["a"]]), "lines: must be an iterable of strings, not ndarray"),
    (["a", None], "lines[1]: must be a string, not NoneType (None)"),
    (["a", b"b"], "lines[1]: must be a string, not bytes (b'b')"),
    ([["a"]], "lines[0]: must be a string, not list (['a'])"),
    (pd.Series(["a", nan], dtype=object), "lines[1]: must be a string, not float (nan)"),
    (torch.tensor([1]), "lines[0]: must be a string, not Tensor (tensor(1))"),
]


@pytest.mark.parametrize(("lines", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_iterable_of_strings_is_refused(translator: Translator, lines: Any, message: str) -> None:
    for call in (lambda: translator.translate(lines), lambda: translator.n_best(lines, 1)):
        with pytest.raises(TypeError) as refused:
            call()
        assert str(refused.value) == message
    with pytest.raises(TypeError) as refused:
        score_pairs(translator, ["a"], lines)
    assert str(refused.value) == message.replace("lines", "targets", 1)
    with pytest.raises(TypeError) as refused:
        score_pairs(translator, lines, ["a"])
    assert str(refused.value) == message.replace("lines", "sources", 1)
    assert not translator.model.shapes, "nothing is computed"


def test_sides_of_different_lengths_are_refused(translator: Translator) -> None:
    with pytest.raises(ValueError, match="^sources has 2 lines, targets has 1: must be as many$"):
        score_pairs(translator, ["a", "b"], ["a"])


OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"beam_size": 0}, ValueError, "beam_size=0: must be at least 1"),
    ({"beam_size": -1}, ValueError, "beam_size=-1: must be at least 1"),
    ({"beam_size": True}, TypeError, "beam_size=True: must be an integer, not bool"),
    ({"beam_size": 1.5}, TypeError, "beam_size=1.5: must be an integer, not float"),
    ({"beam_size": "4"}, TypeError, "beam_size='4': must be an integer, not str"),
    ({"length_penalty": nan}, ValueError, "length_penalty=nan: must be finite and at least 0"),
    ({"length_penalty": inf}, ValueError, "length_penalty=inf: must be finite and at least 0"),
    ({"length_penalty": -0.5}, ValueError, "length_penalty=-0.5: must be finite and at least 0"),
    ({"length_penalty": "1"}, TypeError, "length_penalty='1': must be a number, not str"),
    ({"length_penalty": True}, TypeError, "length_penalty=True: must be a number, not bool"),
    ({"n": 0}, ValueError, "n_best=0: must be at least 1"),
    ({"n": 1.0}, TypeError, "n_best=1.0: must be an integer, not float"),
    ({"n": None}, TypeError, "n_best=None: must be an integer, not NoneType"),
    ({"n": 3, "beam_size": 2}, ValueError, "n_best=3: must be at most beam_size=2"),
]


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS, ids=range(len(OPTIONS)))
@pytest.mark.parametrize("lines", [["a"], [""], []])
def test_options_without_a_meaning_are_refused(translator: Translator, options: dict[str, Any], error: type[Exception],
                                               message: str, lines: list[str]) -> None:
    calls = [lambda: translator.n_best(lines, **{"n": 1} | options)]
    if "n" not in options:
        calls.append(lambda: translator.translate(lines, **options))
    for call in calls:
        with pytest.raises(error) as refused:
            call()
        assert str(refused.value) == message


def test_numbers_of_numpy_are_numbers(translator: Translator) -> None:
    options = {"beam_size": np.int64(3), "length_penalty": np.float32(0.5)}
    assert translator.translate(LINES, **options) == LINES
    expected = translator.n_best(LINES, 2, beam_size=3, length_penalty=0.5)
    assert translator.n_best(LINES, np.int32(2), **options) == expected
