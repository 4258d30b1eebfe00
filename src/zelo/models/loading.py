"""How models come out of folders: what all loaders share, whatever they make of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from zelo.errors import UserError, in_words
from zelo.progress import tell

Made = TypeVar("Made")
_SHAPES = ContextVar("shapes", default=False)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Have models loaded without their weights, in no time and memory.

    What else can go wrong with them (tokenizer, labels, limits, adapters) does so all the same:
    that is how a run tries at its start what it needs at its end.
    """
    before = _SHAPES.set(True)
    try:
        yield
    finally:
        _SHAPES.reset(before)


def without_weights(make: Callable[[], Made]) -> Made:
    """What `make` builds of a model's folder, without its weights: to know how it reads texts.

    Where a model cannot be had so, it has them.
    """
    from torch.random import fork_rng

    with fork_rng([]), warnings.catch_warnings(action="ignore"):
        try:
            with shapes_alone():
                return make()
        except UserError:
            raise
        except Exception:
            return make()


@contextmanager
def trial(folder: Path) -> Iterator[None]:
    """Try to build the model in `folder`: `UserError` as it would come, and damaged weights too.

    Where only the trial does not work, that is said and it goes on.
    """
    from safetensors import safe_open
    from torch.random import fork_rng

    with loaded_from(folder):
        for path in sorted(folder.rglob("*.safetensors")):
            with safe_open(path, "pt"):  # its head, and whether its size is as that says
                pass
    try:
        with shapes_alone(), fork_rng([]), warnings.catch_warnings(action="ignore"):
            yield
    except UserError:
        raise
    except Exception as error:
        tell(f"{folder}: the model could not be tried before it is needed ({in_words(error)})")


@contextmanager
def loaded_from(folder: Path) -> Iterator[None]:
    """Say on one line what libraries make of a model's folder that is damaged or not whole."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _SHAPES.get() and any(word in str(error) for word in ("meta", "device_map")):
            raise  # of models without weights, not of this one
        raise UserError(f"{folder}: the model cannot be loaded ({in_words(error)})") from None


def loading(attention: str | None = None) -> dict[str, Any]:
    """How weights are loaded: from safetensors alone, with the attention that was asked for."""
    chosen = {"attn_implementation": attention} if attention else {}
    return {"use_safetensors": True, **chosen, **({"device_map": "meta"} if _SHAPES.get() else {})}


def placed() -> dict[str, Any]:
    """Where a model that is put together of modules goes: the library's choice."""
    return {"device": "meta"} if _SHAPES.get() else {}


def quiet_transformers() -> None:
    """Silence the bars that transformers draws while it reads and writes weights."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def prepare_libraries() -> None:
    """Have transformers draw no bars and torch multiply fast."""
    from zelo.models.arithmetic import multiplies_by_onednn

    quiet_transformers()
    multiplies_by_onednn()


def with_words(tokenizer: Any) -> None:
    """`ValueError` where a tokenizer has no vocabulary: every text would be the same to its model.

    That is what libraries make of a folder whose tokenizer is missing.
    """
    words = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else ["none is needed"]
    if not set(words) - set(getattr(tokenizer, "all_special_tokens", [])):
        raise ValueError("its tokenizer has no vocabulary: are its files there?")


def with_padding(tokenizer: Any, backbone: Any) -> None:
    """Give a tokenizer that has no padding token its end of text, else its first token.

    Attention leaves padding out, so that any token will do. The model is told, since a classifier
    on a decoder looks for the last token before the padding.
    """
    if backbone is None or not hasattr(tokenizer, "pad_token_id"):
        return
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    if getattr(backbone.config, "pad_token_id", None) is None:
        backbone.config.pad_token_id = tokenizer.pad_token_id


def without_cache(backbone: Any) -> None:
    """Have a decoder keep no keys and values, as no text goes on where another one ended.

    They would take memory, and each compiled layer asks for its own, so that none is compiled for
    all of them.
    """
    if backbone is not None and hasattr(config := backbone.config.get_text_config(), "use_cache"):
        config.use_cache = False


def usable_length(backbone: Any) -> int | None:
    """Most tokens that a transformer can read; None where its positions are no table.

    In a table of positions the first are not always used: RoBERTa's begin behind its padding token
    (512 of 514), OPT's and BART's are set off by two. Rotary and relative positions have no end.
    """
    from torch.nn import Embedding

    found = []
    for name, table in backbone.named_modules():
        kind = name.rpartition(".")[2]
        if not isinstance(table, Embedding) or kind not in TABLES:
            continue
        unused = 0 if table.padding_idx is None else table.padding_idx + 1
        found.append(table.num_embeddings - unused - int(getattr(table, "offset", 0)))
    return min(found, default=None)


TABLES = ("position_embeddings", "position_embedding", "embed_positions", "positions_embed", "wpe")


def cut_to(wanted: int | None, most: int | None, folder: Path) -> int | None:
    """How many tokens of a text are read where `wanted` are asked for; said where it is fewer."""
    if wanted is None or most is None or wanted <= most:
        return most if wanted is None else wanted
    tell(f"{folder}: max_length={wanted} is cut to {most}, the most that this model reads")
    return most


def limit(model: Any, folder: Path, wanted: int | None = None, own: bool = False) -> None:
    """Have a sentence-transformers `model` cut texts at `wanted` tokens, if it can read as many.

    Without `wanted`, and with `own`, it reads no more than its folder says either.
    """
    backbone = getattr(model[0], "model", None)  # word vectors have none
    most = None if backbone is None else usable_length(backbone)
    said = model.max_seq_length
    if said is not None and (own or wanted is None):
        most = said if most is None else min(said, most)
    found = cut_to(wanted, most, folder)
    if found is not None:
        model.max_seq_length = found
