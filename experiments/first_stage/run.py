"""First stages on the test collections.

    python experiments/first_stage/run.py COLLECTIONS [NAME ...]

COLLECTIONS is a folder of collections in BEIR layout (NAME/corpus.jsonl ...). For each: BM25,
MiniLM (cut at 256 tokens) and both fused, by `zelo evaluate`. Writes results.csv, table.csv and
ndcg.png beside this file.
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
# Collection → domain, queries evaluated on, and NDCG@10 of BM25 as its README gives it (k1 = 0.9,
# b = 0.4, Porter stemming, Lucene's stop words)
PUBLISHED = {
    "scifact": ("STEM", "test", 0.676),
    "cranfield": ("STEM", "all", 0.352),
    "med": ("medical", "test", 0.671),
    "cacm": ("STEM", "test", 0.466),
    "cosqa": ("code", "test", 0.361),
    "cuad": ("legal", "all", 0.487),
}


def zelo(*arguments: str) -> None:
    """Run a command of zelo."""
    print("zelo", *arguments, flush=True)
    subprocess.run([str(Path(sys.executable).parent / "zelo"), *arguments], check=True)


def main(collections: Path, names: list[str]) -> None:
    rows, folders = [], []
    for name in names or PUBLISHED:
        domain, split, published = PUBLISHED[name]
        out = Path("outputs") / "first_stage" / name
        zelo("evaluate", "data=beir", f"data.path={collections / name}", f"domain={domain}",
             f"evaluation.split={split}", f"out={out}")  # fmt: skip
        folders.append(str(out))
        queries = read_json(out / "evaluation.json")["queries"]
        for row in read_table(out, "metrics").to_pylist():
            known = (row["system"], row["metric"]) == ("bm25", "NDCG@10")
            rows.append({"collection": name, "split": split, "queries": queries,
                         "system": row["system"], "metric": row["metric"],
                         "value": f"{row['value']:.4f}", "low": f"{row['low']:.4f}",
                         "high": f"{row['high']:.4f}",
                         "published": published if known else ""})  # fmt: skip
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    table(rows)
    draw(rows)
    zelo("table", *folders, "baseline=bm25", f"csv={HERE / 'table.csv'}")


def table(rows: list[dict[str, object]]) -> None:
    """The README's table: NDCG@10 with intervals."""
    systems = ["bm25", "dense", "hybrid", "ceiling"]
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
    for shift, system in enumerate(("bm25", "dense", "hybrid")):
        of = {
            r["collection"]: r for r in rows if r["system"] == system and r["metric"] == "NDCG@10"
        }
        at = [i + (shift - 1) * 0.18 for i, name in enumerate(names) if name in of]
        value = [float(str(of[name]["value"])) for name in names if name in of]
        low = [v - float(str(of[n]["low"])) for v, n in zip(value, of, strict=True)]
        high = [float(str(of[n]["high"])) - v for v, n in zip(value, of, strict=True)]
        axes.errorbar(at, value, yerr=[low, high], fmt="o", capsize=2, label=system)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("NDCG@10, 95 % interval")
    axes.legend(ncols=3, fontsize=8)
    figure.savefig(HERE / "ndcg.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("collections", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    main(given.collections, given.names)
