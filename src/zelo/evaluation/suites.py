"""`zelo evaluate suite=NAME`: the collections of a published suite one after the other, in one
table, and as the front matter of a model's card (`model-index`), where others look for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelo.artifacts import read_json, read_table, write_text
from zelo.config import conf_file, describe
from zelo.errors import UserError
from zelo.evaluation.benchmark import Benchmark
from zelo.evaluation.evaluate import CEILING
from zelo.models.publish import INDEX
from zelo.store import digest

TASK = {"type": "information-retrieval", "name": "Information Retrieval"}
METRICS = {"NDCG@10": "ndcg_at_10", "Recall@10": "recall_at_10", "Recall@100": "recall_at_100"}


@dataclass(frozen=True)
class SuiteWords:
    """The words of a command that are about a suite, and the others."""

    name: str
    folder: Path | None
    only: Sequence[str]  # names of collections; none: all
    others: Sequence[str]

    @classmethod
    def of(cls, words: Sequence[str]) -> SuiteWords | None:
        """None where no word names a suite."""
        sets = (word for word in words if word.partition("=")[0].partition(".")[0] == "suite")
        own: dict[str, str] = {}
        for word in sets:
            key, equals, value = word.partition("=")
            if not equals or key in own:
                raise UserError(
                    f"{word}: suite=NAME, suite.path=FOLDER, suite.only=[NAME,...], once each"
                )
            own[key] = value
        if not own:
            return None
        if unknown := own.keys() - {"suite", "suite.path", "suite.only"}:
            raise UserError(f"{min(unknown)}: no such option; there are suite.path and suite.only")
        if "suite" not in own:
            raise UserError(f"suite=NAME is missing; there are {', '.join(suites())}")
        only = [name.strip() for name in own.get("suite.only", "").strip("[]").split(",")]
        path = own.get("suite.path")
        folder = Path(path).expanduser() if path else None
        others = [word for word in words if word.partition("=")[0] not in own]
        return cls(own["suite"], folder, [name for name in only if name], others)


@dataclass(frozen=True)
class SuiteCollection:
    """One collection of a suite, as `zelo evaluate` is told of it."""

    name: str
    hub: str  # its data set there, and the split
    split: str
    words: Sequence[str]
    values: Mapping[str, str]  # options whose values are taken as they are


def suites() -> dict[str, Any]:
    """What conf/suites.yaml says."""
    return conf_file("suites.yaml")


def collections_of(asked: SuiteWords) -> list[SuiteCollection]:
    """The collections that are asked for; `UserError` where there is no such one, or no copy."""
    known = suites()
    if asked.name not in known:
        raise UserError(f"suite={asked.name}: no such suite; there are {', '.join(known)}")
    if own := [word for word in asked.others if re.match(r"data[.=]|domain=", word)]:
        raise UserError(f"{own[0]}: suite={asked.name} has its own collections")
    suite = known[asked.name]
    there = suite["collections"]
    if unknown := [name for name in asked.only if name not in there]:
        raise UserError(
            f"suite.only={unknown[0]}: not in {asked.name}, which has {', '.join(there)}"
        )
    names = [name for name in there if not asked.only or name in asked.only]
    return [collection(asked, suite, name, there[name]) for name in names]


def collection(
    asked: SuiteWords, suite: Mapping[str, Any], name: str, entry: Mapping[str, Any]
) -> SuiteCollection:
    """One of them."""
    source, words = str(entry.get("path") or suite["path"]), ["data=hub"]
    if "path" in suite:  # a split of one data set, whose evaluator leaves no document out
        words += [f"data.split={name}", "data.qrels=qrels", "data.drop_identical=false"]
        if asked.folder is not None:
            source = str(asked.folder)
    elif asked.folder is not None:
        folders = [asked.folder / one for one in (name, source.rpartition("/")[2])]
        folder = next((one for one in folders if one.is_dir()), None)
        if folder is None:
            raise UserError(f"suite.path={asked.folder}: has no folder {name}")
        source = str(folder)
        if (folder / "corpus.jsonl").is_file():
            words = ["data=beir"]
    if asked.folder is not None and not Path(source).is_dir():
        raise UserError(f"suite.path={asked.folder}: no such folder")
    if "split" in entry:
        words.append(f"evaluation.split={entry['split']}")
    values = {"data.path": source, "data.name": name, "domain": str(entry["domain"])}
    whole = "path" in suite
    hub, split = str(suite["path"] if whole else entry["path"]), str(entry.get("split", "test"))
    return SuiteCollection(name, hub, name if whole else split, words, values)


def evaluate_suite(
    asked: SuiteWords, composed: Callable[..., Benchmark], say: Callable[[str], None]
) -> tuple[list[Path], list[str]]:
    """Evaluate each collection into a folder of its own; one that is there already with the same
    settings is not evaluated again, and one that fails does not stop the others. Returns their
    folders, and what failed, in words.

    `composed` makes an evaluation of a configuration's name, words and values. Raises `UserError`
    where no collection came to its end.
    """
    chosen = collections_of(asked)
    out = next((word[4:] for word in asked.others if word.startswith("out=")), None)
    folder = Path(out).expanduser() if out else None
    others = [word for word in asked.others if not word.startswith("out=")]
    found: list[tuple[SuiteCollection, Benchmark]] = []
    failed: list[str] = []
    for number, one in enumerate(chosen, start=1):
        say(f"── {one.name}, {number} of {len(chosen)} ──")
        benchmark = composed("evaluate", [*others, *one.words], **one.values)
        if folder is None:  # the same for the same words
            words = digest([sorted(others), sorted(asked.only), str(asked.folder)])[:8]
            folder = benchmark.home / "evaluations" / f"{asked.name}-{words}"
        benchmark = benchmark.model_copy(update={"out": folder / one.name})
        about = folder / one.name / "evaluation.json"
        try:
            if about.is_file() and read_json(about)["config"] == describe(benchmark):
                say("  already done")
            else:
                benchmark.run(say)
        except UserError as error:
            say(f"  ! {error}")
            failed.append(f"{one.name}: {error}")
            continue
        found.append((one, benchmark))
    if folder is None or not found:
        raise UserError(f"suite={asked.name}: no collection came to its end; {failed[0]}")
    write_text(folder / INDEX, model_index(asked.name, found))
    return [folder / one.name for one, _ in found], failed


def model_index(name: str, found: Sequence[tuple[SuiteCollection, Benchmark]]) -> str:
    """Results as the front matter of a model's card has them, by system."""
    from omegaconf import OmegaConf

    systems: dict[str, list[dict[str, Any]]] = {}
    models: dict[str, str] = {}
    for one, benchmark in found:
        for system, metrics in metrics_of(Path(str(benchmark.out))):
            where = {"type": one.hub, "name": one.name, "split": one.split}
            source = {"name": f"zelo evaluate suite={name}: {system}"}
            result = {"task": TASK, "dataset": where, "metrics": metrics, "source": source}
            systems.setdefault(system, []).append(result)
            models[system] = model_of(benchmark, system)
    index = [{"name": models[system], "results": results} for system, results in systems.items()]
    return OmegaConf.to_yaml(OmegaConf.create({"model-index": index}))


def model_of(benchmark: Benchmark, system: str) -> str:
    """What the model of a system is called, or the system where it has none."""
    reranker: Any = benchmark.rerankers.get(system, benchmark if system == "dense" else None)
    pretrained = getattr(reranker, "pretrained", None)
    if pretrained is None:
        return system
    return Path(pretrained.path).name if pretrained.path else str(pretrained.name)


def metrics_of(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each system of an evaluation, and its metrics as cards have them."""
    values: dict[str, list[dict[str, Any]]] = {}
    for row in read_table(folder, "metrics").to_pylist():
        if row["metric"] in METRICS and row["system"] != CEILING:
            metric = {
                "type": METRICS[row["metric"]],
                "value": round(row["value"], 5),
                "name": row["metric"],
            }
            values.setdefault(row["system"], []).append(metric)
    yield from values.items()
