"""What the documentation is built with: formulas without a script, options from their source."""

from __future__ import annotations

import html
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from omegaconf import OmegaConf

from zelo.config import TARGET

CONF = Path(__file__).parents[1] / "conf"
GROUPS = {
    "data": "What are we working on?",
    "pretrained": "What does everything start from?",
    "queries": "Are queries written from the documents?",
    "retriever": "Which documents could matter?",
    "sampler": "Which pairs are compared?",
    "judge": "Which of two is more relevant?",
    "distil": "May a small model answer instead?",
    "distil/model": "What learns to answer?",
    "cross": "Are queries put on one scale?",
    "refine": "Are failures learned from, in another pass?",
    "rating": "How relevant is each document?",
    "model": "What is trained?",
    "lora": "Full fine-tuning, or adapters?",
    "objective": "What does it learn?",
    "training": "How does it learn?",
    "training/optimizer": "What takes the steps?",
    "training/schedule": "How does the learning rate go?",
    "trainer": "On what?",
    "logger": "Where do metrics go?",
    "reranker": "What is compared by `zelo evaluate`?",
    "truth": "What is it compared with?",
}
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "entries ≥"}
MATHS = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers draw by themselves."""

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return str(convert(html.unescape(found[2]), display=display))

    return MATHS.sub(drawn, content)


def on_files(files: Files, config: Any) -> Files:
    """Add the page of all options, made from `conf/` and from the classes that it names."""
    files.append(File.generated(config, "configuration.md", content=configuration()))
    return files


def configuration() -> str:
    """The page."""
    parts = [
        "# Configuration\n",
        "Every choice is a file under `conf/`, chosen by `GROUP=NAME`; every option is set by "
        "`GROUP.OPTION=VALUE` and has a type, a range and a default. This page is made from those "
        "files and from the classes that they name. `zelo run ... --cfg job` prints what a command "
        "composes; `${...}` refers to another option.\n",
        "## The run\n",
        *table_of("", CONF / "config.yaml"),
        "\n`hydra.run.dir=FOLDER` names the folder of a run.\n",
    ]
    for group, question in GROUPS.items():
        parts += [f"\n## {group}\n", f"{question}\n"]
        seen: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
        for path in sorted((CONF / group).glob("*.yaml")):
            parts += [f"\n### {group}={path.stem}\n", f"{comment(path)}\n", includes(group, path)]
            values = dict(settings(whole(path)))
            shape = tuple(sorted(map(generic, values)))
            if shape in seen and len(shape) > 3:
                like, others = seen[shape]
                differ = {k for k, v in values.items() if others.get(generic(k)) != v}
                parts.append(
                    f"\nOptions as those of [`{like}`](#{slug(f'{group}={like}')}), but for\n\n"
                )
                parts += table_of(group, path, only=differ)
            else:
                seen[shape] = path.stem, {generic(k): v for k, v in values.items()}
                parts += table_of(group, path)
    return "\n".join(parts)


def includes(group: str, path: Path) -> str:
    """The files that a file includes, each with the part of it that it describes."""
    found = []
    for entry in OmegaConf.load(path).get("defaults", []):
        key, name = next(iter(entry.items())) if isinstance(entry, Mapping) else (group, entry)
        if name in ("_self_", None) or key.startswith("override ") or is_base(entry):
            continue
        named, _, part = name.partition("@") if key == group else (name, *key.partition("@")[1:])
        of = key.partition("@")[0]
        of = of.removeprefix("/") if of.startswith("/") or of == group else f"{group}/{of}"
        if named.startswith("/"):  # of another group
            of, _, named = named[1:].rpartition("/")
        part = part or (of.rpartition("/")[2] if of != group else "")
        link = f"[`{of}={named}`](#{slug(f'{of}={named}')})"
        found.append(f"`{part}`: {link}" if part else link)
    return f"\nIncludes {'; '.join(found)}.\n" if found else ""


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w-]", "", heading.lower())


def generic(key: str) -> str:
    """A key without the name that a file gives its judge."""
    return re.sub(r"^judges\.[^.]+", "judges.*", key)


def comment(path: Path) -> str:
    """The comment that a file begins with, as a sentence."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    text = " ".join(lines)
    return text if not text or text.endswith((".", ")")) else f"{text}."


def is_base(entry: Any) -> bool:
    """Whether an entry of a defaults list is a file to inherit from, which is no choice."""
    return isinstance(entry, str) and "_base/" in entry


def whole(path: Path) -> Any:
    """What a file says, with what it inherits from other files of its group."""
    config = OmegaConf.load(path)
    own = (str(entry) for entry in config.get("defaults", []) if is_base(entry))
    if not any(entry.startswith("_base/") for entry in own):
        return config
    group = path.parent.name
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[f"{group}={path.stem}"])[group]


def settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Key → value of every option of a file, those of nested components by their path."""
    plain = OmegaConf.to_container(config, resolve=False) if not prefix else config
    for key, value in plain.items():
        if key in (TARGET, "defaults", "hydra"):
            continue
        if isinstance(value, Mapping) and (TARGET in value or prefix + key == "judges"):
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def table_of(group: str, path: Path, only: set[str] | None = None) -> list[str]:
    """A table of a file's options with default, range and meaning."""
    config = OmegaConf.to_container(whole(path) if group else OmegaConf.load(path), resolve=False)
    rows = [
        row
        for key, value in settings(OmegaConf.create(config))
        if only is None or key in only
        for row in [option_row(f"{group}.{key}".strip("."), config, key, value)]
    ]
    if not rows:
        return ["\nNo options.\n"]
    return ["\n| option | default | allowed | is |", "|---|---|---|---|", *rows, ""]


def option_row(shown: str, config: Any, key: str, value: Any) -> str:
    """One row of the table."""
    *way, name = key.split(".")
    for step in way:
        config = config[step]
    field = fields_of(config).get(name)
    allowed, about = (limits(field), field.description or "") if field is not None else ("", "")
    default = "required" if value == "???" else f"`{plain(value)}`"
    cells = [f"`{shown}`", default, allowed, about[:1].upper() + about[1:]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def plain(value: Any) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in value.items()) + "}"
    return str(value)


def fields_of(config: Any) -> Mapping[str, Any]:
    """Fields of the class that a file names; of a package of settings of another, none."""
    target = config.get(TARGET) if isinstance(config, Mapping) else None
    if target is None:
        return {}
    module, _, name = target.rpartition(".")
    fields: Mapping[str, Any] = getattr(importlib.import_module(module), name).model_fields
    return fields


def limits(field: Any) -> str:
    """Range of a field, or the words that it may be."""
    said = []
    for limit in field.metadata:
        for name, sign in LIMITS.items():
            bound = getattr(limit, name, None)
            if bound is not None:
                said.append(f"{sign} {bound}")
        pattern = getattr(limit, "pattern", None)
        if pattern and (words := re.fullmatch(r"\^\(([\w|]+)\)\$", pattern)):
            said.append(", ".join(f"`{word}`" for word in words[1].split("|")))
    return ", ".join(said)
