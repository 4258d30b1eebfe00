"""How does a distilled pairwise model's agreement with the ensemble grow? (the paper's figure 8)

    python experiments/pairwise/run.py [OVERRIDE ...]

Distils the ensemble into models of 2, 4 and 6 layers from 100 to 1,600 judged pairs, one of each
query, and into the largest from as many pairs of fewer queries; agreement is measured on queries
that none learned from. Writes results.csv and agreement.png beside this file; what is done already
is not done again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from zelo.artifacts import read_json, read_table, write_csv, write_json, write_table
from zelo.data.texts import document_texts, query_texts
from zelo.evaluation.assess import mean_with_interval
from zelo.launch import composed
from zelo.models.pairwise import PairwiseCrossEncoder
from zelo.models.pretrained import PretrainedModel
from zelo.rating.preferences import average
from zelo.seeding import stream
from zelo.training.distil import distil
from zelo.training.loggers import Csv, Tracking
from zelo.training.pairwise_module import PairwiseModule

HERE, OUT = Path(__file__).parent, Path("outputs") / "pairwise"
DATA = ["experiment=quickstart", "distil=on", "data.train_queries=2000", "data.dev_queries=100",
        "data.test_queries=100", "judge.vote=sign", "distil.model.max_query_length=24",
        "distil.model.max_length=96"]  # fmt: skip
LAYERS = (2, 4, 6)
PAIRS = (100, 400, 1600)
PER_QUERY = (1, 4, 16)  # of 1,600 pairs
HELD_OUT, ASKED = 350, 4  # queries, and pairs of each, that agreement is measured on


def judged(pairs: int) -> tuple[Path, Path]:
    """The collection, and judgments of so many pairs of each query."""
    folder = OUT / f"judged-{pairs}"
    if not (folder / "manifest.json").is_file():
        words = ["run", *DATA, f"distil.sampler.pairs={pairs}", f"hydra.run.dir={folder}",
                 "stages=[load,retrieve,compare,judge]"]  # fmt: skip
        subprocess.run([str(Path(sys.executable).parent / "zelo"), *words], check=False)
    stages = {s["label"]: Path(s["path"]) for s in read_json(folder / "manifest.json")["stages"]}
    return stages["load"], stages["judge (the ensemble)"]


def shallow(weights: PretrainedModel, layers: int) -> PretrainedModel:
    """The starting model with its lowest `layers` layers alone."""
    from transformers import AutoModel, AutoTokenizer

    folder = OUT / f"layers-{layers}"
    if not (folder / "config.json").is_file():
        start = str(weights.locate())
        AutoModel.from_pretrained(start, num_hidden_layers=layers).save_pretrained(folder)
        AutoTokenizer.from_pretrained(start).save_pretrained(folder)
    return PretrainedModel(name=weights.name, path=str(folder))


def agreement(
    model: PairwiseCrossEncoder, data: Path, judgments: Path, queries: list[str]
) -> dict[str, Any]:
    """Share of the ensemble's unanimous choices that a model shares, over queries."""
    said = average(read_table(judgments, "judgments"), "sign")
    texts, documents = query_texts(data), document_texts(data, {*said.doc_a, *said.doc_b})
    held = set(queries)
    rows = [
        (q, a, b, p)
        for q, a, b, p, unanimous in zip(said.query_ids, said.doc_a, said.doc_b, said.p.tolist(),
                                         said.unanimous.tolist(), strict=True)
        if unanimous and q in held
    ]  # fmt: skip
    p = model.eval().preference([(texts[q], documents[a], documents[b]) for q, a, b, _ in rows])
    right: dict[str, list[float]] = {}
    for (q, _, _, wanted), found in zip(rows, p.tolist(), strict=True):
        right.setdefault(q, []).append(float((wanted > 0.5) == (found > 0.5)))
    return {
        **mean_with_interval([float(np.mean(v)) for v in right.values()], 0),
        "pairs": len(rows),
    }


