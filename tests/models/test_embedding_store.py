"""Embeddings that are kept: nothing is embedded twice, whoever is killed, removes or writes too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.modules.module import register_module_forward_pre_hook

from zelo.artifacts import read_table
from zelo.cli import parsed
from zelo.launch import composed
from zelo.models import embedding_store
from zelo.models.embedding import embed, load_embedding_model
from zelo.models.embedding_store import EmbeddingStore, Shelf, embeddings_kept, hashes_of, segments

TEXTS = [f"{word} {n}" for word in ("apples", "rivers", "a much longer text about storms")
         for n in range(9)]  # fmt: skip


@contextmanager
def texts_read() -> Iterator[list[int]]:
    """How many texts each forward pass of an embedding model reads meanwhile."""
    sizes: list[int] = []

    def note(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, SentenceTransformer):
            sizes.append(len(inputs[0]["input_ids"]))

    hook = register_module_forward_pre_hook(note)
    try:
        yield sizes
    finally:
        hook.remove()


def embedded(model: Any, texts: list[str], task: str = "document") -> tuple[torch.Tensor, int]:
    """Embeddings, and how many texts were read for them."""
    with texts_read() as sizes:
        found = embed(model, texts, 4, task, "texts")
    return found, sum(sizes)


def test_a_home_embeds_a_text_once(
    beir_folder: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluation(home: str, *more: str) -> tuple[Path, int]:
        words = ["data=beir", f"data.path={beir_folder}", f"pretrained.path={tiny_model}",
                 "reranker=[embedding]", "evaluation.resamples=100", f"home={tmp_path / home}",
                 f"out={tmp_path / home / 'found'}", *more]  # fmt: skip
        with texts_read() as sizes:
            out: Path = composed("evaluate", words).run(lambda line: None)
        return out, sum(sizes)

    alone, read_alone = evaluation("alone", "top_k=4", "embeddings_gib=0")
    assert not (tmp_path / "alone" / "embeddings").exists()
    first, read = evaluation("home", "top_k=4")
    assert read == 32 + 16 < read_alone  # documents and queries, all read by retrieval
    for name, exact in (("first_stage", True), ("rankings", False)):
        kept, anew = (
            read_table(next((tmp_path / home / "store").glob(f"*/*/{name}.parquet")).parent, name)
            for home in ("home", "alone")
        )
        assert kept.drop_columns("score") == anew.drop_columns("score")
        gap = np.abs(kept["score"].to_numpy() - anew["score"].to_numpy()).max()
        assert gap <= (0 if exact else 1e-6)  # other texts are beside it in a batch
    assert read_table(first, "per_query") == read_table(alone, "per_query")

    more, read = evaluation("home", "top_k=6", "rerankers.embedding.batch_size=3")
    assert read == 0
    assert len(read_table(more, "metrics")) == len(read_table(first, "metrics"))

    for words, said in (([], "texts"), (["remove=true"], "removed: "), ([], "0.0 MiB")):
        given = parsed(["clean", f"home={tmp_path / 'home'}", *words])
        assert not given.command(given)
        assert said in capsys.readouterr().out
    _, read = evaluation("home", "top_k=5")
    assert read == 48


def test_what_changes_the_numbers_is_told_apart(tiny_model: Path, tmp_path: Path) -> None:
    def loaded(length: int | None = None, pooling: str | None = None) -> Any:
        return load_embedding_model(tiny_model, length, pooling)

    with embeddings_kept(tmp_path, 1.0):
        whole, read = embedded(loaded(), [*TEXTS, *TEXTS, ""])
        assert read == len(TEXTS) + 1
        assert torch.equal(whole[: len(TEXTS)], whole[len(TEXTS) : -1])
        again, read = embedded(loaded(), [*TEXTS[::-1], "new"])
        assert (torch.equal(again[:-1], whole[: len(TEXTS)].flip(0)), read) == (True, 1)
        assert embedded(loaded(), [])[0].shape == (0, 32)

        prompted, changed, half = loaded(), loaded(), loaded()
        prompted.prompts = {**prompted.prompts, "document": "read: "}
        with torch.no_grad():
            next(changed.parameters()).mul_(2.0)
        half.bfloat16()
        for other in (loaded(5), loaded(pooling="cls"), prompted, changed, half):
            assert embedded(other, TEXTS)[1] == len(TEXTS)
        assert embedded(changed, TEXTS)[1] == len(TEXTS)  # not as it was loaded: never kept
        assert embedded(loaded(), TEXTS, "query")[1] == len(TEXTS)
        with torch.autocast("cpu", torch.bfloat16):
            assert embedded(loaded(), TEXTS)[1] == len(TEXTS)
        assert embedded(loaded(), TEXTS)[1] == 0
    assert embedded(loaded(), TEXTS)[1] == len(TEXTS)  # no home


def test_a_stop_loses_little_and_changes_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_store, "KEEP_EVERY", 0.0)
    model = load_embedding_model(tiny_model)
    calm = embedded(model, TEXTS)[0]
    passes = 0

    def stop(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal passes
        passes += isinstance(module, SentenceTransformer)
        if passes == 4:
            raise KeyboardInterrupt

    with embeddings_kept(tmp_path, 1.0):
        model = load_embedding_model(tiny_model)
        hook = register_module_forward_pre_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            embedded(model, TEXTS)
        hook.remove()
        found, read = embedded(model, TEXTS)
    assert torch.equal(found, calm)
    assert read == len(TEXTS) - 3 * 4


def shelf(folder: Path, most_bytes: int = 2**30, name: str = "a", age: float = 0.0) -> Shelf:
    """A shelf of a store that was opened `age` seconds ago."""
    return Shelf(EmbeddingStore(folder, most_bytes, time.time() - age), {"model": name}, name)


def rows_of(numbers: range) -> tuple[Any, Any]:
    """Hashes and embeddings that stand for numbers."""
    return hashes_of([str(n) for n in numbers]), np.array([[n] * 64 for n in numbers], np.float32)


def there(shelf: Shelf, numbers: range) -> int:
    """How many of these are kept, each as it was."""
    hashes, expected = rows_of(numbers)
    found = np.zeros_like(expected)
    which = shelf.fill(found, hashes)
    assert np.array_equal(found[which], expected[which])
    return int(which.sum())


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from zelo.models.embedding_store import EmbeddingStore, Shelf, hashes_of
mine = Shelf(EmbeddingStore(Path(sys.argv[1]), 2**30, time.time()), {"model": "a"}, "a")
for start in range(int(sys.argv[2]), int(sys.argv[3]), 10):
    numbers = range(start, start + 15)
    rows = np.array([[n] * 64 for n in numbers], np.float32)
    mine.keep(hashes_of([str(n) for n in numbers]), rows)
    print(start, flush=True)
"""


