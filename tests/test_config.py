from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tests.conftest import Cli

import zelo
from zelo import pipeline
from zelo.comparison.graphs import Cycles
from zelo.config import TARGET, Component, build, build_from, conf_folder, describe, dump, name_of
from zelo.errors import UserError
from zelo.evaluation.benchmark import Benchmark
from zelo.judging.api import ApiJudge
from zelo.judging.distilled import Distilled
from zelo.judging.ensemble import Ensemble
from zelo.judging.scorer import Scorer
from zelo.launch import composed as compose_and_build
from zelo.renamed import RENAMED, renamed
from zelo.run_config import STAGE_NAMES, Run
from zelo.store import Stage

LIGHTNING = ("module", "data_module")  # classes of Lightning: tests/training/test_standalone.py
CHOICES = sorted(
    (path.parent.relative_to(conf_folder()).as_posix(), path.stem)
    for path in conf_folder().glob("*/**/*.yaml")
    if path.relative_to(conf_folder()).parts[0] not in ("hydra", *LIGHTNING)
    and path.parent.name != "_base"
)

NEEDED = {
    "data=columns": "data.files.train=x",
    "data=hub": "data.path=x",
    "data=ir_datasets": "data.ids={{test:x}}",
    "data=trec": "data.documents=x data.topics=x",
    "retriever=run": "retriever.path=x",  # options without a default
    "data=beir": "data.path={0}",
    "data=corpus": "data.path={0}",
    "experiment=bare_corpus": "data.path={0}",
    "data=annotated": "data.path={0}",
    "data=scored": "data.path={0}",
    "pretrained=hub": "model.pretrained.name=x",
    "judge=recorded": "judge.judges.recorded.path={0}/p.jsonl",
    "judge=azure": "judge.judges.azure.provider.base_url=http://x judge.judges.azure.model=x",
    "judge=vertex": "judge.judges.vertex.provider.base_url=http://x",
    "judge=person": "judge.judges.person.name=Ann",
    "judge=zbench": "judge.judges.openai.path={0}/p.jsonl",
    "judge=planted": "judge.judges.first.view.path={0}/s.jsonl",
    "distil/model=cross_encoder": "distil=on",
    "refine=on": "distil=on",
    "cross=on": "objective=mse",
    "judge=distilled": "judge.judges.distilled.folder={0}",
    "sampler=recorded": "sampler.path={0}/p.jsonl",
}


ELSEWHERE = {  # groups of other commands than `zelo run`
    "reranker": ("evaluate", Benchmark),
    "truth": ("evaluate", Benchmark),
}


CHOSEN_BY = {  # groups that are chosen for a part of the run
    "pretrained": "pretrained@model.pretrained",
    "lora": "+lora@model.lora",
}


def chosen(group: str, name: str) -> str:
    """The word of a command line that chooses a file."""
    return f"{group}=[{name}]" if group in ELSEWHERE else f"{CHOSEN_BY.get(group, group)}={name}"


COMMANDS = {"config": [], "evaluate": [], "audit": ["data.path=x"], "rate": ["file=x"]}


def composed(*overrides: str, name: str = "config") -> Run:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return build_from(compose(name, overrides=list(overrides)))


@cache
def plain(group: str, name: str, *more: str) -> Any:
    """A choice as Hydra composes it, nothing resolved: composed once, and changed by nobody."""
    needed = NEEDED.get(f"{group}={name}", "").format("/nowhere").split()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose(
            ELSEWHERE.get(group, ("config", Run))[0],
            overrides=[chosen(group, name), *needed, *more],
        )


@pytest.mark.parametrize("command", ["evaluate", "audit"])
def test_a_distilled_judge_needs_no_trainer(command: str, tmp_path: Path) -> None:
    more = ["data.path=x"] if command == "audit" else []
    folder = f"judge.judges.distilled.folder={tmp_path}"
    composed("judge=distilled", folder, *more, name=command)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_option_of_every_group_builds(group: str, name: str) -> None:
    _, kind = ELSEWHERE.get(group, ("config", Run))
    assert isinstance(build_from(plain(group, name)), kind)


def test_every_option_is_written_out_so_that_it_can_be_set() -> None:
    """Hydra refuses to set what no YAML file names, so the files name all that there is."""
    for group, name in CHOICES:
        config = OmegaConf.to_container(plain(group, name), resolve=True)
        for path, node in components(config):
            module, _, cls = node["_target_"].rpartition(".")
            fields = set(getattr(importlib.import_module(module), cls).model_fields)
            missing = fields - set(node) - {"kind"}
            assert not missing, f"{group}={name}: {path} does not name {missing}"


