"""Models as they are found: tables of positions, tokenizers without padding, classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.shapes import make
from sentence_transformers import CrossEncoder as Stock
from sentence_transformers import SentenceTransformer
from tests.models.test_export import CANDIDATES, DOCUMENTS, QUERIES, predictions

from zelo.errors import UserError
from zelo.evaluation.rerankers import CrossEncoderReranker, EmbeddingReranker, Pool
from zelo.judging.language_model import LanguageModel
from zelo.judging.question import Question
from zelo.judging.scorer import Scorer
from zelo.models.cross_encoder import load_cross_encoder
from zelo.models.embedding import load_embedding_model
from zelo.models.loading import cut_to, shapes_alone, usable_length
from zelo.models.pairwise import PairwiseCrossEncoder
from zelo.models.pretrained import PretrainedModel
from zelo.models.rerank_file import score
from zelo.progress import tell
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.objectives import MSE
from zelo.training.options import TrainingOptions

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
LONG = "river bank bridge " * 400
POOL = Pool(QUERIES, {**DOCUMENTS, "endless": LONG}, CANDIDATES | {"q1": ["endless"]}, Path())
QUESTION = Question("q", "a", "b", 0, "rivers", LONG, "short")


@pytest.fixture(scope="module")
def words(tiny_model: Path) -> Any:
    """BERT's tokenizer that knows no longest text, as many a folder has it."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(tiny_model)
    found.model_max_length = int(1e30)
    return found