def test_writers_take_turns_and_one_that_is_killed_spoils_nothing(tmp_path: Path) -> None:
    def writer(first: int, last: int) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", WRITER, str(tmp_path), str(first), str(last)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    killed, *others = writer(0, 10**6), writer(200, 600), writer(400, 800)
    assert killed.stdout is not None
    kept = [int(line) for line, _ in zip(killed.stdout, range(20), strict=False)]
    os.kill(killed.pid, signal.SIGKILL)
    for process in (killed, *others):
        process.communicate()
    assert [process.returncode for process in others] == [0, 0]
    mine = shelf(tmp_path)
    assert there(mine, range(200, 805)) == 605
    assert there(mine, range(kept[-1] + 15)) == kept[-1] + 15
    (mine.folder / ".left.arrow.1.tmp").write_bytes(b"by one that was killed")
    mine.keep(*rows_of(range(900, 910)))
    assert not list(mine.folder.glob(".*.tmp"))
    assert len(segments(mine.folder)) == 1  # of a hundred that were written


def test_room_is_made_by_what_was_used_longest_ago(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate("abc"):
        one = shelf(tmp_path, name=name)
        one.keep(*rows_of(range(100)))
        (path,) = segments(one.folder)
        os.utime(path, (number, number))
    size = path.stat().st_size
    assert there(shelf(tmp_path, name="a"), range(100)) == 100  # used now
    new = shelf(tmp_path, 3 * size, "d")
    new.keep(*rows_of(range(100)))
    kept = {name: there(shelf(tmp_path, name=name), range(100)) for name in "abcd"}
    assert kept == {"a": 100, "b": 0, "c": 100, "d": 100}
    shelf(tmp_path, size, "e", age=60.0).keep(*rows_of(range(100)))  # all others are in use
    assert there(shelf(tmp_path, name="e"), range(100)) == 0
    assert "full; embeddings_gib=" in capsys.readouterr().err


def test_a_damaged_segment_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    mine = shelf(tmp_path)
    mine.keep(*rows_of(range(100)))
    (path,) = segments(mine.folder)
    content = path.read_bytes()
    for damaged in (content[:-100], content[:1000], b"", b"something else"):
        path.write_bytes(damaged)
        assert there(mine, range(100)) == 0
    mine.keep(*rows_of(range(50, 100)))
    assert there(mine, range(100)) == 50
    assert len(segments(mine.folder)) == 1
