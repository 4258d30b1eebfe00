"""Every family of backbones, small and with random weights: trained, exported, loaded by others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.shapes import make
from sentence_transformers import CrossEncoder as Stock
from sentence_transformers import SentenceTransformer
from tests.models.test_export import CANDIDATES, DOCUMENTS, PAIRS, QUERIES, moved, predictions
from tests.training.collection import data_module, fit, rated
from torch import nn

from zelo.artifacts import read_table
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.models.embedding import embed, load_embedding_model
from zelo.models.layers import layers
from zelo.models.lora import Lora
from zelo.models.pairwise import PairwiseCrossEncoder
from zelo.models.pretrained import PretrainedModel
from zelo.models.tokens import Chunking, TokenFile, tokenize
from zelo.training import frozen_layers
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.objectives import MSE, CentredMSE
from zelo.training.optimization import AdamW
from zelo.training.options import TrainingOptions

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SIZES),
    "xlm-roberta": ("XLMRoberta", {**SIZES, "max_position_embeddings": 514, "type_vocab_size": 2}),
    "deberta-v2": ("DebertaV2", {**SIZES, "type_vocab_size": 2, "relative_attention": True,
                                 "pos_att_type": ["p2c", "c2p"]}),
    "modernbert": ("ModernBert", {**SIZES, "global_attn_every_n_layers": 2, "cls_token_id": 101,
                                  "sep_token_id": 102, "bos_token_id": 101, "eos_token_id": 102}),
}  # fmt: skip


@pytest.fixture(scope="module")
def backbones(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per family; the tokenizer is BERT's, decoders have their own."""
    import transformers

    root = tmp_path_factory.mktemp("backbones")
    words = transformers.AutoTokenizer.from_pretrained(tiny_model)
    found = {}
    for name, (family, sizes) in ENCODERS.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**{"vocab_size": len(words), **sizes})
        getattr(transformers, f"{family}Model")(config).save_pretrained(root / name)
        words.save_pretrained(root / name)
        found[name] = root / name
    return found | {name: make(f"{name}-toy", root / name) for name in ("qwen3", "llama")}


