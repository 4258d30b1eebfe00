"""First stages on the test collections, and what a reranker of their candidates adds.

    python experiments/first_stage/run.py COLLECTIONS [NAME ...] [--passes hybrid,bm25]

COLLECTIONS is a folder of collections in BEIR layout (NAME/corpus.jsonl ...). For each: BM25,
MiniLM (cut at 256 tokens) and both fused, by `zelo evaluate`, and MiniLM as a reranker of BM25's
hundred. Writes results.csv and ndcg.png beside this file.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure

from zelo.artifacts import read_json, read_table

HERE = Path(__file__).parent
# Collection → queries evaluated on, and NDCG@10 of BM25 as its README gives it (k1 = 0.9, b = 0.4,
# Porter stemming, Lucene's stop words)
PUBLISHED = {
    "scifact": ("test", 0.676),
    "cranfield": ("all", 0.352),
    "med": ("test", 0.671),
    "cacm": ("test", 0.466),
    "cosqa": ("test", 0.361),
    "cuad": ("all", 0.487),
}
PASSES = {"hybrid": [], "bm25": ["retriever=bm25", "reranker=[embedding]",
                                 "rerankers.embedding.max_tokens=256"]}  # fmt: skip


def main(collections: Path, names: list[str], passes: list[str]) -> None:
    rows = []
    for name in names or PUBLISHED:
        split, published = PUBLISHED[name]
        for first in passes:
            options = PASSES[first]
            out = Path("outputs") / "first_stage" / f"{name}-{first}"
            command = [str(Path(sys.executable).parent / "zelo"), "evaluate", "data=beir",
                       f"data.path={collections / name}", f"evaluation.split={split}",
                       f"out={out}", *options]  # fmt: skip
            print(*command[1:], flush=True)
            subprocess.run(command, check=True)
            queries = read_json(out / "evaluation.json")["queries"]
            tests = {t["metric"]: t for t in read_json(out / "comparisons.json")}
            for row in read_table(out, "metrics").to_pylist():
                system = row["system"] if row["system"] != "embedding" else "bm25 + MiniLM"
                if first == "bm25" and row["system"] in ("bm25", "ceiling"):
                    continue  # as in the first pass, and the ceiling of BM25's candidates
                test = tests.get(row["metric"], {}) if system == "bm25 + MiniLM" else {}
                rows.append({"collection": name, "split": split, "queries": queries,
                             "system": system, "metric": row["metric"],
                             "value": f"{row['value']:.4f}", "low": f"{row['low']:.4f}",
                             "high": f"{row['high']:.4f}",
                             "gain_over_bm25_p": f"{test['p_value']:.4f}" if test else "",
                             "published": published if (system, row["metric"]) ==
                                          ("bm25", "NDCG@10") else ""})  # fmt: skip
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    table(rows)
    draw(rows)


def table(rows: list[dict[str, object]]) -> None:
    """The README's table: NDCG@10 with intervals."""
    systems = [s for s in ("bm25", "dense", "hybrid", "bm25 + MiniLM", "ceiling")
               if any(row["system"] == s for row in rows)]  # fmt: skip
    print("| collection | queries | published BM25 |", " | ".join(systems), "|")
    print("|---" * (3 + len(systems)) + "|")
    for name in dict.fromkeys(row["collection"] for row in rows):
        of = [r for r in rows if r["collection"] == name and r["metric"] == "NDCG@10"]
        cells = [f"{r['value']:.5} [{r['low']:.5}, {r['high']:.5}]" for s in systems
                 for r in of if r["system"] == s]  # fmt: skip
        published = next(r["published"] for r in of if r["published"])
        print(f"| {name} | {of[0]['queries']} {of[0]['split']} | {published} |",
              " | ".join(cells), "|")  # fmt: skip


def draw(rows: list[dict[str, object]]) -> None:
    """NDCG@10 of each system on each collection."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(row["collection"] for row in rows))
    for shift, system in enumerate(("bm25", "dense", "hybrid", "bm25 + MiniLM")):
        of = {
            r["collection"]: r for r in rows if r["system"] == system and r["metric"] == "NDCG@10"
        }
        if not of:
            continue
        at = [i + (shift - 1.5) * 0.18 for i, name in enumerate(names) if name in of]
        value = [float(str(of[name]["value"])) for name in names if name in of]
        low = [v - float(str(of[n]["low"])) for v, n in zip(value, of, strict=True)]
        high = [float(str(of[n]["high"])) - v for v, n in zip(value, of, strict=True)]
        axes.errorbar(at, value, yerr=[low, high], fmt="o", capsize=2, label=system)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("NDCG@10, 95 % interval")
    axes.legend(ncols=4, fontsize=8)
    figure.savefig(HERE / "ndcg.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("collections", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--passes", type=lambda text: text.split(","), default=list(PASSES))
    given = parser.parse_args()
    main(given.collections, given.names, given.passes)
