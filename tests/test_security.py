"""What `SECURITY.md` promises, attacked."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cli
from tests.end_to_end.test_run import run_folder

from zelo.data.trec import read_topics
from zelo.errors import UserError, shown
from zelo.judging.provider import Provider
from zelo.models.cross_encoder import load_cross_encoder
from zelo.models.embedding import load_embedding_model
from zelo.models.publish import publish
from zelo.retrieval.run_file import RunFile
from zelo.runs.reproduce import refuse_what_needs_trust


class Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.place}",)


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_pickle_in_a_models_place_is_not_opened(model: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (model / "model.safetensors").unlink()
    with zipfile.ZipFile(model / "pytorch_model.bin", "w") as file:  # as torch writes them
        file.writestr("archive/data.pkl", pickle.dumps(Touches(ran)))
        file.writestr("archive/version", "3")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_embedding_model(model)
    assert not ran.exists()


def test_code_in_a_models_folder_is_not_run(model: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (model / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    modules = json.loads((model / "modules.json").read_text())
    modules[-1]["type"] = "evil.Evil"
    (model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_embedding_model(model)
    assert not ran.exists()


def test_nor_when_somebody_says_yes_to_everything(model: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (model / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((model / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"},
    }
    (model / "config.json").write_text(json.dumps(config))
    program = (
        "from pathlib import Path; from zelo.models.pairwise import PairwiseCrossEncoder; "
        f"PairwiseCrossEncoder(Path({str(model)!r}), 8, 32, 1.0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="y\n" * 9, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert not ran.exists()


@pytest.mark.parametrize("name", ["torch.utils.collect_env.main", "torch.hub.load", "torch.save"])
def test_an_activation_is_a_layer(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"sentence_transformers": {"activation_fn": name}})
    )
    with pytest.raises(UserError, match=r"no activation of torch\.nn"):
        load_cross_encoder(tmp_path)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a b", ".hidden", "a\0b", ""])
def test_names_of_files_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        RunFile(path=tmp_path, name=name)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"judge": {"judges": {"x": {"provider": {"base_url": "http://h"}}}}}, "are sent to"),
        ({"data": {"name": "${oc.env:SECRET}"}}, "refers to something outside"),
        ({"data": {"list": [{"_target_": "this.x"}]}}, "is code of somebody else"),
    ],
)
def test_a_strangers_manifest_is_data(change: dict[str, Any], why: str) -> None:
    refuse_what_needs_trust({"data": {"_target_": "zelo.data.beir.BeirFolder"}}, Path("m.json"))
    with pytest.raises(UserError, match=why):
        refuse_what_needs_trust(change, Path("m.json"))


def test_and_the_command_says_so(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    folder, _ = run_folder(cli, tmp_path, "experiment=quickstart", *toy, "stages=[load]")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["data"]["name"] = "${oc.env:HOME}"
    path = tmp_path / "work" / "m.json"
    path.write_text(json.dumps(manifest))
    done = cli("reproduce", "m.json", "home=again")
    assert done.returncode == 2
    assert "refers to something outside the manifest; add trust=true" in done.stderr
    assert not (tmp_path / "work" / "again").exists()


@pytest.mark.parametrize(
    "address", ["http://u:p@h/v1", "http://h/v1?key=sk-1", "http://h/v1#sk-1", "ftp://h"]
)
def test_an_address_holds_no_secret(address: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        Provider(name="p", base_url=address)
    assert "sk-1" not in str(caught.value).split("input_value")[0]


def test_what_a_terminal_obeys_is_shown_to_it() -> None:
    assert shown("\x1b]0;title\x07\x9b2Jä\n") == "\\x1b]0;title\\x07\\x9b2Jä\n"
    assert str(UserError("\x1b[2J")) == "\\x1b[2J"


@pytest.mark.parametrize(
    "text",
    [
        "<top>" * 200_000,
        "<top><num> 1 <title>" + "x" + " " * 1_000_000 + "</top>",
        "<top><num>" + " " * 1_000_000 + "</top>",
        "<top " + "<" * 500_000,
    ],
)
def test_topics_are_read_in_the_time_of_their_length(tmp_path: Path, text: str) -> None:
    path = tmp_path / "topics"
    path.write_text(text)
    began = time.process_time()
    with contextlib.suppress(UserError):
        assert len(list(read_topics(path))) == 1
    assert time.process_time() - began < 2


def test_what_is_no_part_of_a_model_is_not_published(model: Path, tmp_path: Path) -> None:
    (model / "README.md").write_text("card")
    (tmp_path / "secret").write_text("s")
    for hidden in (model / "secret.txt", model / ".env.json"):
        hidden.symlink_to(tmp_path / "secret") if hidden.suffix == ".txt" else hidden.write_text("")
        with pytest.raises(UserError, match="a link or a hidden file"):
            publish(model, "o/n", True)
        hidden.unlink()
