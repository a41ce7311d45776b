"""A run that has been trained, as Python sees it: its folder, what came of it, and its records."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.runs.records import read_records
from minitx.runs.result import Result
from minitx.utils.errors import UserError


@dataclass(frozen=True)
class Run(os.PathLike[str]):
    """A run directory and its result. It can stand wherever the path of one can: `minitx.load(run)`."""

    folder: Path
    result: Result

    def __fspath__(self) -> str:
        return str(self.folder)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Run":
        """Read a run directory. Errors: `UserError` if it has no result, or one of another version."""
        path = Path(folder, "result.json")
        if not path.is_file():
            raise UserError(f"{folder}: has no result.json; it is no run directory, or its training has not ended")
        return cls(Path(folder), Result.read(path))

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return what was recorded while it trained, in order. event: "train", each few updates, or "valid"

        All records have `step` and `train_s`, the seconds of training so far; those of "valid" also `loss` and `bleu`.
        """
        return [record for record in read_records(self.folder) if record.get("event") == event]
