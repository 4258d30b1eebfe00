"""The cross-encoder: query and document read together, and what the stages do with one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zelo.artifacts import read_json
from zelo.config import Component, option
from zelo.errors import UserError
from zelo.models.batching import by_length, by_room
from zelo.models.biencoder import DEFAULT_SCALE
from zelo.models.lora import Lora, merge, prepare
from zelo.models.pretrained import PretrainedModel

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer
    from zelo.training.modules import CrossEncoderModule
    from zelo.training.objectives import Objective
    from zelo.training.options import TrainingOptions


class CrossEncoder(Component):
    """`model=reranker`: one score per pair of query and document.

    Heads: `mean` (mean pooling and a linear layer) and `cls` (the usual sequence-classification
    head) for encoders, `answer` (the logit of the answer's token) for decoders, are stock and load
    everywhere. `segments` starts as the bi-encoder that the backbone came from (`segments.py`) and
    ships with its own code. `keep` goes on from a folder that is a cross-encoder already.
    """

    pretrained: PretrainedModel = option(help="encoder, decoder or cross-encoder to start from")
    head: str = option(
        "mean", "what turns tokens into a score", pattern="^(mean|cls|answer|segments|keep)$"
    )
    answers: list[str] = option(
        ["yes", "no"],
        "tokens of the `answer` head: the score is the logit of the first, less the second's",
        min_length=1,
        max_length=2,
    )
    max_length: int = option(256, "longer pairs are cut here, in training and after", ge=8)
    train_max_length: int | None = option(
        None, "cut shorter than that in training, for speed", ge=8
    )
    logit_scale: float | None = option(
        None,
        "factor of the cosine in the `segments` head; null: so that the starting model's "
        "predictions spread as the targets do (6 where the objective fixes their level)",
        gt=0,
    )
    lora: Lora | None = option(None, "adapters in place of full fine-tuning")
    gradient_checkpointing: bool = option(
        False, "make activations anew in the backward pass: less memory, slower", exclude=True
    )
    attention: str | None = option(
        None, "transformers' attn_implementation; null: its choice", exclude=True
    )
    batch_size: int = option(64, "pairs scored at once", ge=1, exclude=True)
    kind: str = option("cross-encoder", "what it is called in reports", exclude=True)

    def module(
        self, objective: Objective, training: TrainingOptions, steps: int
    ) -> CrossEncoderModule:
        """Return the LightningModule that trains it for `steps` steps."""
        from zelo.models.loading import limit
        from zelo.training.modules import CrossEncoderModule

        folder = self.pretrained.locate()
        if self.head == "keep":
            model = load_cross_encoder(folder, self.attention)
        else:
            model = new_cross_encoder(
                folder, self.head, self.logit_scale or DEFAULT_SCALE, self.answers, self.attention
            )
        limit(model, folder, self.train_max_length or self.max_length)
        frame, room = model.preprocess([("", "")])["input_ids"].shape[1], model.max_seq_length
        if 2 * frame > room:
            raise UserError(
                f"model.max_length={room}: {frame} of them are the frame that this model puts "
                f"around query and document; give it more"
            )
        adapted = prepare(model[0].model, self.lora, self.gradient_checkpointing)
        module = CrossEncoderModule(model, objective, training, steps)
        module.remember(adapted)
        return module

    def export(self, module: CrossEncoderModule, folder: Path) -> None:
        """Write a folder that `sentence_transformers.CrossEncoder(folder)` loads.

        Of a sequence classifier the same scores lie in `unpadded/` as separate modules, the shape
        that reads without padding under flash attention.
        """
        from zelo.models.loading import limit

        if module.adapted is not None:
            merge(module.adapted, folder / "adapter", self.pretrained.name)
        limit(module.model, self.pretrained.locate(), self.max_length)
        # Scores leave the shipped model as the objective compared them with targets.
        module.model.activation_fn = module.objective.activation()
        save_cross_encoder(module.model, folder)
        apart = unpadded(module.model, folder)
        if apart is not None:
            apart.activation_fn = module.model.activation_fn
            save_cross_encoder(apart, folder / "unpadded")

    def score(
        self,
        folder: Path | None,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        candidates: Mapping[str, Sequence[str]],
        out: Path,
        trainer: LightningTrainer,
        tokens: int | None = None,
    ) -> dict[str, list[float]]:
        """Scores of each query's candidates by the model in `folder`, on the trainer's devices.

        With None the starting model scores: the cross-encoder or the decoder that training goes on
        from, or the embedding model that the backbone of a new head came from. At most `tokens` are
        read at once, if given.
        """
        from zelo.models.loading import limit

        start = self.pretrained.locate()
        if folder is None and self.head not in ("keep", "answer"):
            from zelo.models.embedding import load_embedding_model, rerank_by_cosine

            model: Any = load_embedding_model(start, self.max_length)
            return rerank_by_cosine(model, queries, documents, candidates, self.batch_size, tokens)
        pairs = [
            (queries[query_id], documents[doc_id])
            for query_id, docs in candidates.items()
            for doc_id in docs
        ]
        if folder is None and self.head == "answer":
            model = new_cross_encoder(start, self.head, answers=self.answers)
            limit(model, start, self.max_length)
            found = predict(model, pairs, self.batch_size, tokens)
        elif trainer.processes > 1:
            from zelo.models.scoring import score_on_devices

            place = out / ("scoring-start" if folder is None else "scoring-trained")
            found = score_on_devices(folder or start, pairs, place, trainer, tokens)
        else:
            found = predict(load_cross_encoder(folder or start), pairs, self.batch_size, tokens)
        scores = iter(found)
        return {query_id: [next(scores) for _ in docs] for query_id, docs in candidates.items()}


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
        quiet_transformers,
        with_padding,
        with_words,
    )
    from zelo.models.segments import SegmentHead

    quiet_transformers()
    identity = torch.nn.Identity()
    options = {"model_kwargs": loading(attention)}
    if head == "answer":
        return new_answering(folder, answers, options)
    if head == "cls":
        with loaded_from(folder):
            one_score(folder, "model.head=mean puts a new head on its encoder", headless=True)
            model = Stock(
                str(folder), num_labels=1, activation_fn=identity, local_files_only=True, **options
            )
            with_words(model.tokenizer)
        with_padding(model.tokenizer, model[0].model)
        return model.float()
    with loaded_from(folder):
        encoder = Transformer(str(folder), transformer_task="feature-extraction", **options)
        with_words(encoder.tokenizer)
    with_padding(encoder.tokenizer, encoder.model)
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


def new_answering(folder: Path, answers: Sequence[str], options: Mapping[str, Any]) -> Any:
    """Build a reranker on a causal language model: the logit of its answer, yes less no.

    A folder that is such a reranker already keeps its own tokens (`1_LogitScore/config.json`) and
    template; any other has `answers` and a template that knows a query and a document.
    """
    import torch
    from sentence_transformers import CrossEncoder as Stock
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    from zelo.models.loading import loaded_from, placed, with_padding, with_words

    own = folder / "1_LogitScore" / "config.json"
    if own.is_file() or is_first_zerank(folder):
        return load_cross_encoder(folder, options["model_kwargs"].get("attn_implementation"))
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
    return Stock(modules=modules, num_labels=1, activation_fn=torch.nn.Identity()).float()


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
        quiet_transformers,
        with_padding,
        with_words,
    )
    from zelo.models.segments import SegmentHead

    quiet_transformers()
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


def predict(
    model: Any, pairs: Sequence[tuple[str, str]], batch_size: int, tokens: int | None = None
) -> list[float]:
    """Scores of pairs in their order, float32, longest texts first so that batches pad little.

    At most `tokens` are read at once, padding included, where that is given.
    """
    from zelo.progress import track

    if tokens is None:
        batches = by_length([-len(query) - len(document) for query, document in pairs], batch_size)
    else:
        batches = by_room(lengths_of_pairs(model, pairs), batch_size, tokens)
    scores = [0.0] * len(pairs)
    for part in track(batches, "scoring pairs"):
        values = model.predict(
            [pairs[i] for i in part], batch_size=batch_size, show_progress_bar=False
        )
        for i, value in zip(part, values.tolist(), strict=True):
            scores[i] = value
    return scores


def lengths_of_pairs(model: Any, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Tokens of each pair as `model` reads it, or a few more."""
    from zelo.models.tokens import lengths_of

    prompt = model.prompts.get(model.default_prompt_name)
    frame = model.preprocess([("", "")], prompt=prompt)["input_ids"].shape[1]
    of = lengths_of(model.tokenizer, [text for pair in pairs for text in pair])
    whole = [frame + of[query] + of[document] for query, document in pairs]
    most = model.max_seq_length
    return whole if most is None else [min(length, most) for length in whole]