def stated() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Class → the nodes of `conf/` that state it: where it is chosen by default the first that is,
    else all."""
    first: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for command, more in COMMANDS.items():
            config = compose(command, overrides=more)
            for path, node in components(OmegaConf.to_container(config, resolve=True)):
                if not is_preset(node):
                    first.setdefault(node[TARGET], [(f"{command}.yaml{path}", node)])
    others: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for file in sorted(conf_folder().glob("*/**/*.yaml")):
        if file.parent.name in LIGHTNING:
            continue
        for path, node in components(OmegaConf.to_container(OmegaConf.load(file))):
            if node[TARGET] not in first and not is_preset(node):
                where = f"{file.relative_to(conf_folder())}{path}"
                others.setdefault(node[TARGET], []).append((where, node))
    return first | others


def class_of(node: dict[str, Any]) -> type[Component]:
    module, _, name = node[TARGET].rpartition(".")
    found: type[Component] = getattr(importlib.import_module(module), name)
    return found


def is_preset(node: dict[str, Any]) -> bool:
    """Whether a node is about one thing that it names (a model, an endpoint, a kind), or is none of
    the project's classes."""
    if not node[TARGET].startswith("zelo.") or not issubclass(class_of(node), Component):
        return True
    required = [name for name, field in class_of(node).model_fields.items() if field.is_required()]
    named = [value for value in map(node.get, required) if not isinstance(value, dict)]
    return any(value not in (None, "???", "x") and "${" not in str(value) for value in named)


