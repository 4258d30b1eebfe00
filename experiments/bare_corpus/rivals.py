"""Two usual ways to train an embedding model on written queries, by sentence-transformers.

    python experiments/bare_corpus/rivals.py RUN RATED OUT

RUN is the folder of a run of `experiment=bare_corpus`: both rivals get its queries, candidates,
start and number of steps, and are evaluated on its test queries. `mnrl` takes the document that a
query was written from as its answer (MultipleNegativesRankingLoss, with another candidate as a
hard negative). `margin_mse` is GPL's loss: the margin between that document and another candidate
is that of the judges' Elos, from RATED, a run with `queries.source_is_candidate=true`. Both search
alone and in a sum with BM25, by the weight of the run's own model. Writes OUT, a CSV of NDCG@10 by
system and query; models lie in the folder of that name, and one that is there by as many steps and
the same seed is not trained again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    MarginMSELoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import batch_to_device, pairwise_cos_sim
from transformers import get_linear_schedule_with_warmup

from zelo.artifacts import read_json, read_table, write_csv
from zelo.data.texts import Corpus, document_texts, query_texts, sources_of_written
from zelo.distributed.trainer import LightningTrainer
from zelo.evaluation.evaluate import FUSED, SEARCH, grades_to_evaluate, measure
from zelo.evaluation.search import LEXICAL, search_corpus
from zelo.finished_run import FinishedRun
from zelo.models.exporting import written_whole
from zelo.models.fusion import FUSION
from zelo.models.pretrained import PretrainedModel
from zelo.retrieval.fusion import fused_by_score
from zelo.retrieval.ranking import candidates_from
from zelo.retrieval.retrieve import RANKED, first_stage_of
from zelo.training.bi_encoder import BiEncoder

PAIRS = 32  # queries of a step, each with two documents: 64, where a step of the recipe reads 48
LENGTH, RATE = 256, 2e-5  # as long as the recipe's; sentence-transformers' own rate
CANDIDATES = 16
PART = 8  # texts that are read together

Example = tuple[str, str, str, float]  # query, source document, negative, margin


def examples_of(run: FinishedRun, rated: FinishedRun, rng: random.Random) -> list[Example]:
    """One of each written query whose source was rated."""
    data = run.collection_folder()
    texts, documents = query_texts(data, "train"), document_texts(data)
    candidates = candidates_from(read_table(run.last("retrieve"), "candidates"))
    elos: dict[str, dict[str, float]] = {}
    for row in read_table(rated.ratings_folder(), "ratings").to_pylist():
        elos.setdefault(row["query_id"], {})[row["doc_id"]] = row["elo"]
    found = []
    for query_id, source in sources_of_written(data).items():
        elo = elos.get(query_id, {})
        negatives = [d for d in candidates[query_id][:CANDIDATES] if d in elo and d != source]
        if source in elo and negatives and query_id in texts:
            other = rng.choice(negatives)
            margin = elo[source] - elo[other]
            found.append((texts[query_id], documents[source], documents[other], margin))
    return found


def batches(examples: Sequence[Example], steps: int, rng: random.Random) -> Iterator[list[Example]]:
    """So many batches in which no document is twice a source."""
    size = min(PAIRS, len({example[1] for example in examples}))
    waiting: list[Example] = []
    for _ in range(steps):
        batch: dict[str, Example] = {}
        later = []
        while len(batch) < size:
            if not waiting:
                waiting = rng.sample(examples, len(examples))
            example = waiting.pop()
            if example[1] in batch:
                later.append(example)
            else:
                batch[example[1]] = example
        waiting += later
        yield list(batch.values())


def train(
    start: Path,
    loss: str,
    examples: Sequence[Example],
    steps: int,
    seed: int,
    out: Path,
    rate: float = RATE,
) -> None:
    """Train the start by one of the losses and save it."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = SentenceTransformer(str(start))
    model.max_seq_length = LENGTH
    scale = scale_of(model, examples)
    criterion: Any = (
        MultipleNegativesRankingLoss(model)
        if loss == "mnrl"
        else MarginMSELoss(model, similarity_fct=lambda a, b: scale * pairwise_cos_sim(a, b))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    for batch in batches(examples, steps, rng):
        margins = torch.tensor([example[3] for example in batch], device=model.device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            columns = [embed(model, [example[i] for example in batch]) for i in range(3)]
        value = criterion.compute_loss_from_embeddings(columns, margins)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(str(out))


def embed(model: SentenceTransformer, texts: Sequence[str]) -> torch.Tensor:
    """Embeddings (texts, dim) in float32, by parts of like length: together, padding takes most of
    a step's time."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    device = model.device
    part = PART if device.type == "cpu" else len(texts)
    parts = [
        model(batch_to_device(model.preprocess([texts[i] for i in order[at : at + part]]), device))[
            "sentence_embedding"
        ]
        for at in range(0, len(order), part)
    ]
    places = torch.tensor(order, device=device).argsort()
    return torch.cat(parts).float()[places]


def scale_of(model: SentenceTransformer, examples: Sequence[Example]) -> float:
    """Factor of the cosine with which the start's margins spread as the judges' do."""
    some = examples[:200]
    q, a, b = (
        model.encode([example[i] for example in some], convert_to_tensor=True) for i in range(3)
    )
    margins = torch.tensor([example[3] for example in some], device=q.device)
    return float(margins.std() / (pairwise_cos_sim(q, a) - pairwise_cos_sim(q, b)).std())


def main(run: FinishedRun, rated: FinishedRun, out: Path) -> None:
    config = run.manifest["config"]
    (trained,) = [stage for stage in run.stages if stage["stage"] == "train"]
    steps, seed = trained["counts"]["steps"], config["seed"]
    pretrained = PretrainedModel(**{k: v for k, v in config["pretrained"].items() if k[0] != "_"})
    start = pretrained.locate()
    rng = random.Random(seed)
    examples = examples_of(run, rated, rng)
    print(f"{len(examples)} examples, {steps} steps", flush=True)
    split = config["evaluation"]["split"]
    data = run.collection_folder()
    grades = grades_to_evaluate(data, split)
    queries = {i: text for i, text in query_texts(data, split).items() if i in grades}
    model, corpus = BiEncoder(pretrained=pretrained), Corpus.at(data)
    lexical = first_stage_of(run.last("retrieve"), queries)[LEXICAL]
    weight = read_json(run.last("fuse") / FUSION)["search_weight"]
    found = {}
    for loss in ("mnrl", "margin_mse"):
        folder = out.with_suffix("") / f"{loss}-{steps}-{seed}"
        if not folder.exists():
            with written_whole(folder) as written:
                train(start, loss, examples, steps, seed, written)
        ranking = search_corpus(model, folder, queries, corpus, LightningTrainer())
        found[f"{loss}{SEARCH}"] = ranking
        fused = fused_by_score(lexical, ranking, weight, RANKED)
        found[f"{loss}{SEARCH}{FUSED}{LEXICAL}"] = fused
    rows = [r for r in measure(found, grades).to_pylist() if r["metric"] == "NDCG@10"]
    write_csv(out, ["system", "query", "NDCG@10"],
              [[r["system"], r["query_id"], r["value"]] for r in rows])  # fmt: skip
    for system in found:
        values = [r["value"] for r in rows if r["system"] == system]
        print(system, round(sum(values) / len(values), 4), flush=True)


if __name__ == "__main__":
    main(FinishedRun.at(sys.argv[1]), FinishedRun.at(sys.argv[2]), Path(sys.argv[3]))
