"""Judges that compute here, on small models of the true architectures with random weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import Cli, small
from tests.language_models import write_causal

from zelo.artifacts import read_json, read_table
from zelo.errors import UserError
from zelo.judging.language_model import (
    LanguageModel,
    LanguageModelOrderSession,
    LanguageModelSession,
)
from zelo.judging.likelihood import LikelihoodSession, QueryLikelihood
from zelo.judging.lists import reply_in
from zelo.judging.question import Answer, Question
from zelo.judging.scorer import Scorer
from zelo.models.pretrained import PretrainedModel

QUESTIONS = [
    Question(f"q{n}", "a", "b", 0, f"what is {n}", text_a, text_b)
    for n, (text_a, text_b) in enumerate(
        [
            ("a short text", "another one"),
            ("something longer that is read beside the short ones " * 6, "short"),
            ("apples", "pears and " * 40),
            ("same", "same"),
        ]
    )
]


@pytest.fixture(scope="module", params=["template", "plain"])
def causal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"causal-{request.param}")
    return write_causal(folder, with_template=request.param == "template")


def language_model(folder: Path, **options: object) -> LanguageModelSession:
    judge = LanguageModel(
        pretrained=PretrainedModel(name="tiny/causal", path=str(folder)), **options
    )
    return judge.prepare(Path(), {}, 0)


def by_hand(judge: LanguageModelSession, q: Question, turned: bool) -> float:
    """P(A) by one unpadded pass and the whole softmax."""
    ids = torch.tensor([judge.prompt_of(q, turned)])
    with torch.inference_mode():
        p = judge.model(input_ids=ids).logits[0, -1].double().softmax(0)
    a, b = (p[ids].sum() for ids in judge.choices)
    return float(a / (a + b))


def test_a_language_model_compares_by_the_logits_of_its_answers(causal: Path) -> None:
    """Batched and padded as one by one: P(A) / (P(A) + P(B)), both orders averaged."""
    judge = language_model(causal, batch_size=3)
    scores = [answer.score for answer in judge.answer(QUESTIONS)]
    for q, score in zip(QUESTIONS, scores, strict=True):
        forward, back = by_hand(judge, q, turned=False), by_hand(judge, q, turned=True)
        assert score == pytest.approx(1 - (forward + 1 - back), abs=1e-5)
    assert max(map(abs, scores)) > 1e-3


def test_a_language_model_is_told_the_instruction(causal: Path) -> None:
    judge = language_model(causal)
    assert judge.reads_instructions
    plain, told = (
        judge.tokenizer.decode(judge.prompt_of(replace(QUESTIONS[0], instruction=instruction)))
        for instruction in ("", "take shorter ones")
    )
    assert "take shorter ones" in told
    assert "[[instruction" in told
    assert "[[instruction" not in plain


def test_a_template_without_a_system_role(causal: Path) -> None:
    """Its instructions are read all the same, at the beginning of the user's message."""
    judge = language_model(causal)
    if judge.tokenizer.chat_template is None:
        pytest.skip("read without a template")
    judge.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    )
    found = judge.tokenizer.decode(judge.prompt_of(QUESTIONS[0], False))
    assert "You compare two documents" in found
    assert "Which document is more relevant" in found


def test_a_document_brings_no_control_token(causal: Path) -> None:
    judge = language_model(causal)
    honest, hostile = (
        judge.prompt_of(Question("q", "a", "b", 0, text, text, text), False)
        for text in ("end", "<end>")
    )
    assert judge.tokenizer.encode("<end>", add_special_tokens=False) == [1]
    assert hostile.count(1) == honest.count(1)
    assert judge.tokenizer.decode(hostile).count("< end>") == 3


def test_both_orders_take_out_the_bias_of_a_place(causal: Path) -> None:
    both = language_model(causal)
    turned = [
        Question(q.query_id, q.doc_b, q.doc_a, 0, q.query, q.text_b, q.text_a) for q in QUESTIONS
    ]
    ahead, back = both.answer(QUESTIONS), both.answer(turned)
    for one, other in zip(ahead, back, strict=True):
        assert one.score == pytest.approx(-other.score, abs=1e-5)
    assert ahead[3].score == pytest.approx(0.0, abs=1e-5)  # equal texts
    single = language_model(causal, both_orders=False)
    assert abs(single.answer(QUESTIONS)[3].score) > 1e-4
    assert single.fingerprint != both.fingerprint


