"""Rerankers as the sequence classifiers that servers load: the same scores, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from benchmarks.shapes import make
from sentence_transformers import CrossEncoder as Stock
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from tests.conftest import Cli
from tests.models.test_zerank import STOCK as ZERANK_2
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from zelo.artifacts import read_json
from zelo.errors import UserError
from zelo.models.cross_encoder import load_cross_encoder, new_cross_encoder, save_cross_encoder
from zelo.models.exporting import PAIRS
from zelo.models.sequence_classifier import (
    TEMPLATE,
    activation_of,
    export_classifier,
    in_jinja,
)

QWEN3_RERANKER = """<|im_start|>system
Judge.<|im_end|>
<|im_start|>user
{% for m in messages if m.role == "system" %}<Instruct>: {{ m.content }}
{% endfor %}{% for m in messages if m.role == "query" %}<Query>: {{ m.content }}
{% endfor %}{% for m in messages if m.role == "document" %}<Document>: {{ m.content }}
{%- endfor %}<|im_end|>
<|im_start|>assistant
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen3-toy", tmp_path_factory.mktemp("bare") / "decoder")


def ours(bare: Path, folder: Path) -> Path:
    """As it is trained here, with a prompt that holds quotation marks and other letters."""
    model = new_cross_encoder(bare, "answer")
    model.prompts, model.default_prompt_name = {"query": 'Say "yes" to 山 🏔'}, "query"
    model.max_seq_length = 300
    save_cross_encoder(model, folder)
    return folder


def zerank_2(bare: Path, folder: Path) -> Path:
    """One answer, and a template that must be told to go on with the assistant's turn."""
    shutil.copytree(bare, plain := folder.parent / "plain")
    (plain / "chat_template.jinja").write_text(ZERANK_2)
    decoder = Transformer(
        str(plain),
        transformer_task="text-generation",
        processing_kwargs={"chat_template": {"add_generation_prompt": True}},
    )
    yes = decoder.tokenizer.convert_tokens_to_ids("Yes")
    modules = [decoder, LogitScore(yes, None)]
    Stock(modules=modules, num_labels=1, activation_fn=torch.nn.Identity()).save_pretrained(
        str(folder)
    )
    return folder