def main() -> None:
    asked: Any = composed("config", DATA)
    data, many = judged(ASKED)
    order = sorted(query_texts(data, "train"))
    order = [order[i] for i in stream(0, "held out").permutation(len(order))]
    held, learning = order[:HELD_OUT], order[HELD_OUT:]
    arms = [(n, pairs, 1) for n in LAYERS for pairs in (0, *PAIRS)]
    arms += [(max(LAYERS), max(PAIRS), per_query) for per_query in PER_QUERY[1:]]
    lines = []
    for layers, pairs, per_query in arms:
        out = OUT / f"{layers}-{pairs}-{per_query}"
        kept = out / "agreement.json"
        if not kept.is_file():
            out.mkdir(parents=True, exist_ok=True)
            options = asked.distil.model.model_copy(
                update={"pretrained": shallow(asked.pretrained, layers)}
            )
            began = time.monotonic()
            if pairs:
                _, judgments = judged(per_query)
                rows = read_table(judgments, "judgments")
                some = learning[: pairs // per_query]
                (out / "some").mkdir(exist_ok=True)
                known = pc.is_in(rows["query_id"], pa.array(some, pa.string()))
                write_table(out / "some", "judgments", rows.filter(known))
                (out / "distil").mkdir(exist_ok=True)
                distil(
                    out=out / "distil", data=data, model=options, training=asked.distil.training,
                    trainer=asked.trainer, vote="sign", seed=0, judgments=out / "some",
                    logger=Tracking(tracker=Csv(), folder=out),
                )  # fmt: skip
                model = PairwiseCrossEncoder.load(out / "distil" / "model")
            else:
                model = PairwiseModule(options).model
            seconds = time.monotonic() - began
            found = agreement(model, data, many, held)
            write_json(kept, {**found, "seconds": seconds})
        found = read_json(kept)
        numbers = [f"{found[name]:.4f}" for name in ("value", "low", "high")]
        lines.append(
            [layers, pairs, per_query, *numbers, found["pairs"], f"{found['seconds']:.0f}"]
        )
        print(*lines[-1], flush=True)
    print(f"the judges are unanimous in {unanimous(many):.1%} of the pairs")
    header = ["layers", "pairs", "pairs per query", "agreement", "low", "high", "unanimous pairs",
              "seconds of training"]  # fmt: skip
    write_csv(HERE / "results.csv", header, lines)
    draw(lines)


def unanimous(judgments: Path) -> float:
    """Share of the pairs that all judges decided alike."""
    return float(average(read_table(judgments, "judgments"), "sign").unanimous.mean())


def draw(lines: list[list[Any]]) -> None:
    """Agreement over pairs, a line per size; stars: as many pairs of fewer queries."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    ticks = [PAIRS[0] / 4, *PAIRS]
    for n in LAYERS:
        rows = [line for line in lines if line[0] == n and line[2] == 1]
        x = [pairs or ticks[0] for _, pairs, *_ in rows]
        value, low, high = np.array([[float(v) for v in line[3:6]] for line in rows]).T
        axes.errorbar(
            x, value, [value - low, high - value], fmt="o-", capsize=3, label=f"{n} layers"
        )
    for _, pairs, per_query, value, *_ in (line for line in lines if line[2] > 1):
        axes.plot(pairs, float(value), "k*")
        axes.annotate(f"{per_query} per query", (pairs, float(value)), (-6, -3), ha="right",
                      textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(ticks, ["none", *map(str, PAIRS)])
    axes.minorticks_off()
    axes.set(xlabel="judged pairs learned from, one of each query",
             ylabel="agreement with the unanimous ensemble")  # fmt: skip
    axes.legend(frameon=False)
    figure.savefig(HERE / "agreement.png", dpi=150)


if __name__ == "__main__":
    DATA += sys.argv[1:]
    main()
