"""Where this package lies: in a checkout, which holds more than the package, or installed from a wheel.

A wheel carries conf/ and constraints.txt inside the package (setup.py puts them there); in a checkout they stay at its
top, where people read and edit them.
"""

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
TOP = PACKAGE.parents[1]
CHECKOUT = TOP if PACKAGE.parent.name == "src" and (TOP / "train.py").is_file() else None  # None = installed
CONF = (CHECKOUT or PACKAGE) / "conf"
CONSTRAINTS = (CHECKOUT or PACKAGE) / "constraints.txt"
TRAIN = "python train.py" if CHECKOUT else "minitx train"  # what a person types
MINITX = ("-P", "-m", "minitx")  # the same for the interpreter; -P: no module of the folder one is in comes first


@cache
def own_version() -> str:
    """Return minitx's version: the installed one's, or that of a source tree that was never installed."""
    try:
        return version("minitx")
    except PackageNotFoundError:
        project: dict[str, str] = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["version"]
