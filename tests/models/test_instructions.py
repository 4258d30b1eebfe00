"""What a model reads under an instruction: in training, where it scores, and in what ships."""

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
from tests.training.collection import data_module, fit

from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.judging.question import Question
from zelo.judging.scorer import Scorer
from zelo.models.embedding import load_embedding_model
from zelo.models.instructions import SAMPLE, ship_with, template_of, told
from zelo.models.pretrained import PretrainedModel
from zelo.models.rerank_file import rerank_file
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.objectives import CentredMSE
from zelo.training.optimization import AdamW, ConstantSchedule
from zelo.training.options import TrainingOptions
from zelo.training.rated_queries import RatedQuery

SUN, SEA = "Prefer the sun.", "Prefer the {query} of the sea."
TEMPLATE = "Instruct: {instruction}\nQuery: "
DOCUMENTS = {"sun": "all about the sun", "sea": "all about the sea"}
TEXTS = {"q-sun": "what is it about", "q-sea": "what is it about", "q-none": "what is it about"}
TOLD = {"q-sun": SUN, "q-sea": SEA}
CANDIDATES = {query_id: list(DOCUMENTS) for query_id in TEXTS}
RATED = [
    RatedQuery("q-sun", list(DOCUMENTS), [1.0, -1.0]),
    RatedQuery("q-sea", list(DOCUMENTS), [-1.0, 1.0]),
    RatedQuery("q-none", list(DOCUMENTS), [0.0, 0.0]),
]


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("decoders")
    return {name: make(f"{name}-toy", root / name) for name in ("qwen3", "llama")}


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({}, None),
        ({"query": "Represent this sentence for searching relevant passages: "}, None),
        ({"query": "query: "}, None),
        ({"query": "Instruct: Given a query, find\nanswers\nQuery:"}, "Instruct: {}\nQuery:"),
        ({"query": "Instruct: find\nQuery: "}, "Instruct: {}\nQuery: "),
        ({"query": "task: search result | query: "}, "task: {} | query: "),
        ({"query": "<instruct>find\n<query>"}, "<instruct>{}\n<query>"),
        ({"query": "x: ", "instruction": "{instruction} "}, "{} "),
        ({"instruction": TEMPLATE + "{query}"}, TEMPLATE.replace("{instruction}", "{}")),
    ],
)
def test_an_embedding_models_prompt_has_a_place_or_none(
    tiny_model: Path, prompts: dict[str, str], expected: str | None
) -> None:
    model = load_embedding_model(tiny_model)
    model.prompts = prompts
    found = template_of(model)
    assert found == (expected and expected.replace("{}", "{instruction}"))
    base = prompts.get("query")
    assert told(model, "q", "", found) == ("q", base)
    wanted = base if expected is None else expected.replace("{}", SEA)
    assert told(model, "q", SEA, found) == ("q", wanted)
    assert told(model, "{instruction}", SEA, "{query} / {instruction}").text == (
        "{instruction} / Prefer the {query} of the sea."
    )


def test_one_that_pools_without_its_prompt_reads_none(tiny_model: Path) -> None:
    model = load_embedding_model(tiny_model)
    model.prompts = {"instruction": TEMPLATE}
    assert template_of(model) == TEMPLATE
    model[1].include_prompt = False
    assert template_of(model) is None


def component(kind: str, folder: Path) -> BiEncoder | CrossEncoder:
    start = PretrainedModel(name=str(folder))
    if kind == "answer":
        return CrossEncoder(pretrained=start, head="answer", max_length=400)
    options: dict[str, Any] = {"pretrained": start, "instruction_template": TEMPLATE}
    if kind == "embedding":
        return BiEncoder(**options, max_length=64)
    return CrossEncoder(**options, head=kind, max_length=64)


def stock_scores(folder: Path, kind: str, instruction: str | None) -> list[float]:
    """Of sentence-transformers by itself, told as its card says; None: as it does unasked."""
    query, texts = TEXTS["q-sun"], list(DOCUMENTS.values())
    if kind == "embedding":
        model = SentenceTransformer(str(folder))
        prompt = None
        if instruction is not None:
            prompt = model.prompts["instruction"].replace("{instruction}", instruction)
        q, d = model.encode_query(query, prompt=prompt), model.encode_document(texts)
        return model.similarity(q, d)[0].tolist()
    cross = Stock(str(folder))
    prompt = instruction
    if instruction is not None and kind != "answer":
        prompt = cross.prompts["instruction"].replace("{instruction}", instruction)
    found: list[float] = cross.predict([(query, text) for text in texts], prompt=prompt).tolist()
    return found


