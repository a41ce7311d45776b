"""What ranks compare before they train together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minitx.config.compose import compose
from minitx.distributed.ranks import Ranks
from minitx.training import worker
from minitx.utils.errors import UserError


def test_ranks_of_one_version_and_no_commit_whose_files_differ_are_told_apart(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, mine = replace(compose([]), run_dir=str(tmp_path)), worker.code_sha256()
    theirs = [mine]
    monkeypatch.setattr(worker, "git_state", lambda: (None, None))

    def all_gather(_: Ranks, value: Any) -> list[Any]:
        return [value | {"code": theirs[0]}, value] if isinstance(value, dict) else [value, value]

    monkeypatch.setattr(Ranks, "all_gather", all_gather)
    worker.agree(cfg, Ranks(1, 2))
    theirs[0] = "0" * 64
    with pytest.raises(UserError, match=f"^rank 1 has another code .{mine[:12]}. than rank 0 .000000000000.; all need"):
        worker.agree(cfg, Ranks(1, 2))
