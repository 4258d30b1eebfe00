"""Options: typed, ranged and documented once, in the class that uses them.

A *component* is anything a researcher varies: a sampler, a judge, a model. It is a frozen pydantic
model whose fields are its options, and a YAML file in `conf/` that names its class under
`_target_`. Hydra composes the YAML files; `build` turns the composition into components and
refuses unknown keys, wrong types and values out of range with one readable line.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import zelo
from zelo.errors import UserError
from zelo.renamed import renamed

TARGET = "_target_"  # import path of a component's class, in YAML
ADDED = "added"  # mark of an option that there was not always
CLASS = "class"  # name of a component's class, in fingerprints and records


def path_of(name: str, *, _root_: DictConfig) -> str | None:
    """`weights.path` for a group of weights that has the name of the run's own; else None, since
    that folder holds another model. YAML files say `${path_of:${.name}}`."""
    whole: str | None = _root_.pretrained.path if name == _root_.pretrained.name else None
    return whole


OmegaConf.register_new_resolver("path_of", path_of, replace=True)


class Component(BaseModel):
    """Base of everything that is chosen by configuration.

    Fields declared with `exclude=True` do not change a result (batch sizes, progress) and are no
    part of the fingerprint. A class outside this package goes into fingerprints by its import path;
    one that states its own `stable_name` may be moved without anything being made again.
    """

    stable_name: ClassVar[str | None] = None

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        validate_default=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        """Take the containers in which `hydra.utils.instantiate` gives lists and mappings."""
        if not isinstance(values, Mapping):
            return values
        return {
            key: OmegaConf.to_container(value, resolve=True)
            if OmegaConf.is_config(value)
            else value
            for key, value in values.items()
        }

    @classmethod
    def changes_results(cls, name: str) -> bool:
        """Whether an option is part of the fingerprint."""
        return not cls.model_fields[name].exclude


@runtime_checkable
class Checked(Protocol):
    """A component that tries at the start of a run what it will need at the end."""

    def check(self) -> None:
        """Raise `UserError` where something is missing, before anything is paid for."""
        ...


def check(*components: object) -> None:
    """Have those components that can try what they need do so."""
    for component in components:
        if isinstance(component, Checked):
            component.check()


def option(default: Any = ..., help: str = "", added: bool = False, **limits: Any) -> Any:
    """Declare a field of a component: default value, what it means, limits (`ge`, `le`, ...).

    `repr=False` keeps a value that may hold a secret out of messages. An option that was `added`
    after others, and whose default is what was done before, is in the fingerprint only where it has
    another value, so that what was made before is not made again.
    """
    return Field(
        default, description=help, json_schema_extra={ADDED: True} if added else None, **limits
    )


def at_its_default(cls: type[Component], name: str, value: Any) -> bool:
    """Whether an option that was added later does what was done without it."""
    field = cls.model_fields.get(name)  # None: an argument of Lightning's
    extra = None if field is None else field.json_schema_extra
    if field is None or not isinstance(extra, dict) or ADDED not in extra:
        return False
    return bool(value == field.default)


def describe(value: Any) -> Any:
    """Return a component as plain data: what is fingerprinted and kept beside results.

    A component that stands for files (a collection, weights) has a `fingerprint()` of their
    content, which goes in as `content`.
    """
    if isinstance(value, Component):
        cls = type(value)
        fields = {
            name: describe(item)
            for name, item in value
            if cls.changes_results(name) and not at_its_default(cls, name, item)
        }
        content = {"content": value.fingerprint()} if hasattr(value, "fingerprint") else {}
        return {CLASS: name_of(cls), **fields, **content}
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    return value


def name_of(cls: type) -> str:
    """What a class is called in fingerprints: in this package its own name, which no other class
    here has, so that a file can be moved; of others `stable_name`, or else the import path."""
    stated: str | None = vars(cls).get("stable_name")
    inside = cls.__module__.partition(".")[0] == zelo.__name__
    return stated or (cls.__name__ if inside else f"{cls.__module__}.{cls.__qualname__}")


def dump(value: Any) -> Any:
    """Return a component as plain data from which `build` makes it again."""
    if isinstance(value, Component):
        cls = type(value)
        fields = {name: dump(item) for name, item in value}
        return {TARGET: f"{cls.__module__}.{cls.__qualname__}", **fields}
    if isinstance(value, Mapping):
        return {str(key): dump(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [dump(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def conf_folder() -> Path:
    """The configuration tree: inside an installed package, beside `src` in a checkout."""
    inside = Path(zelo.__file__).parent / "conf"
    return inside if inside.is_dir() else Path(zelo.__file__).parents[2] / "conf"


def conf_file(name: str) -> dict[str, Any]:
    """What a file of `conf/` says that is not composed: a list of prices, of suites."""
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(conf_folder() / name))
    return dict(content)


def build_from(config: DictConfig) -> Any:
    """Resolve a composed configuration and build what it describes; see `build`."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key, line = getattr(error, "full_key", None) or "configuration", str(error).splitlines()[0]
        asked = re.match(r"Interpolation key '(.+)' not found", line)
        old = renamed(asked[1]) if asked else None
        raise UserError(f"{key}: {old or f'{line}; set it with {key}=VALUE'}") from None
    built = build(plain)
    if not isinstance(built, Component):
        raise UserError(f"{TARGET}: missing; the configuration says of no class what it is")
    return built