def zerank_1(bare: Path, folder: Path) -> Path:
    """Code of its own, which is not run, and sigmoid(logit / 5)."""
    shutil.copytree(bare, folder)
    about = read_json(folder / "config.json") | {"auto_map": {"AutoConfig": "modeling_zeranker.C"}}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def qwen3_reranker(bare: Path, folder: Path) -> Path:
    """A causal language model whose template knows a query and a document, in 16 bits."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(bare, folder)
    model = AutoModelForCausalLM.from_pretrained(bare, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(QWEN3_RERANKER)
    return folder


def llama(bare: Path, folder: Path) -> Path:
    """Another family."""
    return ours(make("llama-toy", folder.parent / "llama"), folder)


def served(folder: Path, pairs: Sequence[tuple[str, str]]) -> Iterator[float]:
    """The scores that vLLM gives: its template filled with two messages, one row of logits, the
    activation that the configuration names."""
    from transformers import AutoModelForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = (folder / TEMPLATE).read_text()
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    named = read_json(folder / "config.json")["sentence_transformers"]["activation_fn"]
    assert named.startswith("torch.nn.modules.")
    activation = getattr(torch.nn, named.rpartition(".")[2])()
    for query, document in pairs:
        told = [{"role": "query", "content": query}, {"role": "document", "content": document}]
        text = tokenizer.apply_chat_template(told, chat_template=template, tokenize=False)
        with torch.inference_mode():
            yield float(activation(model(**tokenizer(text, return_tensors="pt")).logits))


@pytest.mark.parametrize("shape", [ours, zerank_2, zerank_1, qwen3_reranker, llama])
def test_a_decoder_scores_the_same_as_a_sequence_classifier(
    bare: Path, tmp_path: Path, shape: Callable[[Path, Path], Path]
) -> None:
    folder = shape(bare, tmp_path / "model")
    found = export_classifier(folder, tmp_path / "served")
    assert found.largest <= 1e-3 * found.spread
    assert found.number >= len(PAIRS)
    about = read_json(tmp_path / "served" / "config.json")
    assert about["architectures"][0].endswith("ForSequenceClassification")
    assert len(about["id2label"]) == 1
    if shape in (ours, qwen3_reranker):  # by itself, not as the export compares them
        scores = load_cross_encoder(folder).predict(PAIRS[:4])
        assert scores.std() > 1e-4
        assert [*served(tmp_path / "served", PAIRS[:4])] == pytest.approx(scores.tolist(), abs=1e-5)
    card = (tmp_path / "served" / "README.md").read_text()
    assert TEMPLATE in card
    assert f"--dtype {about['dtype']}" in card
    assert about["rope_theta"] == about["rope_parameters"]["rope_theta"]
    assert "auto_map" not in about
    kept = {"bfloat16"} if shape is qwen3_reranker else {"float32"}
    assert {about["dtype"]} == kept


def test_a_tokenizer_that_adds_what_the_template_has(bare: Path, tmp_path: Path) -> None:
    """A server would put a second beginning before each text: the one that ships adds nothing."""
    folder = zerank_2(bare, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begin = ("<|im_start|>", tokenizer.convert_tokens_to_ids("<|im_start|>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", pair=None, special_tokens=[begin]
    )
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"][0] == begin[1]
    found = export_classifier(folder, tmp_path / "served")
    assert found.within(1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "served")("a")["input_ids"][0] != begin[1]


def test_scores_that_are_not_the_models_are_refused(bare: Path, tmp_path: Path) -> None:
    """A model that was made without a template, and got one that it does not read."""
    decoder = Transformer(str(bare), transformer_task="text-generation")
    decoder.tokenizer.chat_template = ZERANK_2
    modules = [decoder, LogitScore(decoder.tokenizer.convert_tokens_to_ids("Yes"), None)]
    model = Stock(modules=modules, num_labels=1, activation_fn=torch.nn.Identity())
    model.save_pretrained(str(tmp_path / "model"))
    with pytest.raises(UserError, match="as a sequence classifier its scores differ by up to"):
        export_classifier(tmp_path / "model", tmp_path / "served")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_an_activation_that_its_name_does_not_tell_is_refused(bare: Path, tmp_path: Path) -> None:
    model = load_cross_encoder(zerank_2(bare, tmp_path / "model"))
    model.activation_fn = torch.nn.LeakyReLU(0.3)
    with pytest.raises(
        UserError, match="LeakyReLU after its logit is no layer of torch that its name"
    ):
        activation_of(model, tmp_path)
    assert in_jinja("🏔") == '"🏔"'
    assert in_jinja(None) == "none"


def test_what_servers_do_not_load_is_refused(
    bare: Path, tiny_model: Path, tmp_path: Path, cli: Cli
) -> None:
    save_cross_encoder(new_cross_encoder(tiny_model, "mean"), tmp_path / "mean")
    with pytest.raises(UserError, match=r"a head of its own.*model\.head=cls"):
        export_classifier(tmp_path / "mean", tmp_path / "served")
    with pytest.raises(UserError, match=r"no reranker.*serve an embedding model's folder as it is"):
        export_classifier(tiny_model, tmp_path / "served")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = cli("export", str(zerank_2(bare, tmp_path / "model")), "to=vllm", f"out={tmp_path}/full")
    assert done.returncode == 2
    assert "is there already; name a new folder" in done.stderr


def test_an_encoder_with_a_classifiers_head(tiny_model: Path, tmp_path: Path, cli: Cli) -> None:
    """It is one already: its folder is written again, and proven."""
    model = new_cross_encoder(tiny_model, "cls")
    model.max_seq_length = 64
    torch.nn.init.normal_(model[0].model.classifier.weight)
    save_cross_encoder(model, tmp_path / "run" / "model")
    done = cli("export", f"{tmp_path}/run", "to=vllm", f"out={tmp_path}/served")
    assert done.returncode == 0, done.stderr
    assert "9 logits of pairs differ by" in done.stdout
    assert not (tmp_path / "served" / TEMPLATE).exists()
    again = Stock(str(tmp_path / "served"))
    again.max_seq_length = 64
    assert again.predict(PAIRS) == pytest.approx(model.predict(PAIRS), abs=1e-5)
    assert "--dtype float32" in (tmp_path / "served" / "README.md").read_text()
    model.prompts, model.default_prompt_name = {"query": "search: "}, "query"
    save_cross_encoder(model, tmp_path / "told")
    with pytest.raises(UserError, match="'search: ' before each pair, which no server puts there"):
        export_classifier(tmp_path / "told", tmp_path / "never")
