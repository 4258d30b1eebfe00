"""How a model is told an instruction: what makes a document relevant, beside the query.

What sentence-transformers calls a prompt is what is put before a query or, of a decoder that reads
messages, said by the system. An instruction goes into it where the model has a place for one:

    recorded    `prompts["instruction"]` in the model's folder, a text with `{instruction}`, and
                perhaps `{query}`: what it was trained with (`model.instruction_template`)
    prompt      the text between `Instruct:` (`<instruct>`, `task:`) and `Query:` of an embedding
                model's prompt of queries, as Qwen3-Embedding, e5-mistral, EmbeddingGemma have it
    message     the system's message, where the chat template shows one (Qwen3-Reranker)
    turn        zerank's way, whose query is the system's message: both stand there, in tags

Other models read none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from zelo.progress import tell

INSTRUCTION, QUERY = "{instruction}", "{query}"
RECORDED = "instruction"  # name of the prompt that is a template
DEFAULT = "query"  # name of the prompt that is read where no other is asked for
PLACE = re.compile(
    r"((?:instruct(?:ion)?:|<instruct>|task:) ?)(.*?)(\s*(?:\n|\|) ?<?query\b.*)",
    re.IGNORECASE | re.DOTALL,
)
ZERANK = f"<query>{QUERY}</query>\n<instructions>{INSTRUCTION}</instructions>"
NONE: Mapping[str, str] = MappingProxyType({})  # of no query
SAMPLE = "Sample"
NO_PLACE = (
    "! the model reads no instructions, since its prompt has no place for one: judges alone are "
    "told (model.instruction_template teaches it to read them)"
)


class Told(NamedTuple):
    """A query as a model reads it, and what it is told before (None: nothing)."""

    text: str
    prompt: str | None


def template_of(model: Any) -> str | None:
    """What a sentence-transformers `model` is told under an instruction; None: it reads none.

    A text with `{instruction}`: its prompt or, if there is `{query}` in it, what stands for the
    query.
    """
    if any(getattr(module, "include_prompt", True) is False for module in model):
        return None  # its prompt is left out of what it pools, and has one length for all texts
    recorded = (model.prompts or {}).get(RECORDED) or ""
    if INSTRUCTION in recorded:
        return recorded.removesuffix(QUERY)
    place = PLACE.fullmatch(base_prompt(model) or "")
    if place is not None:
        return f"{place[1]}{INSTRUCTION}{place[3]}"
    if not asks_pairs(model) or "message" not in model[0].modality_config:
        return None
    if re.search(rf"system\W*\n\s*{SAMPLE}", shown(model, None)):
        return ZERANK
    return INSTRUCTION if shown(model, "Prompt") != shown(model, None) else None


def shown(model: Any, prompt: str | None) -> str:
    """What a decoder reads of a pair."""
    ids = model.preprocess([(SAMPLE, "text")], prompt=prompt)["input_ids"][0]
    text: str = model.tokenizer.decode(ids)
    return text


def base_prompt(model: Any) -> str | None:
    """What a model is told before a query that has no instruction."""
    prompts: Mapping[str, str] = model.prompts or {}
    return prompts.get(model.default_prompt_name if asks_pairs(model) else DEFAULT)


def asks_pairs(model: Any) -> bool:
    """Whether a model reads query and document together."""
    from sentence_transformers import CrossEncoder

    return isinstance(model, CrossEncoder)


def told(model: Any, query: str, instruction: str, template: str | None) -> Told:
    """How `model` reads a query under an instruction ("": none) by the `template_of` it."""
    if not instruction or template is None:
        return Told(query, base_prompt(model))
    # Neither text is looked through for the other's place.
    parts = re.split(r"(\{instruction\}|\{query\})", template)
    text = "".join({INSTRUCTION: instruction, QUERY: query}.get(part, part) for part in parts)
    return Told(text, None) if QUERY in parts else Told(query, text)


def told_all(
    model: Any, queries: Mapping[str, str], instructions: Mapping[str, str]
) -> dict[str, Told] | None:
    """Every query as `model` reads it, by its id; None where it reads all of them as it does
    without instructions, which is said if there are some."""
    if not any(instructions.get(query_id) for query_id in queries):
        return None
    template = template_of(model)
    if template is None:
        tell(NO_PLACE)
        return None
    return {i: told(model, text, instructions.get(i, ""), template) for i, text in queries.items()}


def as_read(
    model: Any, queries: Mapping[str, str], instructions: Mapping[str, str]
) -> dict[str, Told]:
    """The same, of queries without instructions too."""
    told = told_all(model, queries, instructions)
    if told is not None:
        return told
    base = base_prompt(model)
    return {query_id: Told(text, base) for query_id, text in queries.items()}


@contextmanager
def without_prompt(model: Any) -> Iterator[None]:
    """Have an embedding model put nothing before queries, which bring their prompts."""
    before = model.prompts
    model.prompts = {**before, DEFAULT: ""}
    try:
        yield
    finally:
        model.prompts = before


def ship_with(model: Any, instruction: str) -> None:
    """Have `model` read every query under an instruction wherever it is loaded, if a prompt is all
    that takes."""
    template = template_of(model)
    if template is None or QUERY in template:
        return
    model.prompts = {**model.prompts, DEFAULT: told(model, "", instruction, template).prompt}
    model.default_prompt_name = DEFAULT if asks_pairs(model) else model.default_prompt_name