def build(node: Any, path: str = "") -> Any:
    """Build the components that plain data describe, innermost first.

    Raises `UserError` naming the key (`sampler.cycles`), the value found and what is allowed.
    """
    if isinstance(node, Mapping):
        values = {
            str(key): build(item, f"{path}.{key}" if path else str(key))
            for key, item in node.items()
            if key != TARGET
        }
        return _construct(node[TARGET], values, path) if TARGET in node else values
    if isinstance(node, list):
        return [build(item, f"{path}[{index}]") for index, item in enumerate(node)]
    return node


def _construct(target: str, values: dict[str, Any], path: str) -> Any:
    cls = _locate(target, path)
    for name in cls.model_fields.keys() & values.keys():
        if values[name] == "None":  # a word like any other, to Hydra
            key = f"{path}.{name}".strip(".")
            raise UserError(f"{key}=None: what is not given is called null here: {key}=null")
    try:
        return cls(**values)
    except ValidationError as error:
        raise UserError(_explain(error, cls, path)) from None


def _locate(target: str, path: str) -> type[Component]:
    module, _, name = str(target).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{path}.{TARGET}={target}: no such class ({error})") from None
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise UserError(f"{path}.{TARGET}={target}: not a zelo.config.Component")
    return cls


def _explain(error: ValidationError, cls: type[Component], path: str) -> str:
    """One line for a pydantic error: key, value found, what is allowed, what the option means."""
    parts = []
    for detail in error.errors():
        key = ".".join([path, *map(str, detail["loc"])]).strip(".")
        name = str(detail["loc"][0]) if detail["loc"] else ""
        if detail["type"] == "extra_forbidden":
            known = ", ".join(cls.model_fields)
            parts.append(
                renamed(key) or f"{key}: no such option; {path or 'the configuration'} has {known}"
            )
        elif detail["type"] == "missing":
            parts.append(f"{key}: required; set it with {key}=VALUE")
        elif not key:  # of options that do not go together: all of them would say nothing
            parts.append(detail["msg"].removeprefix("Value error, "))
        else:
            message = detail["msg"].removeprefix("Value error, ")
            field = cls.model_fields.get(name)
            about = f" ({field.description})" if field and field.description else ""
            shown = f"={detail['input']!r}" if field is None or field.repr else ""
            parts.append(f"{key}{shown}: {message[:1].lower()}{message[1:]}{about}")
    return "; ".join(parts)