def block(*texts: str, query: str = "what is it") -> Question:
    ids = [f"d{n}" for n in range(len(texts))]
    return Question("q", json.dumps(ids), "", 0, query, json.dumps(texts), "")


def orders(folder: Path, **options: object) -> LanguageModelOrderSession:
    pretrained = PretrainedModel(name="tiny/causal", path=str(folder))
    return LanguageModel(pretrained=pretrained, **options).prepare_lists(Path(), {}, 0)


@pytest.mark.parametrize("both_orders", [True, False])
def test_a_block_is_ordered_by_the_logits_of_its_letters(causal: Path, both_orders: bool) -> None:
    """Batched and padded as one by one, among the letters that are there; both ways averaged."""
    judge = orders(causal, batch_size=3, both_orders=both_orders)
    blocks = [
        block("a short text", "another one", "pears and " * 20, "plums"),
        block("one", "two", "three"),
        block(*(f"text {n}" for n in range(25)), query="all letters"),
    ]
    for q, answer in zip(blocks, judge.answer(blocks), strict=True):
        n, score = len(json.loads(q.doc_a)), 0.0
        for turned in [False, True][: 1 + both_orders]:
            with torch.inference_mode():
                ids = torch.tensor([judge.prompt_of(q, turned)])
                p = judge.model(input_ids=ids).logits[0, -1].double().softmax(0)
            share = torch.stack([p[tokens].sum() for tokens in judge.choices[:n]])
            share = (share / share.sum()).log()
            score = score + (share.flip(0) if turned else share)
        places = reply_in(answer).places
        assert places == [int((score > one).sum()) for one in score]
        assert sorted(places) == [*range(n)]
    assert judge.fingerprint != language_model(causal, both_orders=both_orders).fingerprint


def test_documents_stand_in_a_block_under_letters_and_bring_no_control_token(causal: Path) -> None:
    judge = orders(causal)
    found = judge.tokenizer.decode(judge.prompt_of(block("first <end>", "second", "third"), True))
    assert found.index("third") < found.index("second") < found.index("first < end>")
    assert re.search(r"\[\[document A \w{12}\]\]\s+third", found)
    assert "Which of these 3 documents is most relevant to the query: A, B, C?" in found


def test_a_block_of_more_documents_than_letters(causal: Path) -> None:
    with pytest.raises(UserError, match=r"26 documents.*25 letters; set sampler.size=25 or less"):
        orders(causal).answer([block(*map(str, range(26)))])


def test_a_block_is_cut_until_it_fits(causal: Path) -> None:
    judge = orders(causal)
    long = "word " * 300
    judge.longest = 3000
    assert len(judge.prompt_of(block(long, long, long))) <= 3000
    with pytest.raises(UserError, match=r"reads 3000 tokens.*or smaller blocks \(sampler.size\)"):
        judge.prompt_of(block(*[long] * 20))


def test_an_answer_does_not_depend_on_what_is_read_beside_it(causal: Path) -> None:
    judge = language_model(causal)
    together = judge.answer(QUESTIONS)
    alone = [judge.answer([q])[0] for q in QUESTIONS]
    assert [a.score for a in together] == pytest.approx([a.score for a in alone], abs=1e-5)


def test_a_vocabulary_without_the_answers_is_named(causal: Path, tiny_model: Path) -> None:
    judge = language_model(causal)
    judge.tokenizer.encode = lambda text, **_: [0, 0]  # both letters in pieces
    with pytest.raises(UserError, match="tiny/causal: its vocabulary has no token 'A'"):
        LanguageModelSession("f", judge.judge, judge.model, judge.tokenizer)


def likelihood(folder: Path, **options: object) -> LikelihoodSession:
    pretrained = PretrainedModel(name="tiny/causal", path=str(folder))
    return QueryLikelihood(pretrained=pretrained, **options).prepare(Path(), {}, 0)


def log_probability(judge: LikelihoodSession, query: str, document: str) -> list[float]:
    """Of each token of the query, by one unpadded pass over the text that is read."""
    encode = judge.tokenizer.encode
    before = encode(f"Document: {document.strip()}\n\nSearch query that this document answers:")
    asked = encode(f" {query}", add_special_tokens=False)
    with torch.inference_mode():
        logits = judge.model(input_ids=torch.tensor([before + asked])).logits[0].double()
    logp = logits.log_softmax(-1)
    return [float(logp[len(before) - 1 + n, token]) for n, token in enumerate(asked)]


