"""`--push` makes a repository and one commit of the whole folder, as a stand-in of the hub's API sees it."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import pytest
from served import ENVIRON

from minitx.export.manifest import NAME


class Hub(BaseHTTPRequestHandler):
    """The five calls that an upload of small files makes; large ones would go to another store first."""

    repositories: dict[str, dict[str, Any]]
    commits: list[dict[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer a-token":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.repositories[f"{asked.get('organization')}/{asked['name']}"] = asked
            return self.answer({"url": f"{self.server_url}/somebody/en-de"})
        if self.path == "/api/validate-yaml":  # of the card
            return self.answer({"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            return self.answer({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                          for file in json.loads(body)["files"]]})
        if "/commit/main" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            self.commits.append({line["value"]["path"]: base64.b64decode(line["value"]["content"])
                                 for line in lines if line["key"] == "file"})
            return self.answer({"commitUrl": f"{self.server_url}/somebody/en-de/commit/abc", "commitOid": "abc"})
        return self.answer({}, 404)

    def do_GET(self) -> None:
        self.answer({"id": "somebody/en-de", "sha": "abc", "siblings": []} if "/models/" in self.path else {})

    @property
    def server_url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.repositories, Hub.commits = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def push(folder: Path, endpoint: str, token: str) -> subprocess.CompletedProcess[str]:
    """Push in a process of its own: the library reads the environment as it is imported."""
    code = ("import sys; from pathlib import Path; from minitx.export.push import push; "
            "print(push(Path(sys.argv[1]), 'somebody/en-de', private=True))")
    env = ENVIRON | {"HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder.parent),
                     "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run([sys.executable, "-c", code, str(folder)], env=env, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("README.md", "config.json", "model.safetensors", NAME):
        (folder / name).write_bytes(Random(name).randbytes(300).hex().encode())
    return folder


def test_the_whole_folder_is_one_commit(hub: str, folder: Path) -> None:
    done = push(folder, hub, "a-token")
    assert done.stdout.strip() == f"{hub}/somebody/en-de", done.stderr
    asked, = Hub.repositories.values()
    assert asked["visibility"] == "private"
    commit, = Hub.commits
    assert commit == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("reachable", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_refusal_is_one_line_and_the_folder_stays(reachable: bool, hub: str, folder: Path) -> None:
    done = push(folder, hub if reachable else "http://127.0.0.1:9", "wrong")
    told = done.stderr.splitlines()[-1]
    assert told.startswith("minitx.utils.errors.UserError: --push somebody/en-de: ")
    assert told.endswith(f"; {folder} is whole, and can go there later: hf upload somebody/en-de {folder}")
    assert len(list(folder.iterdir())) == 4
    assert not Hub.commits
