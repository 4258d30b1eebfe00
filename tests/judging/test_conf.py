"""Files of conf/judge inherit from conf/judge/_base, and say nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.test_config import components, differences

from zelo.config import build_from, conf_folder
from zelo.pipeline import judges_that_start_alike

JUDGES = conf_folder() / "judge"
CHOICES = sorted(JUDGES.glob("*.yaml"))
BASES = sorted((JUDGES / "_base").glob("*.yaml"))


def plain(path: Path) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything that a file says."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        elif key != "defaults":
            yield f"{path}{key}", value


def inherited(path: Path, package: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything that a file takes from those of `_base`, or from others."""
    for name in plain(path).get("defaults", []):
        if "@" in name:
            base, _, where = name.partition("@")
            folder = conf_folder() if base.startswith("/") else JUDGES
            file = folder / f"{base.removeprefix('/')}.yaml"
            file = file if file.is_file() else JUDGES / "_base" / file.name  # of another of them
            below = package if where == "_here_" else f"{package}{where}."
            yield from inherited(file, below)
            yield from leaves(plain(file), below)
        elif name != "_self_":  # another choice
            yield from inherited(JUDGES / f"{name}.yaml", package)
            yield from leaves(plain(JUDGES / f"{name}.yaml"), package)


@pytest.mark.parametrize("path", BASES, ids=lambda path: str(path.stem))
def test_what_is_inherited_states_the_defaults_of_its_class(path: Path) -> None:
    for where, node in components(plain(path)):
        assert differences(node) == {}, f"{path}{where}"


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: str(path.stem))
def test_a_choice_says_nothing_that_it_inherits(path: Path) -> None:
    before = dict(inherited(path))
    assert before
    twice = [key for key, value in leaves(plain(path)) if key in before and before[key] == value]
    assert [key for key in twice if before[key] != "???"] == []


def test_every_base_is_inherited_and_none_is_offered_as_a_choice() -> None:
    used = {name.partition("@")[0] for path in (*CHOICES, *BASES)
            for name in plain(path).get("defaults", [])
            if "@" in name and not name.startswith("/")}  # fmt: skip
    assert {Path(name).name for name in used} == {path.stem for path in BASES}
    with (
        initialize_config_dir(str(conf_folder()), version_base="1.3"),
        pytest.raises(Exception, match="Available options in 'judge'") as caught,
    ):
        compose("config", overrides=["judge=nobody"])
    offered = {line.strip() for line in str(caught.value).splitlines() if line.startswith("\t")}
    assert {path.stem for path in CHOICES} <= offered
    assert not any("_base" in name for name in offered)


def test_what_is_inherited_can_be_set_and_choices_can_be_combined() -> None:
    timeout = "judge.judges.openai.provider.timeout=60"
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("config", overrides=["judge=openai", timeout])
        assert config.judge.judges.openai.provider.timeout == 60
        config = compose("config", overrides=["judge=[vllm,bi_encoder]"])
        joined = compose("config", overrides=["judge=[local_ensemble,cross_encoder]"]).judge
        weighted = compose("config", overrides=["judge=bm25", "+judge.weights.bm25=2"]).judge
    assert list(config.judge.judges) == ["vllm", "bi_encoder"]
    assert (config.judge.vote, config.judge.probe) == ("soft", 40)  # the last one's, as ever
    assert list(joined.judges) == ["bm25", "embedding", "cross_encoder"]
    assert joined.weights == {"bm25": 0.5, "embedding": 1.0}
    assert weighted.weights == {"bm25": 2}


@pytest.mark.parametrize(
    ("chosen", "judges", "alike"),
    [
        (["data=corpus"], {"bm25", "embedding"}, []),
        (["data=corpus", "judge=openai"], {"openai"}, []),
        (["experiment=bare_corpus"], {"bm25", "embedding", "small_embedding", "bi_encoder"}, []),
        (
            ["experiment=bare_corpus", "judge.weights.bi_encoder=1"],
            {"bm25", "embedding", "small_embedding", "bi_encoder"},
            ["bi_encoder"],
        ),
        (["experiment=bare_corpus", "judge=local_ensemble"], {"bm25", "embedding"}, []),
        (["experiment=bare_corpus", "judge=[bm25,openai]"], {"bm25", "openai"}, []),
    ],
)
def test_judges_of_documents_alone(
    chosen: list[str], judges: set[str], alike: list[str], tmp_path: Path, tiny_model: Path
) -> None:
    """Others take their place, and who counts as much as others is named where it starts alike."""
    at_hand = [
        f"judge.judges.{name}.pretrained.path={tiny_model}"
        for name in judges & {"embedding", "small_embedding"}
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        run = build_from(compose("config", overrides=[*chosen, *at_hand, f"data.path={tmp_path}"]))
    assert set(run.judge.judges) == judges
    assert judges_that_start_alike(run) == alike
