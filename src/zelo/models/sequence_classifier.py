"""A reranker as the sequence classifier that inference servers load, its scores proven the same.

Of a decoder that answers, the rows of its answers' tokens become the row of a classifier with one
logit (yes less no), and what it reads of a pair becomes a template of scores, as vLLM fills one
(`vllm serve FOLDER --chat-template FOLDER/score_template.jinja`): without it a server puts query
and document one behind the other, which the model never read, and scores look random. Encoders with
a classifier's head are such models already.

What was written is loaded by transformers alone, as servers do it, and scores pairs that tend to go
wrong; where a score is not that of the model, nothing is written.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zelo.artifacts import read_json, write_json, write_text
from zelo.errors import UserError
from zelo.models.exporting import (
    LONG,
    PAIRS,
    ScoreDifferences,
    new_folder,
    score_differences,
    written_whole,
)

TEMPLATE = "score_template.jinja"
TOLERANCE = 1e-3  # of the spread of the model's logits


class Classifier(NamedTuple):
    """What is written."""

    model: Any  # of transformers, with one logit
    tokenizer: Any
    template: str | None  # of a pair; None: the tokenizer knows pairs
    activation: str  # layer of torch after the logit


def export_classifier(folder: Path, out: Path) -> ScoreDifferences:
    """Write the reranker in `folder` as a sequence classifier into the new folder `out`.

    Raises `UserError` where it is none that servers know, where `out` has files, or where a score
    is not the model's.
    """
    from zelo.models.cross_encoder import load_cross_encoder
    from zelo.models.rerank_file import is_cross_encoder

    if not is_cross_encoder(folder):
        raise UserError(
            f"{folder}: no reranker; vLLM, text-embeddings-inference and Infinity serve an "
            f"embedding model's folder as it is"
        )
    new_folder(out)
    model = load_cross_encoder(folder)
    classifier = classifier_of(model, folder)
    with written_whole(out) as written:
        write(classifier, written)
        found = parity(model, classifier, written)
        if not found.within(TOLERANCE):
            raise UserError(
                f"{folder}: as a sequence classifier its scores differ by up to "
                f"{found.largest:.3g} where they spread by {found.spread:.3g}; nothing is "
                f"written"
            )
        write_text(written / "README.md", card(folder, out, classifier, model, found))
    return found


def classifier_of(model: Any, folder: Path) -> Classifier:
    """The classifier that scores as a loaded cross-encoder does; `UserError` where there is none
    that servers know."""
    from sentence_transformers.cross_encoder.modules import LogitScore

    from zelo.models.instructions import base_prompt

    activation, factor = activation_of(model, folder)
    if model[0].transformer_task == "sequence-classification":
        if base_prompt(model):
            raise UserError(
                f"{folder}: it reads {base_prompt(model)!r} before each pair, which no server puts "
                f"there"
            )
        return Classifier(model[0].model, model.tokenizer, None, activation)
    if not isinstance(model[-1], LogitScore):
        raise UserError(
            f"{folder}: it has a head of its own, which servers do not load; train it with "
            f"model.head=cls, or a decoder with model.head=answer"
        )
    decoder = model[0].model
    made = folded(decoder, model[-1], factor, folder)
    made.config.pad_token_id = model.tokenizer.pad_token_id
    return Classifier(made, without_additions(model.tokenizer), score_template(model), activation)


def activation_of(model: Any, folder: Path) -> tuple[str, float]:
    """The layer of torch after a model's logit, and the factor of the logit before it."""
    from torch.nn import Sigmoid

    from zelo.models.activations import TemperedSigmoid

    function: Any = model.activation_fn
    factor = 1.0
    if isinstance(function, TemperedSigmoid):
        factor = 1 / float(function.temperature)
        function = Sigmoid()
    kind = type(function)
    if not kind.__module__.startswith("torch.nn.modules.") or function.extra_repr():
        raise UserError(
            f"{folder}: {kind.__qualname__} after its logit is no layer of torch that its name "
            f"tells"
        )
    return f"{kind.__module__}.{kind.__qualname__}", factor


def folded(decoder: Any, score: Any, factor: float, folder: Path) -> Any:
    """A decoder with a classifier's row in place of its output: that of the answer's token, less
    that of the other one's, times `factor`."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(decoder.config)
    config.num_labels = 1
    saved = read_json(folder / "config.json")
    precision = str(saved.get("dtype") or saved.get("torch_dtype") or "float32")
    try:
        made: Any = AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        made = None
    if not isinstance(getattr(made, "score", None), torch.nn.Linear):
        raise UserError(
            f"{folder}: transformers has no classifier with one row on a {config.model_type}"
        )
    output = decoder.get_output_embeddings()
    if output.bias is not None:
        raise UserError(f"{folder}: its output has a bias, which a classifier's row has not")
    row = output.weight[score.true_token_id].float()
    if score.false_token_id is not None:
        row = row - output.weight[score.false_token_id].float()
    made.base_model.load_state_dict(decoder.base_model.state_dict())
    made.base_model.to(getattr(torch, precision))  # as it was saved
    made.score.float()  # a difference of two rows has more digits than these
    with torch.no_grad():
        made.score.weight.copy_(factor * row[None])
    return made.eval()


def score_template(model: Any) -> str:
    """A template of messages `query` and `document` that gives what a decoder reads of a pair.

    Servers hand these two over and nothing else, so that the prompt and what else the model's own
    template is told stand in it.
    """
    from zelo.models.instructions import base_prompt

    told = dict(model[0].processing_kwargs.get("chat_template", {}))
    lines = [f"{{%- set {name} = {in_jinja(value)} -%}}\n" for name, value in told.items()]
    if prompt := base_prompt(model):
        said = in_jinja({"role": "system", "content": prompt})
        lines.append(f"{{%- set messages = [{said}] + messages -%}}\n")
    own: str = model.tokenizer.chat_template
    return "".join([*lines, own])


def in_jinja(value: Any) -> str:
    """A value as a template writes it; JSON's words for it but null are Jinja's too."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def without_additions(tokenizer: Any) -> Any:
    """A copy of a tokenizer that puts nothing around a text: servers have it read what a template
    gave, in which all of that stands."""
    plain = copy.deepcopy(tokenizer)
    for name in ("add_bos_token", "add_eos_token"):
        if getattr(plain, name, None):
            setattr(plain, name, False)
    if getattr(plain, "backend_tokenizer", None) is not None:
        plain.backend_tokenizer.post_processor = None
    return plain


