"""Where the package lies, and which version it is."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

import pytest
from toys import ROOT

from minitx.utils import checkout
from minitx.utils.checkout import own_version


@pytest.fixture
def never_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(checkout, "version", missing)
    own_version.cache_clear()
    yield
    own_version.cache_clear()


def test_a_source_tree_that_was_never_installed_has_its_version(never_installed: None) -> None:
    assert own_version() == version("minitx")


def test_nothing_else_asks_for_our_version() -> None:
    """It would fail there, as the first checkpoint of a training did."""
    asks = [str(path) for path in (ROOT / "src").rglob("*.py") if re.search(r"version\(['\"]minitx", path.read_text())]
    assert asks == [checkout.__file__]
