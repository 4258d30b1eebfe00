"""In which order documents are written about: from all over the collection, not only at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zelo.data.collection import hash_share
from zelo.data.texts import Corpus
from zelo.retrieval.bm25 import Words
from zelo.seeding import stream

POOL = 20_000  # documents that are grouped, at most
VOCABULARY = 20_000
DIMENSIONS = 64
GROUP = 20  # documents of a group, about
GROUPS = 200


def in_breadth(corpus: Corpus, words: Words, seed: int) -> NDArray[np.int64]:
    """Indices of documents in an order whose every beginning is spread over the collection.

    Documents are grouped by their words (TF-IDF, its first singular vectors, k-means); groups take
    turns, and within a group a hash of its id says which document comes first. Of more than `POOL`
    documents those whose hash is lowest are taken.
    """
    lots, pool = pool_of(corpus, seed)
    group = groups(texts_at(corpus, pool), words, seed)
    order = np.lexsort((lots[pool], group))  # group by group, the lowest lot first
    sizes = np.bincount(group)
    turn = np.arange(len(pool)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return pool[order[np.lexsort((lots[pool][order], turn))]]


def neighbourhoods(corpus: Corpus, words: Words, size: int, seed: int) -> list[NDArray[np.int64]]:
    """Indices of similar documents, `size` together or a little less, in an order of
    neighbourhoods that is random. Of more than `POOL` documents those whose hash is lowest."""
    lots, pool = pool_of(corpus, seed)
    group = groups(texts_at(corpus, pool), words, seed, size)
    found = np.array_split(pool[np.lexsort((lots[pool], group))], -(-len(pool) // size))
    return [found[i] for i in stream(seed, "neighbourhoods").permutation(len(found))]


def pool_of(corpus: Corpus, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A random number of each document by its id, and the indices of at most `POOL` documents."""
    lots = np.array([hash_share(f"{seed}/{doc_id}") for doc_id in corpus.ids.to_pylist()])
    return lots, np.sort(np.argsort(lots, kind="stable")[:POOL])


def groups(texts: list[str], words: Words, seed: int, size: int = GROUP) -> NDArray[np.int64]:
    """The group (N,) of each text, of about `size` similar ones; groups without a text have no
    number."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    count = min(len(texts) // size, GROUPS)
    if count < 2 or not any(map(words, texts)):
        return np.zeros(len(texts), dtype=np.int64)
    x = TfidfVectorizer(
        analyzer=words, max_features=VOCABULARY, sublinear_tf=True, dtype=np.float32
    ).fit_transform(texts)
    if min(x.shape) > DIMENSIONS:
        x = TruncatedSVD(DIMENSIONS, n_iter=2, random_state=seed % 2**32).fit_transform(x)
    clusters = MiniBatchKMeans(count, n_init=1, batch_size=2048, random_state=seed % 2**32)
    found: NDArray[np.int64] = np.unique(
        clusters.fit_predict(normalize(x)), return_inverse=True
    )[1]  # fmt: skip
    return found


def texts_at(corpus: Corpus, indices: NDArray[np.int64]) -> list[str]:
    """Texts of documents by their indices, which rise; read part by part."""
    found: list[str] = []
    first = 0
    for part in corpus.parts():
        low, high = np.searchsorted(indices, [first, first + len(part)])
        found += [part[i - first] for i in indices[low:high].tolist()]
        first += len(part)
    return found
