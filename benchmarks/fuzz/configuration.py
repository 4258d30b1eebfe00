"""Overrides: a configured object or one line."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from benchmarks.fuzz.inputs import Broken, expect, mutated
from zelo.errors import UserError
from zelo.launch import composed


@cache
def option_keys(name: str) -> tuple[str, ...]:
    """Every key of a configuration, and the groups it is composed of."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from zelo.config import conf_folder

    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = OmegaConf.to_container(compose(name), throw_on_missing=False)
    found: list[str] = []

    def walk(node: Any, path: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            below = f"{path}.{key}" if path else str(key)
            found.append(below)
            walk(value, below)

    walk(config, "")
    groups = {p.parent.name for p in conf_folder().glob("*/*.yaml")}
    return tuple(sorted({*found, *groups}))


OVERRIDES = (
    "0", "1", "-1", "2", "0.5", "1e400", "nan", "-inf", "null", "true", "''", "x", "many", "9" * 30,
    "9" * 5000, "[]", "[1,x]", "{}", "{a:1}", "{a:{_target_:x.y}}", "${depth}", "${nothing}", "${",
    "???",
    "${oc.env:NOTHING}", "[[[[1]]]]", "a,b", "range(1,3)", "x=y", "a b", "'a b'",
    "\"\\n\"", "'a\nb'",
    "\0", "é", "\ud800", "cpu", "bm25", "dense", "recorded", "off",
    "zelo.comparison.graphs.AllPairs",
    "zelo.comparison.graphs", ".Dense", "..x.Dense", "os.system", "x", "", "/", "../../x", "[rate]",
    "zelo.rating.rate.Rating", "antigravity.x", "zelo.cli.main", "@x", "\\", "{_target_:5}", "test",
)  # fmt: skip


def draw_overrides(rng: random.Random) -> tuple[str, list[str]]:
    """A configuration and overrides of random keys by random values."""
    name = rng.choice(("rate", "rate", "config", "evaluate", "audit"))
    keys = option_keys(name)
    words = []
    for _ in range(rng.randrange(1, 3)):
        key = rng.choice(keys) if rng.random() < 0.9 else mutated(rng.choice(keys), rng)
        word = f"{rng.choice(('', '', '', '', '+', '++', '~'))}{key}={rng.choice(OVERRIDES)}"
        words.append(mutated(word, rng) if rng.random() < 0.1 else word)
    return name, words


def check_config(example: tuple[str, list[str]]) -> None:
    """A configured object, or one line."""
    name, words = example
    more = {"rate": {"file": "x.jsonl"}, "audit": {"data.path": "x.jsonl"}}.get(name, {})
    kind = {"rate": "RateFile", "config": "Run", "evaluate": "Benchmark", "audit": "Audit"}[name]
    try:
        found = composed(name, words, **more)
    except UserError as error:
        if "\n" in str(error) or not str(error).strip():
            raise Broken(f"the message is not one line: {str(error)!r}") from error
        return
    if not any("_target_" in word for word in words):
        expect(type(found).__name__ == kind, "not configured", type(found), words)
    expect(callable(getattr(found, "run", None)) or name == "config", "cannot be run", words, found)