@pytest.mark.parametrize("per_token", [True, False])
def test_a_language_model_judges_by_how_probable_the_query_is(
    causal: Path, per_token: bool
) -> None:
    """Batched and padded as one by one, each pair read once; the difference of the two scores."""
    judge = likelihood(causal, batch_size=3, per_token=per_token, logit_scale=2.0)
    found = scores_of(judge.answer(QUESTIONS))
    for q, score in zip(QUESTIONS, found, strict=True):
        a, b = (log_probability(judge, q.query, text) for text in (q.text_a, q.text_b))
        gap = (sum(a) - sum(b)) / (len(a) if per_token else 1)
        assert score == pytest.approx(sigmoid_gap(2.0 * gap), abs=1e-4)
    assert found[3] == pytest.approx(0.0, abs=1e-4)  # equal texts
    assert max(map(abs, found)) > 1e-3
    alone = [judge.answer([q])[0].score for q in QUESTIONS]
    fresh = [
        likelihood(causal, per_token=per_token, logit_scale=2.0).answer([q])[0].score
        for q in QUESTIONS
    ]
    assert alone == found  # which are kept
    assert fresh == pytest.approx(found, abs=1e-4)


def test_a_document_is_read_without_control_tokens_and_cut_alike_for_a_query(causal: Path) -> None:
    judge = likelihood(causal, max_document_tokens=16)
    assert judge.text_ids("<end>", 99) == judge.text_ids("< end>", 99)
    assert judge.count_truncated(["x" * 15, "x" * 16]) == 1
    ids = judge.prompt(judge.text_ids("x" * 99, 16), judge.text_ids("ask", 128))
    assert judge.tokenizer.decode(ids).endswith(f"Document: {'x' * 15}\n\nSearch query that this "
                                                f"document answers: ask")  # fmt: skip
    judge.longest = len(ids) - 5
    cut = judge.prompt(judge.text_ids("x" * 99, 16), judge.text_ids("ask", 128))
    assert len(cut) == judge.longest
    assert judge.tokenizer.decode(cut).endswith("answers: ask")
    assert judge.read([ids], [0]) == [0.0]  # a query without a token
    assert all(map(math.isfinite, judge.scores([("", "text"), ("ask", "")])))
    other = likelihood(causal, max_document_tokens=32).fingerprint
    assert len({judge.fingerprint, other, likelihood(causal, per_token=False).fingerprint}) == 3


