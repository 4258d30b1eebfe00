"""Decoders as cross-encoders: the score of a pair is the logit of an answer's token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zelo.errors import UserError


def new_answering(folder: Path, answers: Sequence[str], options: Mapping[str, Any]) -> Any:
    """Build a reranker on a causal language model: the logit of its answer, yes less no.

    It has the tokens `answers`, and a template that knows a query and a document: the model's own,
    where that does.
    """
    import torch
    from sentence_transformers import CrossEncoder as Stock
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    from zelo.models.loading import (
        loaded_from,
        placed,
        with_padding,
        with_words,
        without_cache,
    )

    tokenizer_config = {"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}}
    with loaded_from(folder):
        decoder = Transformer(
            str(folder), transformer_task="text-generation", **options, **tokenizer_config
        )
        with_words(decoder.tokenizer)
    tokenizer = decoder.tokenizer
    if not knows_pairs(tokenizer):
        name = "chatml" if "<|im_start|>" in tokenizer.get_vocab() else "plain"
        decoder = with_template(decoder, name)
    with_padding(tokenizer, decoder.model)
    without_cache(decoder.model)
    ids = [token_of(tokenizer, answer) for answer in answers]
    score = LogitScore(ids[0], ids[1] if len(ids) > 1 else None)
    modules = [decoder, score]
    return Stock(
        modules=modules, num_labels=1, activation_fn=torch.nn.Identity(), **placed()
    ).float()


def is_first_zerank(folder: Path) -> bool:
    """Whether a folder is a first release of zerank, which scores by code of its own."""
    about = folder / "config.json"
    if (folder / "modules.json").is_file() or not about.is_file():
        return False  # later ones are stock
    config = json.loads(about.read_text(encoding="utf-8"))
    named = json.dumps(config.get("auto_map")) if isinstance(config, dict) else ""
    return "modeling_zeranker" in named or (folder / "modeling_zeranker.py").is_file()


def first_zerank(folder: Path, attention: str | None) -> Any:
    """A first release of zerank as its own code scores, which is not run.

    The query stands in the system turn and the document in the user turn, both without white space
    around them; the score is sigmoid(l / 5), l being the logit of "Yes" as the first token of the
    assistant's turn.
    """
    from sentence_transformers import CrossEncoder as Stock
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    from zelo.models.activations import TemperedSigmoid
    from zelo.models.loading import loading, placed

    decoder = Transformer(
        str(folder), transformer_task="text-generation", model_kwargs=loading(attention)
    )
    score = LogitScore(token_of(decoder.tokenizer, "Yes"))
    return Stock(
        modules=[with_template(decoder, "zerank"), score],
        num_labels=1,
        activation_fn=TemperedSigmoid(5.0),
        **placed(),
    )


def knows_pairs(tokenizer: Any) -> bool:
    """Whether a tokenizer's chat template has a place for a query and a document."""
    template = tokenizer.chat_template
    return isinstance(template, str) and "query" in template and "document" in template


def with_template(decoder: Any, name: str) -> Any:
    """Have a decoder read pairs as messages, by the template `templates/NAME.jinja`."""
    from sentence_transformers.base.modality import InputFormatter

    path = Path(__file__).parent / "templates" / f"{name}.jinja"
    decoder.tokenizer.chat_template = path.read_text(encoding="utf-8")
    found = decoder.infer_modalities(decoder.model, decoder.processor)
    decoder.modality_config, decoder.module_output_name = found
    decoder.modality_config["message"]["format"] = "flat"  # content is a text, not a list of parts
    decoder.input_formatter = InputFormatter(
        model_type=decoder.config.model_type, message_format="flat", processor=decoder.processor
    )
    decoder.input_formatter.supported_modalities = list(decoder.modality_config)
    return decoder


def token_of(tokenizer: Any, answer: str) -> int:
    """Id of the token that `answer` is; `UserError` where it is more than one."""
    ids = tokenizer.encode(answer, add_special_tokens=False)
    if len(ids) != 1:
        raise UserError(f"model.answers: {answer!r} is {len(ids)} tokens of this model, not one")
    return int(ids[0])
