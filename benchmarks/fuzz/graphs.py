"""Comparison graphs, fusion and BM25."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from benchmarks.fuzz.evaluation import NUMBERS
from benchmarks.fuzz.inputs import expect
from zelo.comparison import graphs
from zelo.comparison.adaptive import AdaptiveSampler, Closest, Informative
from zelo.data.texts import Corpus
from zelo.retrieval.bm25 import BM25
from zelo.retrieval.fusion import fused, reciprocal_ranks, unit_scores
from zelo.retrieval.ranking import Hits


def draw_graph(rng: random.Random) -> tuple[str, dict[str, int], int, int]:
    """A sampler, its options, a number of documents and a seed."""
    n = rng.choice((0, 1, 2, 3, 4, 5, 8, 13, 30))
    name, keys = rng.choice(
        (("Cycles", ("cycles",)), ("Regular", ("degree",)), ("RandomPairs", ("comparisons",)),
         ("Bipartite", ("anchors",)), ("AllPairs", ()), ("TopPairs", ("pairs", "k_min", "k_max")))
    )  # fmt: skip
    low = 2 if name == "Regular" else 1
    most = 14 if name in ("Cycles", "Regular") else 200
    options = {key: max(rng.choice((1, 2, 3, 7, n, most)), low) for key in keys}
    options |= {key: max(options[key], 2) for key in keys if key.startswith("k_")}
    return name, {k: min(v, most) for k, v in options.items()}, n, rng.getrandbits(64)


def check_graph(example: tuple[str, dict[str, int], int, int]) -> None:
    """Distinct pairs of documents, as many and as connected as the sampler says."""
    name, options, n, seed = example
    edges = getattr(graphs, name)(**options).edges(n, np.random.default_rng(seed))
    expect(edges.dtype == np.int64 and edges.shape == (len(edges), 2), "not edges", edges)
    pairs = {(min(i, j), max(i, j)) for i, j in edges.tolist()}
    expect(len(pairs) == len(edges), "a pair twice", edges)
    expect(all(0 <= i < j < n for i, j in pairs), "no pair", edges)
    all_of, size = n * (n - 1) // 2, next(iter(options.values()), 0)
    left = min(size, n // 2)
    wanted = {"RandomPairs": min(size, all_of), "TopPairs": min(size, all_of), "AllPairs": all_of,
              "Bipartite": left * (n - left)}.get(name)  # fmt: skip
    expect(wanted is None or len(edges) == wanted, "not as many as asked", len(edges), wanted)
    if name in ("Cycles", "Regular", "Bipartite", "AllPairs") and n > 1:
        reached, todo = {0}, [0]
        near: dict[int, list[int]] = {}
        for i, j in pairs:
            near.setdefault(i, []).append(j)
            near.setdefault(j, []).append(i)
        while todo:
            new = set(near.get(todo.pop(), ())) - reached
            reached |= new
            todo += new
        expect(len(reached) == n, "not connected", edges)
        if name == "Regular":
            degree = min(size + n * size % 2, n - 1)
            expect(all(len(near[i]) == degree for i in range(n)), "not regular", edges)


def draw_hits(rng: random.Random) -> tuple[Any, ...]:
    """Two rankings of a query with scores of all sizes, a share and a k."""
    rows = []
    for _ in range(2):
        places = rng.sample(range(8), rng.randrange(6))
        scores = sorted((rng.choice((*NUMBERS, rng.random())) for _ in places), reverse=True)
        rows.append((places, scores))
    return (*rows, rng.choice((0.0, 0.3, 0.5, 1.0)), rng.randrange(1, 9))


def check_fusion(example: tuple[Any, ...]) -> None:
    """Fused scores are sums by definition, falling; worth is in [0, 1]."""
    *rows, weight, k = example
    rankings = []
    for places, scores in rows:
        hits = Hits.empty(1, 6)
        hits.doc_QK[0, : len(places)], hits.score_QK[0, : len(places)] = places, scores
        rankings.append(hits)
    shares = (1 - weight, weight)
    for worth in ([reciprocal_ranks(h) for h in rankings], [unit_scores(h) for h in rankings]):
        expect(all(((w >= 0) & (w <= 1)).all() for w in worth), "worth out of range", worth)
        best = fused(rankings, worth, shares, k)
        sums: dict[int, float] = {}
        for (places, _), values, share in zip(rows, worth, shares, strict=True):
            for place, value in zip(places, values[0].tolist(), strict=False):
                sums[place] = sums.get(place, 0.0) + share * value
        found = [p for p in best.doc_QK[0].tolist() if p >= 0]
        expect(len(found) == min(k, len(sums)), "another number of hits", found, sums)
        score = best.score_QK[0, : len(found)].tolist()
        expect(score == sorted(sums.values(), reverse=True)[:k], "not the best sums", score, sums)


def draw_corpus(rng: random.Random) -> tuple[list[str], list[str], float, float, str]:
    """Documents and queries of few words in several scripts."""
    words = ("apple", "Apples", "the", "river", "naïve", "नमस्ते", "漢字", "テスト", "ไทย", "x_y",
             "fooBar", "\0", "e\u0301a", "a", "𝕏𝕏", "\u200d\u200d", "١٢")  # fmt: skip

    def text() -> str:
        return rng.choice((" ", " ", "")).join(rng.choices(words, k=rng.randrange(5)))

    language = rng.choice(("none", "english", "german"))
    documents = [text() for _ in range(rng.randrange(1, 6))]
    return (
        documents,
        [text(), text()],
        rng.choice((0.0, 0.9, 5.0)),
        rng.choice((0.0, 0.4, 1.0)),
        language,
    )


def check_bm25(example: tuple[list[str], list[str], float, float, str]) -> None:
    """Scores are Lucene's formula, and all documents that share a word are found."""
    documents, asked, k1, b, language = example
    corpus = Corpus.of({str(d): text for d, text in enumerate(documents)})
    model = BM25(k1=k1, b=b, language=language, split_names=len(documents) % 2 == 0)
    hits = model.search(dict(enumerate(asked)), corpus, len(documents))["bm25"]  # type: ignore[arg-type]
    words = model.words_of(corpus)
    bags = [words(text) for text in documents]
    mean = max(sum(map(len, bags)) / len(bags), 1e-9)
    for q, text in enumerate(asked):
        wanted = np.zeros(len(bags))
        for word in words(text):
            n = sum(word in bag for bag in bags)
            for d, bag in enumerate(bags):
                if f := bag.count(word):
                    idf = math.log1p((len(bags) - n + 0.5) / (n + 0.5))
                    wanted[d] += idf * f / (f + k1 * (1 - b + b * len(bag) / mean))
        found = {int(p): s for p, s in zip(hits.doc_QK[q], hits.score_QK[q], strict=True) if p >= 0}
        scores = [found.get(d, 0.0) for d in range(len(bags))]
        expect(np.allclose(scores, wanted, rtol=1e-5), "not the formula's scores", scores, wanted)


