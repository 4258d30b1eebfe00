"""What each weight of a search in its sum with BM25 comes to, by judges and by labels.

    python experiments/bare_corpus/weights.py RUN ...

RUN is the folder of a run of `experiment=bare_corpus`. Of the starting and of the trained model's
search, for the weights 0, 0.1, ... 1: NDCG@10 on held-out judged queries, from which the weight was
chosen, and on the labelled queries that the run was evaluated on.
"""

from __future__ import annotations

import sys
from statistics import mean

from zelo.artifacts import read_json, read_table
from zelo.evaluation.evaluate import grades_to_evaluate, measure
from zelo.evaluation.fuse import WEIGHTS
from zelo.evaluation.search import LEXICAL
from zelo.finished_run import FinishedRun
from zelo.models.fusion import FUSION
from zelo.retrieval.fusion import fused_by_score
from zelo.retrieval.ranking import Ranking
from zelo.retrieval.retrieve import RANKED, first_stage_of

SYSTEMS = {"start": ("start-search", "start_search_weight"),
           "trained": ("zelo-search", "search_weight")}  # fmt: skip


def by_labels(run: FinishedRun, system: str) -> list[float]:
    """NDCG@10 of the sum of a system's search and BM25, by weight."""
    split = run.manifest["config"]["evaluation"]["split"]
    grades = grades_to_evaluate(run.collection_folder(), split)
    lexical = first_stage_of(run.last("retrieve"), list(grades))[LEXICAL]
    search: Ranking = {}
    for row in read_table(run.last("evaluate"), "rankings").to_pylist():
        if row["system"] == system:
            search.setdefault(row["query_id"], []).append((row["doc_id"], row["score"]))
    found = []
    for weight in WEIGHTS:
        summed = {"sum": fused_by_score(lexical, search, weight, 2 * RANKED)}
        rows = measure(summed, grades).to_pylist()
        found.append(mean(row["value"] for row in rows if row["metric"] == "NDCG@10"))
    return found


def main(folders: list[str]) -> None:
    print("run", "search", "queries", *WEIGHTS, "chosen", sep="\t")
    for folder in folders:
        run = FinishedRun.at(folder)
        fusion = read_json(run.last("fuse") / FUSION)
        for name, (system, weight) in SYSTEMS.items():
            judged = fusion["ndcg_at_10"][weight].values()
            for queries, values in (("judged", judged), ("labelled", by_labels(run, system))):
                numbers = (f"{value:.3f}" for value in values)
                print(run.folder.name, name, queries, *numbers, fusion[weight], sep="\t")


if __name__ == "__main__":
    main(sys.argv[1:])
