"""`zelo rerank`: order the documents of a file by a model."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zelo.artifacts import read_json
from zelo.data.lines import decoded, numbered_lines, title_field
from zelo.errors import UserError
from zelo.models.fusion import fused_scores, read_weight
from zelo.progress import say

FIELDS = ("text", "content", "contents", "document")
FIRST_STAGE = "first_stage_score"  # field of a document, by which what found it has ranked it


def documents_of(file: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Documents of a file (`-`: standard input): what is written back of each, and its text.

    A line that begins with `{` is an object with a text; any other is a document itself.
    """
    if file == "-" and sys.stdin is None:
        raise UserError("standard input is closed; name a file in place of -")
    lines = decoded(sys.stdin.buffer, file) if file == "-" else numbered_lines(Path(file))
    for number, text in lines:
        if not text.lstrip().startswith("{"):
            yield {"text": text}, text
            continue
        try:
            record = json.loads(text)
            json.dumps(record, ensure_ascii=False).encode()  # as it is written back
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}:{number}: not JSON ({error})") from None
        field = next((name for name in FIELDS if isinstance(record.get(name), str)), None)
        if field is None:
            raise UserError(f"{file}:{number}: no field {' or '.join(FIELDS)} with a text")
        title = title_field(record, f"{file}:{number}")
        yield record, f"{title} {record[field]}" if title else record[field]


def rerank_file(
    model: Path, query: str, file: str, weight: float | None = None, instruction: str = ""
) -> list[dict[str, Any]]:
    """Documents with `rank` (from 1) and `score`, best first.

    Where documents have a `first_stage_score`, `score` is that sum of both that `weight` says,
    None: the weight that came with the model, if any; and `model_score` is the model's own.
    `UserError` where the model reads no instructions and is given one.
    """
    if weight is not None and not 0 <= weight <= 1:
        raise UserError(f"--weight {weight}: a share of the model from 0 to 1 is needed")
    found = list(documents_of(file))
    if not found:
        raise UserError(f"{file}: empty, at least one document is needed")
    first_stage = first_stage_scores([record for record, _ in found], file)
    scores = score(model, query, [text for _, text in found], instruction)
    if strange := [i for i, value in enumerate(scores) if math.isnan(value)]:
        raise UserError(
            f"{model}: {len(strange)} scores are no numbers, the first that of "
            f"{found[strange[0]][1][:60]!r}: its weights are damaged, or too large for their "
            f"precision"
        )
    own = [{"score": value} for value in scores]
    share = read_weight(model) if weight is None else weight
    if weight is not None and not first_stage:
        raise UserError(f"{file}: --weight {weight}, and no document has a {FIRST_STAGE}")
    if first_stage and share is not None and share < 1:
        whose = "of the model's folder" if weight is None else "as asked"
        say(
            f"score: {share:g} of the model + {1 - share:g} of {FIRST_STAGE}, z-scores of "
            f"{len(found):,} documents, weight {whose}; --weight 1 is the model alone"
        )
        fused = fused_scores(first_stage, scores, share).tolist()
        own = [
            {"score": value, "model_score": score}
            for value, score in zip(fused, scores, strict=True)
        ]
    order = sorted(range(len(found)), key=lambda i: -own[i]["score"])
    return [{**found[i][0], "rank": rank, **own[i]} for rank, i in enumerate(order, start=1)]


def first_stage_scores(records: Sequence[Mapping[str, Any]], file: str) -> list[float]:
    """The `first_stage_score` of every document; none where none has one.

    `UserError` where only some have one, or one is no finite number.
    """
    given = [record[FIRST_STAGE] for record in records if FIRST_STAGE in record]
    strange = [
        value
        for value in given
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    ]
    if strange:
        raise UserError(f"{file}: {FIRST_STAGE} {strange[0]!r} is no finite number")
    if given and len(given) < len(records):
        raise UserError(
            f"{file}: {len(given)} of {len(records)} documents have a {FIRST_STAGE}; give it for "
            f"all or for none"
        )
    return [float(value) for value in given]


def score(model: Path, query: str, texts: list[str], instruction: str = "") -> list[float]:
    """Scores by the model in a folder, whichever kind it is."""
    check_model(model)
    from zelo.models.cross_encoder import load_cross_encoder
    from zelo.models.embedding import load_embedding_model
    from zelo.models.instructions import template_of
    from zelo.models.scoring import score_candidates

    loaded = load_cross_encoder(model) if is_cross_encoder(model) else load_embedding_model(model)
    if instruction and template_of(loaded) is None:
        raise UserError(
            f"--instruction: {model} reads none: its prompt has no place for one (it has where it "
            f"was trained with model.instruction_template)"
        )
    documents = {str(i): text for i, text in enumerate(texts)}
    texts_by_id = {"q": query}, documents, {"q": list(documents)}
    return score_candidates(loaded, *texts_by_id, instructions={"q": instruction})["q"]


def model_at(place: Path) -> Path:
    """The model's folder in that of a run, or a folder itself."""
    return place / "model" if (place / "model").is_dir() else place


def check_model(folder: Path) -> None:
    """`UserError` where a folder has no model."""
    if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
        raise UserError(f"{folder}: no config.json and no modules.json; not a model's folder")


def is_cross_encoder(model: Path) -> bool:
    """Whether a folder says so: by sentence-transformers' file or by its architecture."""
    kind = model / "config_sentence_transformers.json"
    if kind.is_file():
        return bool(settings(kind).get("model_type") == "CrossEncoder")
    if (model / "modules.json").is_file():
        return False
    names = settings(model / "config.json").get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    return name.endswith(("ForSequenceClassification", "ForCausalLM"))


def settings(path: Path) -> dict[str, Any]:
    """What a JSON file of a model says; `UserError` where it is no object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object; the model is damaged")
    return content