@pytest.mark.parametrize(("kind", "steps"), [("answer", 30), ("cls", 60), ("embedding", 30)])
def test_contrary_ones_are_learned_and_what_ships_is_what_was_trained(
    decoders: dict[str, Path], tiny_model: Path, tmp_path: Path, kind: str, steps: int
) -> None:
    """The same query under two instructions, which turn the order of its documents round."""
    model = component(kind, decoders["qwen3"] if kind == "answer" else tiny_model)
    training = TrainingOptions(
        optimizer=AdamW(lr=3e-3, weight_decay=0.0), schedule=ConstantSchedule()
    )
    module = model.module(CentredMSE(), training)
    data = data_module(
        module, tmp_path, RATED, 3, documents=DOCUMENTS, texts=TEXTS, instructions=TOLD,
        max_tokens_per_forward=2048,
    )  # fmt: skip
    fit(module, data, tmp_path, steps, training)
    module.eval()
    with torch.inference_mode():
        learned = module(data.batch_of([(query, range(2)) for query in RATED])).numpy()
    gap = learned[:, 0] - learned[:, 1]
    assert gap[0] > 0.5
    assert gap[1] < -0.5
    module.save_pretrained(tmp_path / "model")
    where = tmp_path / "model", TEXTS, DOCUMENTS, CANDIDATES, tmp_path, LightningTrainer()
    scores = model.score(*where, instructions=TOLD)
    scale = 1.0 if kind != "embedding" else module.logit_scale
    found = np.array([scores[query.query_id] for query in RATED])
    np.testing.assert_allclose(scale * np.diff(found), np.diff(learned), atol=1e-3)
    for query_id in TEXTS:
        expected = stock_scores(tmp_path / "model", kind, TOLD.get(query_id))
        assert scores[query_id] == pytest.approx(expected, abs=1e-5)
    # Where all have the same, nobody needs to be told.
    ship_with(module.model, SEA)
    module.save_pretrained(tmp_path / "one")
    for folder in [tmp_path / "one", *(tmp_path / "one").glob("unpadded")]:
        assert stock_scores(folder, kind, None) == pytest.approx(scores["q-sea"], abs=1e-5)
    alone = model.score(tmp_path / "one", *where[1:], instructions=TOLD)
    assert alone["q-sun"] == pytest.approx(scores["q-sun"], abs=1e-5)
    (tmp_path / "file").write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in DOCUMENTS.values())
    )
    for folder, instruction in ((tmp_path / "model", SEA), (tmp_path / "one", "")):
        rows = rerank_file(folder, TEXTS["q-sea"], str(tmp_path / "file"), instruction=instruction)
        assert [row["text"] for row in rows] == list(DOCUMENTS.values())[::-1]
        assert rows[1]["score"] == pytest.approx(scores["q-sea"][0], abs=1e-5)
    # And a judge reads them as well.
    judge = Scorer(
        kind="bi_encoder" if kind == "embedding" else "cross_encoder", logit_scale=20.0,
        pretrained=PretrainedModel(name=str(tmp_path / "model")),
    ).prepare(tmp_path, {}, 0)  # fmt: skip
    assert judge.reads_instructions
    asked = [
        Question("q", "a", "b", 0, TEXTS[i], *DOCUMENTS.values(), instruction=TOLD.get(i, ""))
        for i in TEXTS
    ]
    answers = [answer.score for answer in judge.answer(asked)]
    gaps = np.array([scores[i][0] - scores[i][1] for i in TEXTS])
    np.testing.assert_allclose(answers, 1 - 2 / (1 + np.exp(-20.0 * gaps)), atol=1e-4)


def test_without_a_place_the_model_is_told_nothing(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = BiEncoder(pretrained=PretrainedModel(name=str(tiny_model)), max_length=64)
    where = None, TEXTS, DOCUMENTS, CANDIDATES, tmp_path, LightningTrainer()
    assert model.score(*where, instructions=TOLD) == model.score(*where)
    assert "! the model reads no instructions" in capsys.readouterr().err
    (tmp_path / "file").write_text("a document\n")
    with pytest.raises(UserError, match=r"--instruction: .* reads none"):
        rerank_file(tiny_model, "q", str(tmp_path / "file"), instruction=SUN)
    with pytest.raises(ValueError, match=r"has no \{instruction\} in it"):
        BiEncoder(pretrained=PretrainedModel(name="x"), instruction_template="Instruct: ")


def test_zerank_has_both_in_the_turn_of_the_query(
    decoders: dict[str, Path], tmp_path: Path
) -> None:
    """Its query is the system's message, which no prompt stands before."""
    from zelo.models.answering import first_zerank

    model = first_zerank(decoders["qwen3"], None)
    template = template_of(model)
    text, prompt = told(model, SAMPLE, SUN, template)
    assert prompt is None
    ids = model.preprocess([(text, "a document")])["input_ids"][0]
    turn = f"system\n<query>{SAMPLE}</query>\n<instructions>{SUN}</instructions>"
    assert turn in model.tokenizer.decode(ids)


def test_a_template_of_this_project_has_a_place(decoders: dict[str, Path]) -> None:
    from zelo.models.answering import with_template
    from zelo.models.cross_encoder import new_cross_encoder

    model = new_cross_encoder(decoders["llama"], "answer")
    with_template(model[0], "plain")

    def read(prompt: str | None) -> str:
        return model.tokenizer.decode(model.preprocess([("q", "d")], prompt=prompt)["input_ids"][0])

    asked = "Query: q\nDocument: d\nIs the document relevant to the query? Answer:"
    assert read(None).endswith(asked)
    assert read(SUN).endswith(f"Instruct: {SUN}\n{asked}")
    assert template_of(model) == "{instruction}"
