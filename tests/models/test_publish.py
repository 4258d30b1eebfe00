"""Publishing against a stand-in of the Hub on this machine, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tests.conftest import Cli


def is_large(path: str) -> bool:
    return path.endswith(".safetensors")


def mode_of(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload asks for: small files in the commit, large ones by LFS."""

    files: dict[str, bytes]
    blobs: dict[str, bytes]
    asked: list[tuple[str, dict[str, object]]]

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.blobs[hashlib.sha256(content).hexdigest()] = content
        self.reply({})

    def do_GET(self) -> None:
        self.reply({"siblings": [], "id": "team/model", "sha": "0" * 40})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.reply({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            self.asked.append((self.path, json.loads(body)))
            return self.reply({"url": f"{self.server_url()}/team/model"})
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "shouldIgnore": False, "uploadMode": mode_of(f["path"])}
                for f in files
            ]
            return self.reply({"files": modes})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server_url()}/blob/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.reply({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.blobs[value["oid"]]
            url = f"{self.server_url()}/team/model/commit/1"
            return self.reply({"success": True, "commitUrl": url, "commitOid": "1" * 40})
        return self.reply({"error": self.path}, 404)

    def server_url(self) -> str:
        host, port = self.server.server_address[:2]
        return f"http://{host}:{port}"


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    handler = type("Fresh", (Hub,), {"files": {}, "blobs": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()


def test_a_model_is_published_whole_and_nothing_else(
    cli: Cli, tiny_model: Path, tmp_path: Path, hub: tuple[str, type[Hub]]
) -> None:
    endpoint, handler = hub
    run = tmp_path / "run"
    shutil.copytree(tiny_model, run / "model")
    (run / "model" / "README.md").write_text("# A model\n")
    (run / "judgments.parquet").write_bytes(b"private")
    (run / "model" / "queries.parquet").write_bytes(b"private")
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
                "HF_HOME": str(tmp_path / "hf")}  # fmt: skip
    refused = cli("publish", str(run), "repo=team/model", **settings, HF_TOKEN="hf_wrong")
    assert refused.returncode == 2
    assert "401" in refused.stderr
    assert "HF_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = cli("publish", str(run), "repo=team/model", **settings, HF_TOKEN="hf_right")
    assert done.returncode == 0, done.stderr
    assert "/team/model" in done.stdout
    asked = handler.asked[0][1]
    assert asked.get("private") is True or asked.get("visibility") == "private"
    expected = {
        str(path.relative_to(run / "model")): path.read_bytes()
        for path in (run / "model").rglob("*")
        if path.is_file() and path.suffix != ".parquet"
    }
    assert {k: v for k, v in handler.files.items() if k != ".gitattributes"} == expected
    assert "hf_right" not in done.stdout + done.stderr


def test_results_of_a_suite_are_in_the_card(
    cli: Cli, tiny_model: Path, tmp_path: Path, hub: tuple[str, type[Hub]]
) -> None:
    endpoint, handler = hub
    model = tmp_path / "run" / "model"
    shutil.copytree(tiny_model, model)
    (model / "README.md").write_text("---\nlibrary_name: sentence-transformers\n---\n\n# A model\n")
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
                "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_right"}  # fmt: skip
    words = ("publish", str(tmp_path / "run"), "repo=team/better", f"results={tmp_path}")
    none = cli(*words, **settings)
    assert none.returncode == 2
    assert "no model-index.yaml" in none.stderr
    results = [{"task": {"type": "retrieval"}, "dataset": {"type": "a/b", "name": "NanoNQ"},
                "metrics": [{"type": "ndcg_at_10", "value": 0.5}]}]  # fmt: skip
    index = tmp_path / "model-index.yaml"
    index.write_text(json.dumps({"model-index": [{"name": "other", "results": []}]}))
    other = cli(*words, **settings)
    assert other.returncode == 2
    assert "has results of other, none of a model in a folder model" in other.stderr
    index.write_text(json.dumps({"model-index": [{"name": "model", "results": results},
                                                 {"name": "other", "results": []}]}))  # fmt: skip
    done = cli(*words, **settings)
    assert done.returncode == 0, done.stderr
    card = ModelCard(handler.files["README.md"].decode())
    assert card.data.library_name == "sentence-transformers"
    assert card.data.model_name == "better"
    assert [(r.dataset_name, r.metric_value) for r in card.data.eval_results] == [("NanoNQ", 0.5)]
    assert "# A model" in card.text


def test_what_is_no_model_is_not_published(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    done = cli("publish", str(tmp_path), "repo=team/model")
    assert done.returncode == 2
    assert "no model is there" in done.stderr
    (tmp_path / "modules.json").write_text("[]")
    done = cli("publish", str(tmp_path), "repo=team/model")
    assert "no README.md" in done.stderr
    done = cli("publish", str(tiny_model))
    assert done.returncode == 2
    assert "usage" in done.stderr