def write(classifier: Classifier, folder: Path) -> None:
    """Write weights, tokenizer, template, and the activation where servers look for it."""
    import sentence_transformers

    classifier.model.save_pretrained(folder)
    classifier.tokenizer.save_pretrained(folder)
    if classifier.template is not None:
        write_text(folder / TEMPLATE, classifier.template)
    about = read_json(folder / "config.json")
    about.pop("auto_map", None)  # code that is not there
    theta = (about.get("rope_parameters") or {}).get("rope_theta")
    if theta is not None:  # where releases of transformers before 5 look for it
        about["rope_theta"] = theta
    about["sentence_transformers"] = {
        "activation_fn": classifier.activation,
        "version": sentence_transformers.__version__,
    }
    write_json(folder / "config.json", about)


def parity(model: Any, classifier: Classifier, written: Path) -> ScoreDifferences:
    """Compare a cross-encoder's logits with those of what was `written`, loaded by transformers
    alone: of `PAIRS`, and of one that is longer than the model reads. Longer ones are given as the
    model cuts them, since servers refuse them."""
    import torch
    from transformers import AutoTokenizer

    from zelo.distributed.trainer import LightningTrainer
    from zelo.models.instructions import base_prompt
    from zelo.models.scoring import score_pairs

    reads = model.max_seq_length
    pairs = [*PAIRS, *([("one that is cut", LONG * reads)] if reads else [])]
    if classifier.template is None:  # of an empty document servers leave out a separator
        pairs = [pair for pair in pairs if pair[1]]
    kind = model.device.type
    exactly = LightningTrainer(
        accelerator=kind if kind in ("cuda", "mps") else "cpu", precision="32-true"
    )
    _, factor = activation_of(model, written)
    own, model.activation_fn = model.activation_fn, torch.nn.Identity()
    try:
        expected = factor * np.array(score_pairs(model, pairs, exactly))
    finally:
        model.activation_fn = own
    tokenizer = AutoTokenizer.from_pretrained(str(written), local_files_only=True)
    ids = [as_served(tokenizer, classifier.template, *pair) for pair in pairs]
    for number, pair in enumerate(pairs):
        if reads and ids[number]["input_ids"].shape[1] > reads:
            ids[number] = model.preprocess([pair], prompt=base_prompt(model))
    found = logits(written, ids, str(model.device))
    return score_differences(expected, found)


def as_served(tokenizer: Any, template: str | None, query: str, document: str) -> Any:
    """A pair as a server reads it: by the template of scores, or by the tokenizer."""
    if template is None:
        return tokenizer(query, document, return_tensors="pt", verbose=False)
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    return tokenizer(text, return_tensors="pt", verbose=False)


def logits(written: Path, inputs: Sequence[Any], device: str) -> Any:
    """The one logit of each pair, read by itself in 32 bits."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model: Any = AutoModelForSequenceClassification.from_pretrained(
        str(written), local_files_only=True, dtype=torch.float32
    )
    model.to(device).eval()
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.inference_mode():
        return np.array(
            [
                float(model(**{n: each[n].to(device) for n in names if n in each}).logits[0, 0])
                for each in inputs
            ]
        )


def card(
    folder: Path, out: Path, classifier: Classifier, model: Any, found: ScoreDifferences
) -> str:
    """What the folder is, how it is served, and how its scores were proven."""
    template = f" --chat-template {out.name}/{TEMPLATE}" if classifier.template else ""
    reads = model.max_seq_length
    length = f" --max-model-len {reads}" if reads else ""
    saved = str(classifier.model.base_model.dtype).removeprefix("torch.")
    cut = (
        f"It reads {reads:,} tokens. The model cuts the document of a longer pair; vLLM refuses "
        f"the pair, and where it is told to cut (`truncate_prompt_tokens`) cuts what the model "
        f"must see: cut documents before you send them.\n\n"
        if reads
        else ""
    )
    without = (
        "Without the template query and document stand one behind the other, which the model never "
        "read: scores would look random. A server that fills no template must be sent the filled "
        "one.\n\n"
        if classifier.template
        else ""
    )
    return (
        f"# {folder.resolve().name}, for inference servers\n\n"
        f"```console\n$ vllm serve {out.name} --runner pooling --dtype {saved}"
        f"{template}{length}\n```\n\n"
        f"vLLM must be one of 2026: those before December 2025 fill no templates of scores. Left "
        f"to itself it reads weights of 32 bits in 16, with other scores: name the dtype.\n\n"
        f"{without}{cut}"
        f"The logits of {found.number} pairs (long, empty, cut and non-Latin ones among them), by "
        f"transformers' {type(classifier.model).__name__} in 32 bits, are those of the model: they "
        f"differ by {found.largest:.1e} at most where they spread by {found.spread:.2g}. The "
        f"score is {classifier.activation.rpartition('.')[2]} of the logit.\n"
    )