def cross_encoder(folder: Path, head: str, **options: Any) -> CrossEncoder:
    size = {"max_length": 64} if head != "answer" else {"max_length": 400}
    weights = PretrainedModel(name=str(folder))
    return CrossEncoder(**{"pretrained": weights, "head": head, **size, **options})


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_no_decoder_keeps_what_it_has_read(
    backbones: dict[str, Path], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Each compiled layer would ask for its own keys and values, and be compiled alone."""

    def kept(*_: Any, **__: Any) -> None:
        raise AssertionError("keys and values are kept")

    monkeypatch.setattr("transformers.cache_utils.DynamicCache.update", kept)
    folder = backbones[family]
    cross_encoder(folder, "answer").network().predict(PAIRS)
    cross_encoder(folder, "mean").network().predict(PAIRS)
    load_embedding_model(folder, 32, "lasttoken").encode("some words")
    PairwiseCrossEncoder(folder, 8, 32).preference([("query", "one text", "another")])


@pytest.mark.parametrize("family", ENCODERS)
def test_a_sequence_classifier_ships_in_both_shapes(
    backbones: dict[str, Path], tmp_path: Path, family: str
) -> None:
    """As AutoModelForSequenceClassification reads it, and as modules that need no padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = cross_encoder(backbones[family], "cls")
    module = moved(model.module(MSE(), TrainingOptions()))
    expected = 1 / (1 + np.exp(-predictions(module, tmp_path)))
    module.save_pretrained(tmp_path / "model")
    for folder in (tmp_path / "model", tmp_path / "model" / "unpadded"):
        stock = Stock(str(folder))
        assert isinstance(stock.activation_fn, torch.nn.Sigmoid)
        np.testing.assert_allclose(stock.predict(PAIRS).reshape(3, -1), expected, atol=1e-5)
        about = json.loads((folder / "config.json").read_text())
        assert about["sentence_transformers"]["activation_fn"].endswith("Sigmoid")
        assert about.get("num_labels", len(about.get("id2label", {"0": ""}))) == 1
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    words = AutoTokenizer.from_pretrained(tmp_path / "model")
    inputs = words(
        [q for q, _ in PAIRS], [d for _, d in PAIRS],
        padding=True, truncation=True, max_length=64, return_tensors="pt",
    )  # fmt: skip
    with torch.inference_mode():
        scores = plain(**inputs).logits.squeeze(1).sigmoid()
    np.testing.assert_allclose(scores.reshape(3, -1), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("answers", [["yes", "no"], ["Yes"]])
def test_a_decoder_answers_and_ships_its_tokens(
    backbones: dict[str, Path], tmp_path: Path, family: str, answers: list[str]
) -> None:
    model = cross_encoder(backbones[family], "answer", answers=answers)
    module = moved(model.module(CentredMSE(), TrainingOptions()))
    expected = predictions(module, tmp_path)
    assert expected.std() > 1e-3
    module.save_pretrained(tmp_path / "model")
    stock = Stock(str(tmp_path / "model"))
    assert isinstance(stock.activation_fn, torch.nn.Identity)
    np.testing.assert_allclose(stock.predict(PAIRS).reshape(3, -1), expected, atol=1e-5)
    tokens = json.loads((tmp_path / "model" / "1_LogitScore" / "config.json").read_text())
    ids = [tokens["true_token_id"], tokens["false_token_id"]]
    assert stock.tokenizer.convert_ids_to_tokens(ids[0]) == answers[0]
    assert (ids[1] is None) == (len(answers) == 1)
    # Training that goes on from the folder keeps its tokens, whatever the configuration says.
    again = cross_encoder(tmp_path / "model", "answer", answers=["no", "yes"])
    resumed = again.module(CentredMSE(), TrainingOptions()).eval()
    np.testing.assert_allclose(predictions(resumed, tmp_path / "again"), expected, atol=1e-5)
    text = stock.tokenizer.decode(stock.preprocess([("a query", "a document")])["input_ids"][0])
    assert "a query" in text
    assert "a document" in text


def test_a_frame_that_leaves_no_room_is_refused(backbones: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"model\.max_length=64: \d+ of them are the frame"):
        cross_encoder(backbones["qwen3"], "answer", max_length=64).module(MSE(), TrainingOptions())
    with pytest.raises(UserError, match=r"model\.answers: 'perhaps not' is \d+ tokens"):
        cross_encoder(backbones["qwen3"], "answer", answers=["perhaps not"]).module(
            MSE(), TrainingOptions()
        )


@pytest.mark.parametrize(
    ("family", "head"), [("bert", "mean"), ("modernbert", "cls"), ("qwen3", "answer")]
)
def test_adapters_learn_alone_and_ship_merged(
    backbones: dict[str, Path], tmp_path: Path, family: str, head: str
) -> None:
    weights = PretrainedModel(name="owner/base", path=str(backbones[family]))
    model = cross_encoder(backbones[family], head, lora=Lora(rank=4), pretrained=weights)
    module = model.module(MSE(), TrainingOptions())
    learns = {name for name, p in module.named_parameters() if p.requires_grad}
    frozen = {name: p.detach().clone() for name, p in module.named_parameters()
              if not p.requires_grad}  # fmt: skip
    assert any("lora_A" in name for name in learns)
    heads = {name for name in learns if "lora" not in name}
    assert bool(heads) == (head != "answer")
    assert not any("embed" in name or "layers.0." in name for name in heads)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    expected = 1 / (1 + np.exp(-predictions(module.eval(), tmp_path)))
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"].keys() == learns
    for name, value in module.named_parameters():
        if name in frozen:
            assert torch.equal(value, frozen[name])
    module.save_pretrained(tmp_path / "model")
    np.testing.assert_allclose(
        Stock(str(tmp_path / "model")).predict(PAIRS).reshape(3, -1), expected, atol=1e-5
    )
    assert (tmp_path / "model" / "adapter" / "adapter_model.safetensors").is_file()
    about = json.loads((tmp_path / "model" / "adapter" / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == "owner/base"  # not where this machine has it
    assert about["target_modules"] == sorted(about["target_modules"])
    assert not list((tmp_path / "model").rglob("*.bin"))


@pytest.mark.parametrize("family", [*ENCODERS, "qwen3", "llama"])
def test_frozen_layers_read_a_text_once(
    backbones: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """And what is learned is the same as where they read it every time."""
    training = TrainingOptions(frozen_layers=1, optimizer=AdamW(lr=1e-3))
    losses, read = [], []
    for largest in (0, frozen_layers.LARGEST):
        monkeypatch.setattr(frozen_layers, "LARGEST", largest)
        out = tmp_path / str(largest)
        out.mkdir()
        model = BiEncoder(pretrained=PretrainedModel(name=str(backbones[family])), logit_scale=5.0)
        module = model.module(CentredMSE(), training)
        linear = next(m for m in layers(module.backbone)[0].modules() if isinstance(m, nn.Linear))
        rows: list[int] = []
        linear.register_forward_hook(lambda _, inputs, __, rows=rows: rows.append(len(inputs[0])))
        fit(module, data_module(module, out, rated(), 3), out, 9, training)
        losses.append(read_table(out, "losses")["loss"].to_numpy())
        read.append(sum(rows))
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)
    assert losses[0].min() > 1e-3
    # Of 9 queries and 5 documents; besides, one chunk is read once more, with and without them.
    assert 14 < read[1] < 14 + 6
    assert read[0] > 3 * read[1]


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_an_embedding_model_of_a_bare_backbone(
    backbones: dict[str, Path], tmp_path: Path, family: str
) -> None:
    """Pooling and prompts go into the folder; the cut embeddings are trained too."""
    pooling = {"bert": "cls", "qwen3": "lasttoken"}[family]
    model = BiEncoder(
        pretrained=PretrainedModel(name=str(backbones[family])), pooling=pooling, max_length=64,
        logit_scale=5.0,
        prompts={"query": "Find: ", "document": ""}, dimensions=[16, 8], lora=Lora(rank=2),
    )  # fmt: skip
    module = moved(model.module(CentredMSE(), TrainingOptions()))
    expected = predictions(module, tmp_path)
    module.save_pretrained(tmp_path / "model")
    stock = SentenceTransformer(str(tmp_path / "model"))
    assert stock.prompts["query"] == "Find: "
    q = stock.encode_query(list(QUERIES.values()))
    d = stock.encode_document(list(DOCUMENTS.values()))
    np.testing.assert_allclose(5 * stock.similarity(q, d), expected, atol=1e-4)
    ours = model.score(
        tmp_path / "model", QUERIES, DOCUMENTS, CANDIDATES, tmp_path, LightningTrainer()
    )
    np.testing.assert_allclose([ours[i] for i in QUERIES], expected / 5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "qwen3", "llama"])
def test_an_empty_document_is_a_text_too(
    backbones: dict[str, Path], tmp_path: Path, family: str
) -> None:
    """A decoder reads no token of it, and no transformer reads nothing: it has the
    embedding that the library gives it beside others, 0."""
    weights = PretrainedModel(name=str(backbones[family]))
    model = BiEncoder(pretrained=weights, pooling="lasttoken", max_length=64)
    embedder: Any = load_embedding_model(backbones[family], 64, "lasttoken")
    texts = ["", "a longer text about apples and pears", " \n"]
    together = embed(embedder, texts, 8, "document", "texts")
    stock = torch.from_numpy(embedder.encode_document(texts, normalize_embeddings=True))
    torch.testing.assert_close(together, stock, atol=1e-5, rtol=0)
    alone = torch.cat([embed(embedder, [text], 8, "document", "texts") for text in texts])
    empty = float(family == "bert")  # which frames every text by tokens of its own
    torch.testing.assert_close(together.norm(dim=1), torch.tensor([empty, 1.0, together[2].norm()]))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    # What is trained reads it as what is evaluated does.
    tokenize(embedder, texts, None, tmp_path / "texts.arrow", "texts")
    file = TokenFile(tmp_path / "texts.arrow")
    for budget in (1000, 1):  # beside others, and in a chunk of its own
        rows = file.chunks(range(3), Chunking(budget))
        trained = rows.apply(lambda chunk: embedder(chunk)["sentence_embedding"]).detach()
        trained = torch.nn.functional.normalize(trained, dim=1)
        torch.testing.assert_close(trained, together, atol=1e-5, rtol=0)
    module = model.module(CentredMSE(), TrainingOptions())
    module.save_pretrained(tmp_path / "model")
    again: Any = load_embedding_model(tmp_path / "model")
    assert not embed(again, texts, 8, "document", "texts").isnan().any()


def test_cut_embeddings_are_trained_too(backbones: dict[str, Path], tmp_path: Path) -> None:
    from tests.training.collection import data_module, rated

    model = BiEncoder(
        pretrained=PretrainedModel(name=str(backbones["bert"])), dimensions=[16, 8], logit_scale=5.0
    )
    module = model.module(CentredMSE(), TrainingOptions())
    batch = next(iter(data_module(module, tmp_path, rated(4), 4).train_dataloader()))
    whole, half, quarter = (scores for scores, _ in module.predict(batch))
    q = batch.inputs["queries"].apply(module.embed)
    d = batch.inputs["documents"].apply(module.embed)
    for scores, n in ((whole, 32), (half, 16), (quarter, 8)):
        cosine = torch.cosine_similarity(q[:, None, :n], d[None, :, :n], dim=2)
        torch.testing.assert_close(scores, 5 * cosine.gather(1, batch.document_index))


def test_training_goes_on_from_any_cross_encoder(
    backbones: dict[str, Path], tmp_path: Path
) -> None:
    """A model that sentence-transformers saved is scored as it does, and exported again."""
    first = Stock(str(backbones["modernbert"]), num_labels=1, max_length=64)
    first.save_pretrained(str(tmp_path / "first"))
    model = cross_encoder(tmp_path / "first", "keep")
    module = model.module(MSE(), TrainingOptions()).eval()
    expected = first.predict(PAIRS).reshape(3, -1)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-predictions(module, tmp_path / "tokens"))), expected, atol=1e-5
    )
    starting = model.score(None, QUERIES, DOCUMENTS, CANDIDATES, tmp_path, LightningTrainer())
    np.testing.assert_allclose([starting[i] for i in QUERIES], expected, atol=1e-5)
    module.save_pretrained(tmp_path / "again")
    again = Stock(str(tmp_path / "again")).predict(PAIRS).reshape(3, -1)
    np.testing.assert_allclose(again, expected, atol=1e-5)


