"""A model as a graph that runs without torch: for ONNX Runtime or OpenVINO, its scores compared.

The graph lies where sentence-transformers' backends and text-embeddings-inference look for it,
beside all other files of the model, and holds its transformer: what follows it (pooling, a head of
several layers) is described in those files as before. What was written is read back and scores
texts that tend to go wrong; where a score differs from the model's, nothing is written.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zelo.artifacts import write_text
from zelo.errors import UserError, in_words
from zelo.models.exporting import (
    LONG,
    PAIRS,
    ScoreDifferences,
    new_folder,
    score_differences,
    written_whole,
)
from zelo.models.instructions import asks_pairs

FILES = {  # of each form, where loaders look for it
    "onnx": "onnx/model.onnx",
    "int8": "onnx/model.onnx",
    "openvino": "openvino/openvino_model.xml",
}
PACKAGES = {  # that an export needs and nothing else here
    "onnx": ("onnx", "onnxscript", "onnxruntime", "transformers.exporters.quantizers"),
    "int8": ("onnx", "onnxscript", "onnxruntime", "transformers.exporters.quantizers"),
    "openvino": ("openvino", "transformers.exporters.quantizers"),
}
TOLERANCE = {"onnx": 1e-3, "openvino": 1e-3, "int8": 0.5}  # of the scores' standard deviation
MOST = 4096  # tokens of a text that is compared
OTHERS = (
    "onnx",
    "openvino",
    "*.onnx*",
    "openvino_model*",
    ".*",
)  # graphs that were there, and caches
HEADING = "## As a graph, on "
ONE_FILE = 2**31 - 2**27  # bytes of weights that a graph's own file holds; protobuf ends at 2 GiB


def export_graph(folder: Path, form: str, out: Path) -> ScoreDifferences:
    """Write the model in `folder` with a graph of `form` (`FILES`) into the new folder `out`.

    Raises `UserError` where it is a decoder that answers, where `out` has files, where a package is
    missing, where no graph can be made of the model, or where a score differs from the model's by
    more than `TOLERANCE`.
    """
    new_folder(out)
    check_packages(form)
    model = loaded(folder)
    model.max_seq_length = min(model.max_seq_length or MOST, MOST)
    before = scores(model)
    modules = [type(module).__name__ for module in model][1:]
    with written_whole(out) as written:
        shutil.copytree(folder, written, ignore=shutil.ignore_patterns(*OTHERS))
        file = written / FILES[form]
        file.parent.mkdir()
        try:
            with quiet():
                save_graph(model, form, file)
            put_graph(model, form, file)
        except Exception as error:  # of five libraries, each with its own
            raise UserError(
                f"{folder}: to={form}: no graph can be made of this model ({in_words(error)})"
            ) from error
        found = score_differences(before, scores(model))
        if not found.within(TOLERANCE[form]):
            raise UserError(
                f"{folder}: as a graph (to={form}) its scores differ by up to {found.largest:.3g} "
                f"where they spread by {found.spread:.3g}; nothing is written"
            )
        about = written / "README.md"
        own = about.read_text(encoding="utf-8") if about.is_file() else f"# {folder.name}\n"
        own = own.partition(f"\n{HEADING}")[0].rstrip()  # but for that of another graph
        write_text(about, f"{own}\n\n{section(form, found, modules)}")
    return found


def check_packages(form: str) -> None:
    """Raises `UserError` where a package is missing that a form needs, or is too old."""
    extra = "openvino" if form == "openvino" else "onnx"
    try:
        for package in PACKAGES[form]:
            importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"to={form}: {error}; pip install 'zelo[{extra}]'") from None


def loaded(folder: Path) -> Any:
    """The model, in 32 bits on the CPU."""
    from zelo.models.cross_encoder import load_cross_encoder
    from zelo.models.embedding import load_embedding_model
    from zelo.models.rerank_file import is_cross_encoder

    model: Any = (load_cross_encoder if is_cross_encoder(folder) else load_embedding_model)(folder)
    if model[0].transformer_task == "text-generation":
        raise UserError(
            f"{folder}: a decoder that answers computes all its words' logits to use two; "
            f"to=vllm makes a classifier of it"
        )
    return model.float().to("cpu").eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters say on the way: that they are new, and which steps they take."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def save_graph(model: Any, form: str, file: Path) -> None:
    """Trace the transformer of a loaded model, texts and their lengths being free, and save it."""
    from transformers.exporters import (
        OnnxConfig,
        OnnxExporter,
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
        OpenVINOConfig,
        OpenVINOExporter,
    )

    transformer = model[0].model
    transformer.config.use_cache = False  # what came before is no output of a text read once
    sample = inputs(model, transformer)
    if form == "openvino":
        made = OpenVINOExporter().export(transformer, sample, config=OpenVINOConfig(dynamic=True))
        OpenVINOExporter.save_program(made.program, file)
        return
    quantizer = None
    if form == "int8":
        from onnxruntime.quantization import QuantType

        # Seven bits of eight, so that sums of two products do not overflow on processors without
        # VNNI, where scores would be wrong with no error.
        bits = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
        quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(**bits))
    config = OnnxConfig(dynamic=True, quantizer=quantizer)
    made = OnnxExporter().export(transformer, sample, config=config)
    save_onnx(made.program, file)


def save_onnx(program: Any, file: Path) -> None:
    """Save in one file where it can be one, else with `model.onnx_data` beside it."""
    import onnx_ir

    weights = sum(value.const_value.nbytes for value in program.graph.initializers.values())
    onnx_ir.save(program, file, external_data=f"{file.name}_data" if weights > ONE_FILE else None)


def inputs(model: Any, transformer: Any) -> dict[str, torch.Tensor]:
    """Two texts or pairs of different lengths, as the transformer takes them."""
    texts = PAIRS[:2] if asks_pairs(model) else [document for _, document in PAIRS[:2]]
    known = inspect.signature(transformer.forward).parameters
    return {name: value for name, value in model.preprocess(texts).items() if name in known}


Run = Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]  # inputs to outputs, by name


class Graph(torch.nn.Module):
    """A written graph in the place of the transformer that it was made of."""

    def __init__(self, run: Run, config: Any) -> None:
        super().__init__()
        self.run, self.config = run, config

    def forward(self, **features: Any) -> dict[str, torch.Tensor]:
        """Outputs by name, as transformers' models give them."""
        return self.run(features)