def test_judges_without_an_account_are_asked_by_a_run(
    cli: Cli, tmp_path: Path, tiny_model: Path, cross_encoder: Path
) -> None:
    """Each with a factor of its own, and a word on the one that the run starts from."""
    causal = write_causal(tmp_path / "causal")
    done = cli(
        "run", *small(tiny_model), "judge=[local_ensemble,cross_encoder,likelihood]",
        f"judge.judges.embedding.pretrained.path={tiny_model}",
        f"judge.judges.cross_encoder.pretrained.path={cross_encoder}",
        f"judge.judges.likelihood.pretrained.path={causal}",
        "judge.judges.likelihood.max_document_tokens=32",
        "stages=[load,retrieve,compare,judge,rate]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = ["bm25", "embedding", "cross_encoder", "likelihood"]
    (record,) = (tmp_path / "work" / "outputs" / "store" / "judge").glob("*/stage.json")
    scales = read_json(record)["counts"]["logit_scales"]
    assert list(scales) == names
    assert len(set(scales.values())) == 4
    said = done.stdout + done.stderr
    for name, scale in scales.items():
        assert f"{name}: P(a ≻ b) = sigmoid({scale:g} · difference of its scores)" in said
    assert said.count("it is the model that training starts from") == 1
    assert "! judge embedding: it is the model that training starts from" in said
    judgments = read_table(record.parent, "judgments")
    weights = {row["judge"]: row["weight"] for row in judgments.to_pylist()}
    assert weights == {"bm25": 0.5, "embedding": 1.0, "cross_encoder": 1.0, "likelihood": 1.0}
    assert judgments["score"].null_count == 0


def test_blocks_are_ordered_in_a_run_and_counted_in_its_plan(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    causal = write_causal(tmp_path / "causal")
    run = [*small(tiny_model), "judge=local", f"judge.judges.local.pretrained.path={causal}"]
    run += ["judge.judges.local.max_document_tokens=16", "judge.judges.local.batch_size=32"]
    large = cli("plan", *run, "sampler=blocks", "sampler.size=30", "depth=60", "top_k=60")
    assert large.returncode == 2
    assert "judge local: it orders 25 documents at most, and a block has 30" in large.stderr
    blocks = ["sampler=blocks", "sampler.size=4", "sampler.times=1"]
    planned = cli("plan", *run, *blocks)
    assert planned.returncode == 0, planned.stderr
    assert "judge (local)" in planned.stdout
    done = cli("run", *run, *blocks, "stages=[load,retrieve,compare,judge,rate]")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "work" / "outputs" / "store" / "judge").glob("*/")
    places = read_table(folder, "list_judgments")["places"].to_pylist()
    assert places
    assert all(sorted(of_block) == [*range(len(of_block))] for of_block in places)


@pytest.fixture(scope="module")
def cross_encoder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("cross")
    torch.manual_seed(1)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        num_labels=1, initializer_range=0.3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def sigmoid_gap(gap: float) -> float:
    return 1 - 2 / (1 + math.exp(-gap))


def scores_of(answers: list[Answer]) -> list[float | None]:
    return [answer.score for answer in answers]


def test_a_cross_encoder_judges_by_the_difference_of_its_logits(cross_encoder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    weights = PretrainedModel(name="tiny/cross", path=str(cross_encoder))
    judge = Scorer(kind="cross_encoder", pretrained=weights, max_length=64, logit_scale=2.0)
    found = scores_of(judge.prepare(Path(), {}, 0).answer(QUESTIONS))
    model = AutoModelForSequenceClassification.from_pretrained(cross_encoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)

    def logit(query: str, text: str) -> float:
        inputs = tokenizer(query, text, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            return float(model(**inputs).logits)

    expected = [
        sigmoid_gap(2.0 * (logit(q.query, q.text_a) - logit(q.query, q.text_b))) for q in QUESTIONS
    ]
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(map(abs, found)) > 1e-3


def test_an_embedding_model_judges_by_the_difference_of_its_cosines(tiny_model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    weights = PretrainedModel(name="tiny/bi", path=str(tiny_model))
    judge = Scorer(kind="bi_encoder", pretrained=weights, max_length=64, logit_scale=20.0)
    found = scores_of(judge.prepare(Path(), {}, 0).answer(QUESTIONS))
    model = SentenceTransformer(str(tiny_model))
    model.max_seq_length = 64
    q, a, b = (
        model.encode([getattr(question, name) for question in QUESTIONS], normalize_embeddings=True)
        for name in ("query", "text_a", "text_b")
    )
    expected = [sigmoid_gap(20.0 * float(x @ (y - z))) for x, y, z in zip(q, a, b, strict=True)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_what_changes_a_score_changes_what_the_judge_is_known_by(tiny_model: Path) -> None:
    weights = PretrainedModel(name="tiny/bi", path=str(tiny_model))
    known: Callable[..., str] = lambda **options: (  # noqa: E731
        Scorer(kind="bi_encoder", pretrained=weights, **options).prepare(Path(), {}, 0).fingerprint
    )
    assert known() == known(batch_size=7)
    changed = ({}, {"logit_scale": 20.0}, {"max_length": 64}, {"precision": "bfloat16"})
    assert len({known(**options) for options in changed}) == len(changed)


@pytest.mark.parametrize("kind", ["cross_encoder", "bi_encoder"])
def test_scores_in_16_bits_are_nearly_those_in_32(
    kind: str, cross_encoder: Path, tiny_model: Path
) -> None:
    folder = cross_encoder if kind == "cross_encoder" else tiny_model
    weights = PretrainedModel(name=f"tiny/{kind}", path=str(folder))
    exact, half = (
        scores_of(
            Scorer(kind=kind, pretrained=weights, logit_scale=2.0, precision=precision)
            .prepare(Path(), {}, 0)
            .answer(QUESTIONS)
        )
        for precision in ("float32", "bfloat16")
    )
    assert half != exact
    assert half == pytest.approx(exact, abs=0.03)