def test_activations_made_anew_give_the_same_gradients(
    backbones: dict[str, Path], tmp_path: Path
) -> None:
    from tests.training.collection import data_module, rated

    gradients = []
    for again in (False, True):
        model = cross_encoder(
            backbones["qwen3"], "answer", gradient_checkpointing=again, lora=Lora(rank=2)
        )
        torch.manual_seed(0)
        module = model.module(MSE(), TrainingOptions())
        module.on_train_start()
        recomputed = [m for m in module.modules() if getattr(m, "gradient_checkpointing", False)]
        assert bool(recomputed) == again
        batch = next(
            iter(
                data_module(
                    module, tmp_path, rated(4), 4, max_tokens_per_forward=900
                ).train_dataloader()
            )
        )
        module.objective.total(module(batch), batch, None).sum().backward()
        gradients.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value)


def test_a_pairwise_reranker_on_a_decoder(backbones: dict[str, Path], tmp_path: Path) -> None:
    model = moved(PairwiseCrossEncoder(backbones["qwen3"], 16, 96))
    docs = list(DOCUMENTS.values())
    triples = [(q, a, b) for q in QUERIES.values() for a in docs for b in docs]
    p = model.preference(triples)
    torch.testing.assert_close(
        p, 1 - model.preference([(q, b, a) for q, a, b in triples]), atol=1e-6, rtol=0
    )
    alone = torch.cat([model.preference([triple]) for triple in triples[:5]])
    torch.testing.assert_close(alone, p[:5], atol=1e-5, rtol=0)
    model.save(tmp_path / "pair")
    torch.testing.assert_close(PairwiseCrossEncoder.load(tmp_path / "pair").preference(triples), p)
