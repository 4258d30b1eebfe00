"""`zelo publish`: a trained model on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from zelo.errors import UserError
from zelo.models.rerank_file import model_at

PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md", "*.py"]


def publish(place: Path, repo: str, private: bool) -> str:
    """Upload the model of a run's folder, or a model's own, as `repo`; its address there.

    What is uploaded is the model's folder alone: no queries, no documents, no judgments. Raises
    `UserError` where there is no model, no card or no key, or the Hub refuses.
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
