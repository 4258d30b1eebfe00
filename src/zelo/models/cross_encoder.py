"""Cross-encoders as sentence-transformers has them: put together, loaded from folders, written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zelo.artifacts import read_json
from zelo.errors import UserError
from zelo.models.answering import first_zerank, is_first_zerank, knows_pairs, new_answering

DEFAULT_SCALE = 6.0  # factor of a cosine where nothing says another


def new_cross_encoder(
    folder: Path,
    head: str,
    scale: float = DEFAULT_SCALE,
    answers: Sequence[str] = ("yes", "no"),
    attention: str | None = None,
) -> Any:
    """Build a `sentence_transformers.CrossEncoder` on the model in `folder` with a new `head`."""
    import torch
    from sentence_transformers import CrossEncoder as Stock
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from zelo.models.loading import (
        loaded_from,
        loading,
        placed,
        prepare_libraries,
        with_padding,
        with_words,
        without_cache,
    )
    from zelo.models.segments import SegmentHead

    prepare_libraries()
    identity = torch.nn.Identity()
    options = {"model_kwargs": loading(attention)}
    if head == "answer":
        # A folder that is such a reranker already keeps its own tokens and its template.
        if (folder / "1_LogitScore" / "config.json").is_file() or is_first_zerank(folder):
            return load_cross_encoder(folder, attention)
        return new_answering(folder, answers, options)
    if head == "cls":
        with loaded_from(folder):
            one_score(folder, "model.head=mean puts a new head on its encoder", headless=True)
            model = Stock(
                str(folder), num_labels=1, activation_fn=identity, local_files_only=True, **options
            )
            with_words(model.tokenizer)
        with_padding(model.tokenizer, model[0].model)
        without_cache(model[0].model)
        return model.float()
    with loaded_from(folder):
        encoder = Transformer(str(folder), transformer_task="feature-extraction", **options)
        with_words(encoder.tokenizer)
    with_padding(encoder.tokenizer, encoder.model)
    without_cache(encoder.model)
    if head == "segments" and "token_type_ids" not in encoder.tokenizer.model_input_names:
        raise UserError(
            f"model.head=segments: {folder}: its tokenizer does not tell query and document apart "
            f"(no token_type_ids); choose model.head=mean"
        )
    dimension = encoder.get_embedding_dimension()
    encoder.model.config.num_labels = 1  # where the library looks for what an own head gives
    if head == "segments":
        modules = [encoder, SegmentHead(dimension, scale)]
    else:
        last = Dense(dimension, 1, activation_function=identity, module_output_name="scores")
        modules = [encoder, Pooling(dimension, pooling_mode="mean"), last]
    return Stock(modules=modules, num_labels=1, activation_fn=identity, **placed()).float()


def one_score(folder: Path, way_out: str, headless: bool = False) -> None:
    """`UserError` where the model in `folder` does not give a pair one score.

    A classifier of several labels does not, nor does what has no head yet, an encoder or an
    embedding model, unless `headless`: the library would put one on it that knows nothing.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    kind = str((config.architectures or [""])[0])
    if kind.endswith("ForSequenceClassification") and config.num_labels != 1:
        raise UserError(
            f"{folder}: a classifier of {config.num_labels} labels, which gives no score to rank "
            f"by; {way_out}"
        )
    library = folder / "config_sentence_transformers.json"
    said = read_json(library).get("model_type") if library.is_file() else None
    modules = (folder / "modules.json").is_file() and not library.is_file()
    ready = kind.endswith(("ForSequenceClassification", "ForCausalLM"))
    if not (ready or headless or modules or said == "CrossEncoder"):
        raise UserError(
            f"{folder}: {kind or 'this model'} has no head to score pairs by; {way_out}"
        )


def unpadded(model: Any, folder: Path) -> Any:
    """Transformer, pooling and dense layers that score as a sequence classifier in `folder` does.

    None where `model` is none, or of a family whose head is not known: BERT, RoBERTa and XLM-R,
    DeBERTa and ModernBERT are.
    """
    import torch
    from sentence_transformers import CrossEncoder as Stock
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    if model[0].transformer_task != "sequence-classification":
        return None
    whole = model[0].model
    pooling, norm, act = "cls", None, torch.nn.Module()
    match whole.config.model_type:
        case "bert":
            hidden, act, last = whole.bert.pooler.dense, torch.nn.Tanh(), whole.classifier
        case "roberta" | "xlm-roberta" | "camembert":
            hidden, last = whole.classifier.dense, whole.classifier.out_proj
            act = torch.nn.Tanh()
        case "deberta-v2":
            hidden, act, last = whole.pooler.dense, torch.nn.GELU(), whole.classifier
        case "modernbert":
            hidden, act, last = whole.head.dense, torch.nn.GELU(), whole.classifier
            norm, pooling = whole.head.norm, whole.config.classifier_pooling
        case _:
            return None
    encoder = Transformer(
        str(folder),
        transformer_task="feature-extraction",
        model_kwargs={"use_safetensors": True},
        max_seq_length=model.max_seq_length,
    )
    encoder.model.config.num_labels = 1
    width = last.in_features

    def dense(linear: Any, activation: Any, **names: str) -> Any:
        made = Dense(
            width, linear.out_features, linear.bias is not None,
            activation_function=activation, **names,
        )  # fmt: skip
        made.linear.load_state_dict(linear.state_dict())
        return made

    modules = [encoder, Pooling(width, pooling_mode=pooling), dense(hidden, act)]
    if norm is not None:
        layer = LayerNorm(width)
        layer.norm.eps = norm.eps
        layer.norm.load_state_dict({"bias": torch.zeros(width), **norm.state_dict()})
        modules.append(layer)
    modules.append(dense(last, torch.nn.Identity(), module_output_name="scores"))
    told = {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name}
    return Stock(modules=modules, num_labels=1, activation_fn=torch.nn.Identity(), **told).float()