def put_graph(model: Any, form: str, file: Path) -> None:
    """Have a loaded model score by a written graph, on the CPU."""
    run = (on_openvino if form == "openvino" else on_onnxruntime)(file)
    model[0].model = Graph(run, model[0].model.config)


def on_onnxruntime(file: Path) -> Run:
    """An ONNX graph on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    taken = [each.name for each in session.get_inputs()]
    given = [each.name for each in session.get_outputs()]

    def run(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        values = session.run(given, {name: features[name].numpy() for name in taken})
        return {name: torch.from_numpy(v) for name, v in zip(given, values, strict=True)}

    return run


def on_openvino(file: Path) -> Run:
    """An OpenVINO graph on the CPU, in 32 bits."""
    import openvino

    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(
        file, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **threads}
    )
    taken = [each.any_name for each in compiled.inputs]

    def run(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        values = compiled({name: features[name].numpy() for name in taken})
        return {each.any_name: torch.from_numpy(values[each]) for each in compiled.outputs}

    return run


def scores(model: Any) -> Any:
    """Of a reranker, the logits of `PAIRS`; of an embedding model, the cosines of all their queries
    with all their documents. These are read together; one text by itself, which is cut."""
    pairs = [PAIRS, [("one that is cut", LONG * model.max_seq_length)]]
    if asks_pairs(model):
        options = {"activation_fn": torch.nn.Identity(), "show_progress_bar": False}
        return np.concatenate([model.predict(some, **options) for some in pairs])
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    texts = [[list(dict.fromkeys(each)) for each in zip(*some, strict=True)] for some in pairs]
    queries = np.concatenate([model.encode_query(some, **options) for some, _ in texts])
    documents = np.concatenate([model.encode_document(some, **options) for _, some in texts])
    return (queries @ documents.T).ravel()


def section(form: str, found: ScoreDifferences, modules: Sequence[str]) -> str:
    """What the graph is, how it is loaded, and how its scores were compared."""
    backend = "openvino" if form == "openvino" else "onnx"
    runtime = "OpenVINO" if form == "openvino" else "ONNX Runtime"
    numbers = "with weights of 8 bits" if form == "int8" else "in 32 bits"
    behind = [name for name in modules if name not in ("Pooling", "Normalize")]
    own = (
        f" Behind it stands {', '.join(behind)}, which sentence-transformers runs and servers "
        f"leave out: to them this is another model."
        if behind
        else ""
    )
    return (
        f"{HEADING}{runtime}\n\n"
        f"`{FILES[form]}` is this model's transformer as a graph, {numbers}.{own} "
        f'sentence-transformers loads it by `backend="{backend}"` where optimum is installed. '
        f"{found.number} scores (of long, empty, cut and non-Latin texts among others) differ from "
        f"those of the model by {found.largest:.1e} at most and {found.mean:.1e} on average, where "
        f"they spread by {found.spread:.2g}.\n"
    )
