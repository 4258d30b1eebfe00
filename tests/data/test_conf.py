"""Files of conf/data inherit from conf/data/_base what sources of labels have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.test_config import class_of, differences

from zelo.config import conf_folder
from zelo.data.collection import LabelledSource

SOURCES = conf_folder() / "data"
BASE = SOURCES / "_base" / "labelled_source.yaml"
SHARED = set(LabelledSource.model_fields)


def content(path: Path) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def test_what_is_inherited_states_the_defaults_of_its_class() -> None:
    target = f"{LabelledSource.__module__}.{LabelledSource.__qualname__}"
    assert set(content(BASE)) == SHARED
    assert differences({"_target_": target, **content(BASE)}) == {}


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.yaml")), ids=lambda path: str(path.stem))
def test_a_source_of_labels_inherits_what_all_have_and_says_none_of_it_twice(path: Path) -> None:
    node = content(path)
    if "_target_" in node and issubclass(class_of(node), LabelledSource):
        assert "_base/labelled_source@_here_" in node["defaults"]
        assert not SHARED & set(node)


def test_what_is_inherited_can_be_set_and_is_not_offered_as_a_choice() -> None:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("config", overrides=["data=beir", "data.path=/x", "data.strict=true"])
        assert (config.data.strict, config.data.drop_identical) == (True, True)
        with pytest.raises(Exception, match="Available options in 'data'") as caught:
            compose("config", overrides=["data=nothing"])
    assert "_base" not in str(caught.value)