@pytest.fixture(scope="module")
def found(words: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models: RoBERTa of 66 positions, of which 64 are used, and classifiers of it."""
    from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaModel

    root = tmp_path_factory.mktemp("found")
    sizes = {**SIZES, "vocab_size": len(words), "max_position_embeddings": 66, "pad_token_id": 1}
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(**sizes)).save_pretrained(root / "encoder")
    for labels in (1, 2, 3):
        config = RobertaConfig(**sizes, num_labels=labels, initializer_range=0.3)
        RobertaForSequenceClassification(config).save_pretrained(root / f"{labels}")
    for folder in root.iterdir():
        words.save_pretrained(folder)
    return {folder.name: folder for folder in root.iterdir()}


def test_usable_lengths_are_those_that_families_can_read() -> None:
    """By reading as many tokens, and one more."""
    import transformers

    sizes = {**SIZES, "vocab_size": 50, "pad_token_id": 1}
    families: dict[str, tuple[dict[str, Any], int | None]] = {
        "Bert": ({**sizes, "max_position_embeddings": 40}, 40),
        "XLMRoberta": ({**sizes, "max_position_embeddings": 42}, 40),
        "MPNet": ({**sizes, "max_position_embeddings": 42}, 40),
        "DistilBert": ({"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64,
                        "vocab_size": 50, "max_position_embeddings": 40}, 40),
        "GPT2": ({"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50,
                  "n_positions": 40}, 40),
        "OPT": ({**sizes, "ffn_dim": 64, "word_embed_proj_dim": 32,
                 "max_position_embeddings": 40}, 40),
        "DebertaV2": ({**sizes, "max_position_embeddings": 40, "relative_attention": True,
                       "position_biased_input": False}, None),
        "ModernBert": ({**sizes, "max_position_embeddings": 40, "cls_token_id": 2,
                        "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}, None),
        "Llama": ({**sizes, "max_position_embeddings": 40}, None),
    }  # fmt: skip
    for family, (options, usable) in families.items():
        config = getattr(transformers, f"{family}Config")(**options)
        model = getattr(transformers, f"{family}Model")(config).eval()
        assert usable_length(model) == usable, family
        with torch.inference_mode():
            model(input_ids=torch.full((1, 40), 7), attention_mask=torch.ones(1, 40).long())
            longer = {
                "input_ids": torch.full((1, 41), 7),
                "attention_mask": torch.ones(1, 41).long(),
            }
            if usable is None:
                model(**longer)
            else:
                with pytest.raises((IndexError, RuntimeError)):
                    model(**longer)


def test_what_no_model_can_read_is_cut_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    tell.cache_clear()
    assert [cut_to(1024, 512, Path("m")) for _ in range(3)] == [512, 512, 512]
    assert capsys.readouterr().err == (
        "  m: max_length=1024 is cut to 512, the most that this model reads\n"
    )
    assert [cut_to(None, 512, Path("m")), cut_to(256, 512, Path("m"))] == [512, 256]
    assert [cut_to(256, None, Path("m")), cut_to(None, None, Path("m"))] == [256, None]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("head", ["mean", "cls", "keep"])
def test_a_cross_encoder_reads_no_more_than_its_positions(
    found: dict[str, Path], tmp_path: Path, head: str
) -> None:
    start = PretrainedModel(name=str(found["1" if head == "keep" else "encoder"]))
    model = CrossEncoder(pretrained=start, head=head, max_length=1024, train_max_length=900)
    module = model.module(MSE(), TrainingOptions()).eval()
    expected = predictions(module, tmp_path)  # a long document is among them
    module.save_pretrained(tmp_path / "model")
    stock = Stock(str(tmp_path / "model"))
    assert stock.max_seq_length == 64
    pairs = [(q, d) for q in QUERIES.values() for d in DOCUMENTS.values()]
    wanted = 1 / (1 + np.exp(-expected))
    np.testing.assert_allclose(stock.predict(pairs).reshape(3, -1), wanted, atol=1e-5)


def test_an_embedding_model_reads_no_more_than_its_positions(
    found: dict[str, Path], tmp_path: Path
) -> None:
    model = BiEncoder(pretrained=PretrainedModel(name=str(found["encoder"])), max_length=1024)
    module = model.module(MSE(), TrainingOptions()).eval()
    predictions(module, tmp_path)
    module.save_pretrained(tmp_path / "model")
    stock = SentenceTransformer(str(tmp_path / "model"))
    assert stock.max_seq_length == 64
    stock.encode(LONG)
    assert load_embedding_model(found["encoder"]).max_seq_length == 64  # whatever nobody asked for


def test_a_pairwise_model_reads_no_more_than_its_positions(
    found: dict[str, Path], tmp_path: Path
) -> None:
    model = PairwiseCrossEncoder(found["encoder"], 500, 1024).eval()
    features = model.encode([(LONG, LONG, LONG)])
    assert features["input_ids"].shape[1] <= 64
    assert set(features["segment"][0].tolist()) == {1, 2, 3}  # all of them are seen
    model.preference([(LONG, LONG, LONG)])
    model.save(tmp_path)
    assert PairwiseCrossEncoder.load(tmp_path).max_length == 64


def test_rerankers_and_judges_read_no_more_than_their_positions(
    found: dict[str, Path], tmp_path: Path
) -> None:
    cross, encoder = (
        PretrainedModel(name=str(found["1"])),
        PretrainedModel(name=str(found["encoder"])),
    )
    for limit in (None, 1024):
        CrossEncoderReranker(pretrained=cross, max_length=limit).score(POOL, tmp_path)
        EmbeddingReranker(pretrained=encoder, max_length=limit).score(POOL, tmp_path)
    score(found["1"], "rivers", [LONG])
    score(found["encoder"], "rivers", [LONG])
    for kind, weights in (("cross_encoder", cross), ("bi_encoder", encoder)):
        judge = Scorer(kind=kind, pretrained=weights, max_length=1024)
        judge.prepare(Path(), {}, 0).answer([QUESTION])


def gpt2(folder: Path, positions: int) -> PretrainedModel:
    """GPT-2's architecture with a table of so many positions; its tokenizer pads with nothing."""
    from benchmarks.shapes import tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    words = tokenizer()
    words.pad_token = None
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=2, vocab_size=len(words), n_positions=positions
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return PretrainedModel(name=str(folder))


def test_a_language_model_is_shown_what_its_positions_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = LanguageModel(pretrained=gpt2(tmp_path / "a", 700), max_document_tokens=512)
    prepared = judge.prepare(Path(), {}, 0)
    texts = [LONG, "é東" * 900]
    for query in ("rivers", LONG):
        question = Question("q", "a", "b", 0, query, *texts)
        assert len(prepared.prompt_of(question, False)) <= 700
        (answer,) = prepared.answer([question])
        assert answer.score is not None
    assert capsys.readouterr().err.count("reads 700 tokens: long documents are cut to fit") == 1
    with pytest.raises(UserError, match=r"it reads 200 tokens, and \d+ of them are the prompt"):
        LanguageModel(pretrained=gpt2(tmp_path / "b", 200)).prepare(Path(), {}, 0)


@pytest.mark.parametrize("labels", [2, 3])
def test_a_classifier_is_no_reranker(found: dict[str, Path], tmp_path: Path, labels: int) -> None:
    weights = PretrainedModel(name=str(found[f"{labels}"]))
    said = (
        rf"{found[f'{labels}']}: a classifier of {labels} labels, which gives no score to rank by"
    )
    for use in (
        lambda: load_cross_encoder(weights.locate()),
        lambda: score(weights.locate(), "rivers", ["a", "b"]),
        lambda: CrossEncoderReranker(pretrained=weights).score(POOL, tmp_path),
        lambda: Scorer(kind="cross_encoder", pretrained=weights).prepare(Path(), {}, 0),
        lambda: CrossEncoder(pretrained=weights, head="keep").module(MSE(), TrainingOptions()),
        lambda: CrossEncoder(pretrained=weights, head="cls").module(MSE(), TrainingOptions()),
    ):
        with pytest.raises(UserError, match=said):
            use()
    model = CrossEncoder(
        pretrained=weights, head="mean", max_length=64
    )  # which is what the line says
    predictions(model.module(MSE(), TrainingOptions()).eval(), tmp_path)


def test_what_has_no_head_is_no_reranker(found: dict[str, Path], tiny_model: Path) -> None:
    """The library would put a head on it that knows nothing, and scores would be noise."""
    for folder in (found["encoder"], tiny_model):
        with pytest.raises(UserError, match=r"(Roberta|Bert)Model has no head to score pairs by"):
            load_cross_encoder(folder)


def test_a_head_that_needs_segments_is_told_where_there_are_none(tmp_path: Path) -> None:
    folder = make("qwen3-toy", tmp_path)
    with pytest.raises(UserError, match=r"head=segments: .* \(no token_type_ids\)"):
        CrossEncoder(pretrained=PretrainedModel(name=str(folder)), head="segments").module(
            MSE(), TrainingOptions()
        )


def test_a_tokenizer_without_padding_pads_all_the_same(tmp_path: Path) -> None:
    """Scores of texts in a batch are those of each by itself, in every loader."""
    from benchmarks.shapes import tokenizer
    from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaModel

    words = tokenizer()
    words.pad_token = None
    sizes = {**SIZES, "vocab_size": len(words), "num_key_value_heads": 1, "initializer_range": 0.3}
    torch.manual_seed(0)
    LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=1)).save_pretrained(
        tmp_path / "cross"
    )
    LlamaModel(LlamaConfig(**sizes)).save_pretrained(tmp_path / "bare")
    for name in ("cross", "bare"):
        words.save_pretrained(tmp_path / name)
    texts = ["sorted(list)", "def f(x):\n    return x\n" * 5, "x"]
    for folder in (tmp_path / "cross", tmp_path / "bare"):
        together = score(folder, "how to sort", texts)
        alone = [score(folder, "how to sort", [text])[0] for text in texts]
        np.testing.assert_allclose(together, alone, atol=1e-4)
        assert len({round(value, 4) for value in together}) == 3
    judge = Scorer(kind="cross_encoder", pretrained=PretrainedModel(name=str(tmp_path / "cross")))
    questions = [Question("q", "a", "b", 0, "how to sort", a, b) for a in texts for b in texts]
    told = [answer.score for answer in judge.prepare(Path(), {}, 0).answer(questions)]
    again = [judge.prepare(Path(), {}, 0).answer([one])[0].score for one in questions]
    assert told == pytest.approx(again, abs=1e-4)
    for head in ("mean", "cls"):
        model = CrossEncoder(
            pretrained=PretrainedModel(name=str(tmp_path / "bare")), head=head, max_length=64
        )
        module = model.module(MSE(), TrainingOptions()).eval()
        whole = predictions(module, tmp_path / head)
        module.save_pretrained(tmp_path / f"model-{head}")
        pairs = [(q, d) for q in QUERIES.values() for d in DOCUMENTS.values()]
        stock = Stock(str(tmp_path / f"model-{head}"))
        wanted = 1 / (1 + np.exp(-whole))
        np.testing.assert_allclose(stock.predict(pairs).reshape(3, -1), wanted, atol=1e-4)
    pairwise = PairwiseCrossEncoder(tmp_path / "bare", 16, 96).eval()
    triples = [("how to sort", a, b) for a in texts for b in texts]
    one_by_one = torch.cat([pairwise.preference([triple]) for triple in triples])
    torch.testing.assert_close(pairwise.preference(triples), one_by_one, atol=1e-4, rtol=0)


def test_shapes_alone_take_no_memory_and_fail_as_the_model_would(
    found: dict[str, Path], tmp_path: Path
) -> None:
    decoder = PretrainedModel(name=str(make("qwen3-toy", tmp_path / "qwen")))
    with shapes_alone():
        for model in (
            *(CrossEncoder(pretrained=PretrainedModel(name=str(found["encoder"])), head=head)
              for head in ("mean", "cls")),
            CrossEncoder(pretrained=decoder, head="answer", max_length=400),
            BiEncoder(pretrained=decoder, pooling="cls"),
        ):  # fmt: skip
            backbone = model.module(MSE(), TrainingOptions()).backbone
            assert {str(p.device) for p in backbone.parameters()} == {"meta"}
        with pytest.raises(UserError, match="'perhaps not' is"):
            CrossEncoder(pretrained=decoder, head="answer", answers=["perhaps not"]).module(
                MSE(), TrainingOptions()
            )
        with pytest.raises(UserError, match="a classifier of 3 labels"):
            load_cross_encoder(found["3"])
    loaded = CrossEncoder(pretrained=decoder, head="answer", max_length=400)
    module = loaded.module(MSE(), TrainingOptions())
    assert {str(p.device) for p in module.parameters()} == {"cpu"}
