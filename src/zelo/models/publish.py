"""`zelo publish`: a trained model on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zelo.errors import UserError, in_words
from zelo.models.rerank_file import model_at

INDEX = "model-index.yaml"  # results of a suite, as the front matter of a card has them
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md", "*.py"]


def publish(place: Path, repo: str, private: bool, results: Path | None = None) -> str:
    """Upload the model of a run's folder, or a model's own, as `repo`; its address there.

    What is uploaded is the model's folder alone: no queries, no documents, no judgments. With
    `results`, the folder of a suite that evaluated it, its card has these from then on. Raises
    `UserError` where there is no model, no card, no result or no key, or the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    folder = model_at(place)
    if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
        raise UserError(f"{place}: no model is there (modules.json, config.json)")
    if not (folder / "README.md").is_file():
        raise UserError(f"{folder}: no README.md; a model without a card tells nobody what it is")
    hidden = [path for path in folder.rglob("*") if path.is_symlink() or path.name[:1] == "."]
    if hidden:
        raise UserError(
            f"{hidden[0]}: a link or a hidden file, no part of a model; remove it first"
        )
    if results is not None:
        put_results(folder, results, repo.rpartition("/")[2])
    api = HfApi(library_name="zelo")
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder,
            commit_message="Trained by zelo",
            allow_patterns=PATTERNS,
        )
    except HFValidationError as error:
        raise UserError(f"repo={repo}: {error}") from None
    except Exception as error:  # of the Hub, of HTTP, of the disk: the line is what there is to say
        line = str(error).strip().splitlines()[0]
        hint = "; log in by `hf auth login` or set HF_TOKEN" if "401" in line else ""
        raise UserError(f"repo={repo}: {line}{hint}") from None
    return str(url)


def put_results(folder: Path, results: Path, name: str) -> None:
    """Write what a suite found of the model in `folder` into its card, where the Hub reads it, as
    results of the model `name`."""
    from huggingface_hub.repocard import metadata_load, metadata_save
    from omegaconf import OmegaConf

    path = results / INDEX
    if not path.is_file():
        raise UserError(f"results={results}: no {INDEX}; `zelo evaluate suite=...` writes one")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
        found = content["model-index"]
        own = [entry for entry in found if entry["name"] == folder.name]
    except Exception as error:  # of YAML, or of what else lies in it
        raise UserError(f"{path}: no results of a suite ({in_words(error)})") from None
    if not own:
        known = ", ".join(entry["name"] for entry in found)
        raise UserError(
            f"{path}: has results of {known}, none of a model in a folder {folder.name}"
        )
    card = folder / "README.md"
    front = metadata_load(card) or {}
    evaluated = [result for entry in own for result in entry["results"]]
    front["model-index"] = [{"name": name, "results": evaluated}]
    metadata_save(card, front)
