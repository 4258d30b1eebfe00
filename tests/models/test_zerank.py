"""Both shapes that zerank was released in score as published; what says nothing is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.shapes import make
from sentence_transformers import CrossEncoder as Stock
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore

from zelo.errors import UserError
from zelo.evaluation.rerankers import CrossEncoderReranker, Pool
from zelo.judging.question import Question
from zelo.judging.scorer import Scorer
from zelo.models.cross_encoder import load_cross_encoder
from zelo.models.pretrained import PretrainedModel
from zelo.models.scoring import score_pairs
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.objectives import MSE
from zelo.training.options import TrainingOptions

CHATML = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # as Qwen3's writes plain messages
STOCK = """{%- set roles = {"query": "system", "document": "user"} -%}
{%- for message in messages -%}
<|im_start|>{{ roles.get(message.role, message.role) }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PAIRS = [
    ("what parses arguments", "class ArgumentParser(object): parses command lines"),
    ("json", "a decoder of JSON documents, with hooks for objects and for constants"),
    ("  typing \n", "\n generics "),
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen3 with a chat template."""
    folder = make("qwen3-toy", tmp_path_factory.mktemp("zerank") / "bare")
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.fixture(scope="module")
def first(bare: Path) -> Path:
    """As zerank-1 and zerank-1-small were released: own code, which must not run."""
    folder = Path(shutil.copytree(bare, bare.parent / "first"))
    about = json.loads((folder / "config.json").read_text())
    about["auto_map"] = {"AutoConfig": "modeling_zeranker.ZEConfig"}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "modeling_zeranker.py").write_text("raise RuntimeError('foreign code ran')\n")
    return folder


@pytest.fixture(scope="module")
def stock(bare: Path) -> Path:
    """As zerank-2 is released since May 2026: a transformer and a LogitScore."""
    folder = bare.parent / "stock"
    decoder = Transformer(
        str(bare),
        transformer_task="text-generation",
        processing_kwargs={"chat_template": {"add_generation_prompt": True}},
    )
    decoder.tokenizer.chat_template = STOCK
    yes = decoder.tokenizer.convert_tokens_to_ids("Yes")
    modules = [decoder, LogitScore(yes, None)]
    Stock(modules=modules, num_labels=1, activation_fn=torch.nn.Identity()).save_pretrained(
        str(folder)
    )
    assert json.loads((folder / "1_LogitScore" / "config.json").read_text())["true_token_id"] == yes
    return folder


def logits_of_yes(folder: Path, strip: bool) -> list[float]:
    """Logit of "Yes" after each pair as chat, by transformers alone, one pair at a time."""
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for pair in PAIRS:
        q, d = (text.strip() if strip else text for text in pair)
        prompt = (
            f"<|im_start|>system\n{q}<|im_end|>\n<|im_start|>user\n{d}<|im_end|>\n"
            f"<|im_start|>assistant\n"
        )
        ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
        with torch.inference_mode():
            logits = model(ids).logits[0, -1]
        found.append(float(logits[tokenizer.convert_tokens_to_ids("Yes")]))
    return found


def test_the_first_releases_score_as_their_code_does(first: Path) -> None:
    expected = torch.sigmoid(torch.tensor(logits_of_yes(first, strip=True)) / 5)
    scores = score_pairs(load_cross_encoder(first), PAIRS)
    torch.testing.assert_close(torch.tensor(scores), expected, rtol=1e-5, atol=1e-6)


def test_the_stock_release_scores_by_its_raw_logit(stock: Path) -> None:
    expected = torch.tensor(logits_of_yes(stock, strip=False))
    scores = score_pairs(load_cross_encoder(stock), PAIRS)
    torch.testing.assert_close(torch.tensor(scores), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", ["first", "stock"])
def test_a_long_document_is_cut_before_the_answer(
    shape: str, request: pytest.FixtureRequest
) -> None:
    """What is cut is the document: the turn in which the answer stands remains."""
    model = load_cross_encoder(request.getfixturevalue(shape))
    model.max_seq_length = 40
    ids = model.preprocess([("query", "word " * 200)])["input_ids"][0].tolist()
    assert len(ids) == 40
    assert model.tokenizer.decode(ids).endswith("<|im_start|>assistant\n")
    assert "query" in model.tokenizer.decode(ids)


@pytest.mark.parametrize("shape", ["first", "stock"])
def test_rerankers_and_judges_read_them_alike(
    shape: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(shape)
    queries, documents = {"q": PAIRS[0][0]}, {"a": PAIRS[0][1], "b": PAIRS[1][1]}
    reranker = CrossEncoderReranker(pretrained=PretrainedModel(name=str(folder)), max_length=512)
    pool = Pool(queries, documents, {"q": ["a", "b"]}, tmp_path)
    scores = reranker.score(pool, tmp_path)["q"]
    pairs = [(queries["q"], documents[i]) for i in "ab"]
    assert scores == pytest.approx(score_pairs(load_cross_encoder(folder), pairs), abs=1e-6)
    logits = torch.tensor(scores, dtype=torch.float64)
    if shape == "first":
        logits = 5 * torch.logit(logits)
    judge = Scorer(
        kind="cross_encoder", pretrained=PretrainedModel(name=str(folder)), logit_scale=0.2
    )
    question = Question("q", "a", "b", 0, queries["q"], documents["a"], documents["b"])
    (answer,) = judge.prepare(tmp_path, {}, 0).answer([question])
    p = torch.sigmoid(0.2 * (logits[0] - logits[1]))
    assert answer.score == pytest.approx(1 - 2 * float(p), abs=1e-5)


@pytest.mark.parametrize(("shape", "head"), [("first", "keep"), ("first", "answer")])
def test_training_goes_on_from_a_first_release_and_ships_stock(
    shape: str, head: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(shape)
    model = CrossEncoder(pretrained=PretrainedModel(name=str(folder)), head=head, max_length=200)
    model.module(MSE(), TrainingOptions()).save_pretrained(tmp_path / "out")
    score = json.loads((tmp_path / "out" / "1_LogitScore" / "config.json").read_text())
    assert score["false_token_id"] is None
    assert not list((tmp_path / "out").glob("*.py"))
    shipped: Any = Stock(str(tmp_path / "out"), local_files_only=True)
    raw = shipped.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert raw.tolist() == pytest.approx(logits_of_yes(folder, strip=True), abs=1e-5)


def test_a_decoder_that_does_not_say_how_it_scores_is_refused(bare: Path) -> None:
    with pytest.raises(UserError, match=r"bare: .*nothing says how it scores") as caught:
        load_cross_encoder(bare)
    assert "\n" not in str(caught.value)
