"""NDCG@10 of models whose weights lie between the start's and the trained ones', or beyond.

    python experiments/bare_corpus/between_weights.py LABELLED RUN SHARE ...

RUN is the folder of a run of `experiment=bare_corpus`, LABELLED a collection in BEIR layout with
the same documents, whose test queries are searched for. A SHARE of 0 is the start, 1 what was
trained (WiSE-FT, arXiv 2109.01903).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.data.texts import Corpus, query_texts
from zelo.distributed.trainer import LightningTrainer
from zelo.evaluation.evaluate import grades_to_evaluate, measure
from zelo.evaluation.search import search_corpus
from zelo.finished_run import FinishedRun
from zelo.models.pretrained import PretrainedModel
from zelo.store import Store
from zelo.training.bi_encoder import BiEncoder


def main(labelled: Path, run: FinishedRun, shares: list[float]) -> None:
    config = run.manifest["config"]
    pretrained = PretrainedModel(**{k: v for k, v in config["pretrained"].items() if k[0] != "_"})
    store = Store(Path(config["home"]) / "store", frozenset({"load"}))
    data = store.run(load, {}, {"source": BeirFolder(path=str(labelled))}).path
    grades = grades_to_evaluate(data, "test")
    queries = {i: text for i, text in query_texts(data, "test").items() if i in grades}
    model, corpus = BiEncoder(pretrained=pretrained), Corpus.at(data)
    mixed = SentenceTransformer(str(run.folder / "model"))
    start = SentenceTransformer(str(pretrained.locate())).state_dict()
    trained = {name: value.clone() for name, value in mixed.state_dict().items()}
    of_start: np.ndarray | None = None
    for share in shares:
        mixed.load_state_dict(
            {
                name: start[name].lerp(value, share) if value.is_floating_point() else value
                for name, value in trained.items()
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            mixed.save_pretrained(folder)
            ranking = search_corpus(model, Path(folder), queries, corpus, LightningTrainer())
        rows = measure({"mixed": ranking}, grades).to_pylist()
        values = np.array([row["value"] for row in rows if row["metric"] == "NDCG@10"])
        of_start = values if of_start is None else of_start
        gain = values - of_start
        error = gain.std() / np.sqrt(len(gain))
        print(share, len(values), f"{values.mean():.4f}", f"{gain.mean():+.4f}", f"{error:.4f}",
              sep="\t", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), FinishedRun.at(sys.argv[2]), [float(word) for word in sys.argv[3:]])