def draw_rounds(rng: random.Random) -> tuple[type[AdaptiveSampler], int, int, int, int]:
    """A sampler that learns, its budget and rounds, a number of documents and a seed."""
    budget = rng.choice((1, 5, 30, 400))
    return (
        rng.choice((Closest, Informative)), budget, rng.randrange(2, 7), rng.randrange(2, 21),
        rng.getrandbits(64),
    )  # fmt: skip


def check_rounds(example: tuple[type[AdaptiveSampler], int, int, int, int]) -> None:
    """No pair twice, never beyond the budget, the same again."""
    kind, budget, rounds, n, seed = example
    draw = np.random.default_rng(seed)
    said = draw.choice((draw.random((n, n)), draw.integers(0, 2, (n, n)), np.full((n, n), 0.5)))
    said[draw.random((n, n)) < draw.choice((0, 0, 0.3))] = np.nan  # not answered
    sampler, found = kind(comparisons=budget, rounds=rounds), []
    for _ in range(2):
        chance = np.random.default_rng(seed)
        edges = sampler.edges(n, chance)
        for left in range(rounds - 1, 0, -1):
            p = said[edges[:, 0], edges[:, 1]]
            edges = np.concatenate([edges, sampler.next_edges(n, edges, p, left, chance)])
        found.append(edges)
    expect(len(edges) == min(budget, n * (n - 1) // 2), "not the budget", len(edges), example)
    expect(len(set(map(frozenset, edges.tolist()))) == len(edges), "a pair twice", edges, example)
    expect(np.array_equal(*found), "other pairs again", example)