def differences(node: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Options that a node states otherwise than its class, and both values."""
    found = {}
    for name, field in class_of(node).model_fields.items():
        value = node.get(name)
        if name in node and not field.is_required() and "${" not in str(value):
            path = isinstance(field.default, Path)
            default = str(field.default) if path else dump(field.default)
            if value != default:
                found[name] = (value, default)
    return found


def test_what_is_chosen_by_default_is_what_the_class_says() -> None:
    """One truth: the file of a class that is chosen by default states the class's own defaults, and
    where none is, one of its files does. The others are presets."""
    classes = stated()
    assert len(classes) > 50
    for target, nodes in classes.items():
        found = {where: differences(node) for where, node in nodes}
        assert not all(found.values()), f"{target}: (file, class) {found}"


def components(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node that names a class."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, below in node.items():
            yield from components(below, f"{path}.{key}")


ELSEWHERE_SET = (
    "packages",
    *(
        f"{of}.judge.{what}"
        for of in ("rerankers.pairwise", "truth")
        for what in ("judges", "weights")
    ),
)


@pytest.mark.parametrize("group", sorted({group for group, _ in CHOICES}))
def test_no_group_stands_for_another_whose_options_could_then_not_be_set(group: str) -> None:
    """`weights: ${weights}` would hide `.path` and `.name`; each option refers by itself."""
    for name in (name for of, name in CHOICES if of == group):
        config = plain(group, name)
        for path in leaves(OmegaConf.to_container(config)):
            hidden = OmegaConf.is_config(OmegaConf.select(config, path))
            assert not hidden or path.endswith(ELSEWHERE_SET), f"{group}={name}: {path}"


def leaves(node: Any, path: str = "") -> Iterator[str]:
    """Path of everything that is said to refer to something else."""
    if isinstance(node, dict):
        for key, below in node.items():
            yield from leaves(below, f"{path}.{key}" if path else key)
    elif isinstance(node, str) and node.startswith("${"):
        yield path


@pytest.mark.parametrize(
    ("group", "name"),
    [("judge", "bi_encoder"), ("judge", "cross_encoder"), ("judge", "local"),
     ("judge", "local_ensemble"), ("judge", "likelihood"),
     ("judge", "simulated"), ("model", "embedding"), ("model", "minilm"), ("model", "qwen3_4b"),
     ("model", "reranker"), ("reranker", "cross_encoder"), ("reranker", "embedding"),
     ("retriever", "dense"), ("retriever", "hybrid"), ("distil", "on"),
     ("experiment", "zerank_1")],
)  # fmt: skip
def test_the_weights_of_a_part_are_set_for_that_part_alone(group: str, name: str) -> None:
    def weights(*more: str) -> dict[str, tuple[str, str | None]]:
        config = OmegaConf.to_container(plain(group, name, *more), resolve=True)
        return {
            path[1:]: (node["name"], node["path"])
            for path, node in components(config)
            if node["_target_"].endswith("PretrainedModel")
        }

    before = weights("pretrained.path=/all")
    own, folder = before["pretrained"]
    assert folder == "/all"
    for path, (named, found) in before.items():
        if path == "pretrained":
            continue
        # The run's folder holds the run's model, and no other.
        assert found in (None, "/all") if named == own else found is None
        changed = weights("pretrained.path=/all", f"{path}.name=other")
        assert changed.pop(path) == ("other", None)
        assert changed == {key: value for key, value in before.items() if key != path}
        changed = weights("pretrained.path=/all", f"{path}.path=/one")
        assert changed.pop(path) == (named, "/one")
        assert changed == {key: value for key, value in before.items() if key != path}


def test_an_experiment_has_the_last_word_but_for_the_user() -> None:
    assert composed().depth == 100
    assert composed("experiment=quickstart").depth == 8
    assert composed("experiment=quickstart", "depth=9").depth == 9
    assert type(composed("experiment=quickstart", "retriever=bm25").retriever).__name__ == "BM25"


def test_recorded_preferences_are_named_once() -> None:
    judge = ["judge=recorded", "judge.judges.recorded.path=p.jsonl"]
    assert str(composed("sampler=recorded", *judge).sampler.path) == "p.jsonl"
    assert str(composed("sampler=recorded", *judge, "sampler.path=o").sampler.path) == "o"
    with pytest.raises(UserError, match=r"sampler\.path: .*set it with sampler\.path=VALUE"):
        composed("sampler=recorded")


def test_the_collection_may_choose_its_judges_and_the_user_has_the_last_word() -> None:
    assert "first" in composed("data=beir", "data.path=x").judge.judges
    assert "words" in composed("data=beir", "data.path=x", "judge=simulated").judge.judges


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.cycles=0", "sampler.cycles=0: input should be greater than or equal to 1"),
        ("sampler.cycles=many", "sampler.cycles='many': input should be a valid integer"),
        ("judge.vote=loud", "judge.vote='loud'"),
        ("stages=[rate,tarin]", "no stage tarin; there are load, queries, retrieve"),
        ("data=beir", "data.path"),
        ("+sampler.cylces=4", "sampler.cylces: no such option; sampler has cycles"),
        ("sampler._target_=os.system", "not a zelo.config.Component"),
        ("sampler._target_=zelo.comparison.graphs.Circles", "no such class"),
        ("sampler=circles", "Could not find 'sampler/circles'"),
    ],
)
def test_mistakes_are_refused_in_one_readable_line(override: str, message: str) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        composed(override)
    assert message in str(caught.value)
    if isinstance(caught.value, UserError):
        assert "\n" not in str(caught.value)


def test_a_component_of_the_wrong_kind_is_refused() -> None:
    node = {
        "_target_": "zelo.rating.rate.Rating",
        "model": {"_target_": "zelo.comparison.graphs.AllPairs"},
    }
    with pytest.raises(UserError, match=r"rating\.model=AllPairs"):
        build(node, "rating")


def test_the_stages_that_may_be_chosen_are_those_of_the_pipeline() -> None:
    called = {stage.name for stage in vars(pipeline).values() if isinstance(stage, Stage)}
    assert called == set(STAGE_NAMES)


def all_components() -> list[type[Component]]:
    """Every component of the package."""
    for path in sorted(Path(zelo.__file__).parent.rglob("*.py")):
        name = ".".join(path.relative_to(Path(zelo.__file__).parent).with_suffix("").parts)
        if name != "__main__":
            importlib.import_module(f"zelo.{name}".removesuffix(".__init__"))
    found: dict[type[Component], None] = {}
    waiting = [Component]
    while waiting:
        waiting += (below := waiting.pop().__subclasses__())
        found |= dict.fromkeys(cls for cls in below if cls.__module__.startswith("zelo."))
    return list(found)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_a_fingerprint_does_not_depend_on_where_a_class_lies(
    group: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_from(plain(group, name))
    for cls in all_components():
        if "fingerprint" in vars(cls):  # of files, which are not there
            monkeypatch.setattr(cls, "fingerprint", lambda self: "of its content")
    before = describe(built)
    for cls in all_components():
        monkeypatch.setattr(cls, "__module__", "zelo.another_room.another_file")
    assert describe(built) == before


def test_no_two_components_have_one_name() -> None:
    counts = Counter(name_of(cls) for cls in all_components())
    assert not {name for name, count in counts.items() if count > 1}


def test_a_class_of_ones_own_is_known_by_its_path_or_by_the_name_that_it_states() -> None:
    class Own(Component):
        pass

    class Stated(Component):
        stable_name = "stated"

    class Another(Stated):
        pass

    assert name_of(Own) == f"{__name__}.{Own.__qualname__}"
    assert name_of(Stated) == "stated"
    assert name_of(Another) == f"{__name__}.{Another.__qualname__}"


def test_describe_holds_what_changes_results_and_nothing_else() -> None:
    assert describe(Cycles(cycles=3)) == {"class": "Cycles", "cycles": 3}
    run = composed()
    assert not {"home", "stages", "logger"} & set(describe(run))
    assert "accelerator" not in describe(run)["trainer"]


@pytest.mark.parametrize("old", [old for old in RENAMED if old[:5] != "judge"])
@pytest.mark.parametrize("below", ["", "distil."])
def test_an_old_name_is_answered_with_the_new_one(old: str, below: str) -> None:
    """On the command line, and in a file of the user's own."""
    new = RENAMED[old]
    group = "" if "." in old or (old, below) == ("weights", "") else "model."
    if (below, old) in (("", "max_query_tokens"), ("distil.", "train_max_tokens")):
        return  # of the pairwise model alone, of the others alone
    key, now = f"{below}{group}{old}", f"{below}{group}{new}"
    for word in (f"{key}=1", f"+{key}=1", f"~{key}"):
        with pytest.raises(UserError) as caught:
            compose_and_build("config", ["distil=on", word])
        assert str(caught.value) == f"{key}: it is called {now} now"
    with pytest.raises(UserError, match=rf": {re.escape(key)}: it is called {re.escape(now)} now$"):
        compose_and_build("config", ["distil=on", f"+seed_of={{a: '${{{key}}}'}}"])
    file = deepcopy(plain("distil", "on"))
    OmegaConf.set_struct(file, False)
    parent, _, name = now.rpartition(".")
    assert name in (OmegaConf.select(file, parent) if parent else file)
    OmegaConf.update(file, key, 1)
    with pytest.raises(UserError) as caught:
        build_from(file)
    assert str(caught.value).startswith(f"{key}: it is called {now} now")


@pytest.mark.parametrize("old", [old for old in RENAMED if old[:5] == "judge"])
def test_an_old_name_of_judges_is_answered_with_the_new_one(old: str) -> None:
    of_all = old.startswith("judge.")
    for kind in ("openai", "bi_encoder", "distilled"):
        start = "" if of_all else "judge."
        key = start + old.replace("*", kind)
        now = start + RENAMED[old].replace("*", kind)
        with pytest.raises(UserError) as caught:
            compose_and_build("config", [f"judge={kind}", f"{key}=1"])
        assert str(caught.value) == f"{key}: it is called {now} now"
    names = {name for kind in (ApiJudge, Scorer, Distilled, Ensemble) for name in kind.model_fields}
    assert RENAMED[old].rpartition(".")[2] in names


def test_an_old_name_ends_in_one_line(cli: Cli) -> None:
    done = cli("run", "training.batch=8")
    assert done.returncode == 2
    assert done.stderr == "error: training.batch: it is called training.batch_size now\n"


def test_what_is_no_old_name_is_not_taken_for_one() -> None:
    for key in (
        "retriever.weight",
        "training.batch_size",
        "judge.judges.weight",
        "weights_of.path",
    ):
        assert renamed(key) is None
    assert renamed("retriever.dense.weights.path") is not None


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_hydra_instantiates_every_group(group: str, name: str) -> None:
    """As one does in a notebook: what `zelo run` builds, part by part and whole."""
    config = plain(group, name)
    built = build_from(config)
    assert dump(instantiate(config)) == dump(built)
    for part in type(built).model_fields:
        node = config[part]
        if OmegaConf.is_dict(node):
            made = instantiate(node)
            found = made if isinstance(made, Component) else dict(made)
            assert dump(found) == dump(getattr(built, part)), part


def test_what_hydra_instantiates_holds_plain_lists_and_mappings() -> None:
    config = plain("judge", "openai", "+judge.judges.openai.extra_body={a: {b: [1]}}")
    extra = instantiate(config.judge).judges["openai"].extra_body
    assert type(extra["a"]) is dict
    assert type(extra["a"]["b"]) is list
