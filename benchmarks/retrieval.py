"""How much memory does a large corpus take to load, to index and to search?

    python benchmarks/retrieval.py [DOCUMENTS]          1,000,000 documents: some minutes

A corpus of drawn words in BEIR layout (about 60 words a document, by Zipf's law over 200,000) goes
through the stages `load` and `retrieve` (BM25, 100 queries, 100 candidates each), each in a process
of its own whose peak memory is taken. Beside it bm25s on the same texts: its index of the first
tenth, since it holds every token as an object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine, save

WORDS, LENGTH, QUERIES = 200_000, 60, 100
STAGE = """
import sys
from pathlib import Path
from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.retrieval.bm25 import BM25
from zelo.retrieval.retrieve import retrieve
what, source, data, out = sys.argv[1:]
if what == "load":
    print(load(out=Path(data), source=BeirFolder(path=source)))
elif what == "retrieve":
    bm25 = BM25(language="english")
    print(retrieve(out=Path(out), data=Path(data), retriever=bm25, top_k=100))
else:
    import bm25s
    from itertools import islice
    from zelo.data.texts import Corpus
    corpus = Corpus.at(Path(data))
    words = BM25(language="english").words_of(corpus)
    texts = islice((t for part in corpus.parts() for t in part), len(corpus) // 10)
    index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    index.index([words(text) for text in texts], show_progress=False)
"""


def main(documents: int) -> None:
    print(machine())
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "collection", documents)
        for what in ("load", "retrieve", "bm25s, a tenth"):
            for made in ("data", "out"):
                (folder / made).mkdir(exist_ok=True)
            start = time.monotonic()
            command = [sys.executable, "-c", STAGE, what.split(",")[0], *(
                str(folder / p) for p in ("collection", "data", "out"))]  # fmt: skip
            process = subprocess.Popen(command)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0, f"{what} failed"
            rows.append(
                {
                    "what": what,
                    "documents": documents // 10 if "tenth" in what else documents,
                    "seconds": round(time.monotonic() - start, 1),
                    "peak_mib": round(usage.ru_maxrss / 1024),
                }
            )
            print(rows[-1], flush=True)
        sizes = {p.name: round(p.stat().st_size / 2**20) for p in folder.rglob("*") if p.is_file()}
        print("MiB on disk:", sizes)
    save("retrieval.csv", rows)


def generate(folder: Path, documents: int) -> None:
    """Write the collection."""
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{rng.integers(26**4):05d}x{i}" for i in range(WORDS)])
    chance = 1 / np.arange(1, WORDS + 1)
    total = np.cumsum(chance / chance.sum())

    def words(n: int) -> list[str]:
        found: list[str] = vocabulary[np.searchsorted(total, rng.random(n))].tolist()
        return found

    folder.mkdir()
    with (folder / "corpus.jsonl").open("w") as file:
        for d in range(documents):
            text = " ".join(words(int(rng.integers(LENGTH // 2, 3 * LENGTH // 2))))
            file.write(json.dumps({"_id": f"d{d}", "title": "", "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w") as file:
        for q in range(QUERIES):
            file.write(json.dumps({"_id": f"q{q}", "text": " ".join(words(6))}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
