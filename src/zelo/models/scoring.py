"""Scores of many pairs on many devices: each pair once, in order, whatever stops it.

Pairs are tokenised once and cut into lots; a lot is scored by one rank and written whole, so that
a run that was stopped, on however many devices, goes on with the lots that are missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zelo.artifacts import replacing
from zelo.models.crossencoder import load_cross_encoder
from zelo.models.tokens import TokenFile, attends_by_flash, flatten, on_device, tokenize

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer

LOT = 4096  # pairs
PAIRS, LOTS = "pairs.arrow", "lots"


def score_on_devices(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    out: Path,
    trainer: LightningTrainer,
    tokens: int | None = None,
) -> list[float]:
    """Scores (float32) of pairs by the cross-encoder in `folder`, in their order.

    Each device reads at most `tokens` at once; null: as many as in training by default. What is
    under way lies in `out`, which is gone at the end.
    """
    from zelo.distributed.ranks import on_devices

    out.mkdir(exist_ok=True)
    model = load_cross_encoder(folder)
    prompt = model.prompts.get(model.default_prompt_name)
    tokenize(model, pairs, prompt, out / PAIRS, "pairs")
    (out / LOTS).mkdir(exist_ok=True)
    budget = trainer.max_tokens_per_forward(tokens)
    on_devices(score_lots, out, trainer, folder=folder, budget=budget)
    scores = np.concatenate([np.load(path) for path in sorted((out / LOTS).glob("*.npy"))])
    assert len(scores) == len(pairs), (len(scores), len(pairs))
    shutil.rmtree(out)
    found: list[float] = scores.tolist()
    return found


@torch.inference_mode()
def score_lots(*, out: Path, trainer: LightningTrainer, folder: Path, budget: int) -> None:
    """Score this rank's lots: every so many'th that is not there yet."""
    from zelo.distributed.ranks import this_process
    from zelo.progress import track

    rank, world, local = this_process()
    device = trainer.device(local)
    model: Any = load_cross_encoder(folder).to(device).eval()
    tokens, flat = TokenFile(out / PAIRS), flatten(model)
    lots = range(rank, -(-len(tokens) // LOT), world)
    half = attends_by_flash(model[0].model)  # else in 32 bits, as on one device
    for lot in track(lots, "scoring pairs") if rank == 0 else lots:
        path = out / LOTS / f"{lot:08}.npy"
        if path.exists():
            continue
        rows = range(lot * LOT, min((lot + 1) * LOT, len(tokens)))
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            scores = tokens.encoded(rows, budget, flat).through(
                lambda chunk: model(on_device(chunk, device))["scores"].squeeze(-1).float().cpu()
            )
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, model.activation_fn(scores).numpy())