def save_cross_encoder(model: Any, folder: Path) -> None:
    """Write `model` as a folder; a `segments` head takes its code along.

    The activation stands in both places where releases of sentence-transformers look for it: those
    before 5.4 read `config.json` alone, and would put a sigmoid where they find none.
    """
    import sentence_transformers

    from zelo.models import segments

    model.save_pretrained(str(folder), create_model_card=False)
    about = folder / "config.json"
    config = json.loads(about.read_text(encoding="utf-8"))
    kind = type(model.activation_fn)
    config["sentence_transformers"] = {
        "activation_fn": f"{kind.__module__}.{kind.__qualname__}",
        "version": sentence_transformers.__version__,
    }
    about.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    record = folder / "modules.json"
    modules = json.loads(record.read_text(encoding="utf-8"))
    for module in modules:
        if module["type"] == f"{segments.__name__}.{segments.SegmentHead.__name__}":
            shutil.copy(str(segments.__file__), folder / "segments.py")
            module["type"] = "segments.SegmentHead"
    record.write_text(json.dumps(modules, indent=2), encoding="utf-8")


def load_cross_encoder(
    folder: Path, attention: str | None = None, max_length: int | None = None
) -> Any:
    """Load a folder that gives pairs scores, written by `save_cross_encoder` or released by others;
    pairs longer than `max_length` are cut.

    The code of a head is the installed one; none that lies in a folder is run. Raises `UserError`
    where there is no such model, none that gives one score, or a causal language model that does
    not say how it scores: the library would read it as it reads none.
    """
    from sentence_transformers import CrossEncoder as Stock
    from sentence_transformers.cross_encoder.modules import LogitScore

    from zelo.models.loading import (
        limit,
        loaded_from,
        loading,
        prepare_libraries,
        with_padding,
        with_words,
        without_cache,
    )
    from zelo.models.segments import SegmentHead

    prepare_libraries()
    with_own_head = (folder / "segments.py").is_file()

    class Loader(Stock):  # type: ignore[misc]
        _module_classes = {"segments.SegmentHead": SegmentHead}  # noqa: RUF012

    stock = Loader if with_own_head else Stock
    with loaded_from(folder):
        known_activation(folder)
        if is_first_zerank(folder):
            model = first_zerank(folder, attention)
        else:
            one_score(folder, "train one from it: `zelo run model=reranker`, model.head=mean")
            model = stock(str(folder), local_files_only=True, model_kwargs=loading(attention))
            with_words(getattr(model, "tokenizer", None))
            guessed = isinstance(model[-1], LogitScore) and not (folder / "modules.json").is_file()
            if guessed and not knows_pairs(model.tokenizer):
                raise ValueError(
                    "a causal language model without modules.json, whose template has no place for "
                    "a query and a document: nothing says how it scores"
                )
    with_padding(model.tokenizer, model[0].model)
    without_cache(model[0].model)
    limit(model, folder, max_length)
    return model.float()


def known_activation(folder: Path) -> None:
    """`ValueError` where a folder names something else than a layer of torch as its activation:
    sentence-transformers would call whatever function of torch it is."""
    for path in sorted(folder.glob("config*.json")):
        named = activations(json.loads(path.read_text(encoding="utf-8")))
        strange = [
            name for name in named if not re.fullmatch(r"torch\.nn\.(?:\w+\.)*[A-Z]\w*", name)
        ]
        if strange:
            raise ValueError(f"{path.name}: {strange[0]} is no activation of torch.nn")


def activations(content: Any) -> list[str]:
    """Every name that a JSON document gives as an activation function of torch."""
    if isinstance(content, dict):
        here = [
            v for k, v in content.items() if k.endswith(("activation_fn", "activation_function"))
        ]
        return [v for v in here if isinstance(v, str) and v.startswith("torch")] + [
            name for value in content.values() for name in activations(value)
        ]
    if isinstance(content, list):
        return [name for value in content for name in activations(value)]
    return []
