"""The text that runs are trained on."""

from pathlib import Path

import pytest
from toys import write_digits


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))
