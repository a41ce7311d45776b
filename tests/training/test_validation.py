"""What a validation shows: translations, and once what the signs before them mean."""

from io import StringIO
from types import SimpleNamespace
from typing import Any

from minitx.training.validation import Sample, Validation
from minitx.utils.console import Console


def test_the_signs_before_translations_are_explained_once() -> None:
    shown = StringIO()
    run: Any = SimpleNamespace(console=Console(shown))
    validation = Validation(run, None)  # type: ignore[arg-type]
    validation.show([])
    assert shown.getvalue() == ""
    for _ in range(2):
        validation.show([Sample("a dog", "ein Hund", "der Hund")])
    pair = ["    a dog", "  = ein Hund", "  ~ der Hund"]
    assert shown.getvalue().splitlines() == [
        "    each sentence, followed by its translation (=) and the reference (~):", *pair, *pair]
