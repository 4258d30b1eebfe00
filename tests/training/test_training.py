from __future__ import annotations

import csv
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.collection import DOCUMENTS, bi_encoder, data_module, fit, rated
from tests.training.trainings import Stop, calling_back

from zelo.artifacts import read_table, table, write_table
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.evaluation.elo_truth import elo_ndcg
from zelo.models.pairwise_model import PairwiseModel
from zelo.models.pretrained import PretrainedModel
from zelo.seeding import stream
from zelo.training import fit as fitting
from zelo.training.base_module import READ_AT_ONCE
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.loader import ResumableLoader, ahead
from zelo.training.losses import centre
from zelo.training.objectives import MSE, BaseObjective, CentredMSE
from zelo.training.optimization import AdamW
from zelo.training.options import TrainingOptions
from zelo.training.pairwise_data_module import PairwiseDataModule
from zelo.training.pairwise_module import PairwiseModule
from zelo.training.pointwise import PointwiseModule
from zelo.training.rated_queries import RatedQuery


@pytest.mark.parametrize("make", [BiEncoder, CrossEncoder])
def test_scored_batches_hold_every_rated_document_once(
    tiny_model: Path, tmp_path: Path, make: type[BiEncoder | CrossEncoder]
) -> None:
    """What is read of each place is what the model would make of that query and document."""
    module = make(pretrained=PretrainedModel(name=str(tiny_model))).module(
        CentredMSE(), TrainingOptions()
    )
    tokenizer = module.model.tokenizer
    seen = {}
    for batch in data_module(module, tmp_path, rated(), 4, seed=3).train_dataloader():
        name = "pairs" if make is CrossEncoder else "documents"
        ids = batch.inputs[name].apply(
            lambda chunk: torch.nn.functional.pad(
                chunk["input_ids"], (0, 64 - chunk["input_ids"].shape[1])
            )
        )
        read = tokenizer.batch_decode(ids, skip_special_tokens=True)
        assert make is CrossEncoder or len(set(read)) == len(read)
        for row, query_id in enumerate(batch.query_ids):
            places = batch.document_index[row][batch.mask[row]].tolist()
            targets = batch.target[row][batch.mask[row]].tolist()
            seen[query_id] = dict(zip([read[p] for p in places], targets, strict=True))
    for query in rated():
        prefix = f"query {query.query_id[1:]} " if make is CrossEncoder else ""
        expected = {
            prefix + DOCUMENTS[d]: pytest.approx(t)
            for d, t in zip(query.doc_ids, query.targets, strict=True)
        }
        assert seen[query.query_id] == expected


def test_fewer_candidates_are_drawn_anew_each_epoch(tiny_model: Path, tmp_path: Path) -> None:
    module = bi_encoder(tiny_model).module(CentredMSE(), TrainingOptions())
    data = data_module(module, tmp_path, rated(8), 8, 2, seed=3)
    first, second = ([b.document_index.shape for b in data.train_dataloader()] for _ in range(2))
    assert first == second == [(8, 2)]


def test_a_loader_goes_on_where_its_state_says() -> None:
    def loader() -> ResumableLoader[list[int]]:
        return ResumableLoader(
            range(10), 3, 5, lambda items, rng, micro_batch: [*items, int(rng.integers(100))]
        )

    whole = loader()
    epochs = [list(whole) for _ in range(3)]
    assert epochs[0] != epochs[1]
    broken = loader()
    iterator = iter(broken)
    given = [next(iterator), next(iterator)]
    other = loader()
    other.load_state_dict(broken.state_dict())
    assert given + list(other) == epochs[0]
    assert list(other) == epochs[1]
    iterator.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("batches")]


def test_what_cannot_be_made_ahead_fails_in_its_turn() -> None:
    made = ahead([lambda: 1, lambda: 2, lambda: 1 // 0, lambda: 4])
    assert [next(made), next(made)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(made)


def pairs(
    model: PairwiseModel, triples: list[tuple[str, str, str]], p: float, batch_size: int, out: Path
) -> PairwiseDataModule:
    """Comparisons of one preference."""
    data = PairwiseDataModule(write_pairs(out, triples, p), out / "collection", model,
                              batch_size=batch_size, max_tokens_per_forward=256,
                              cache_dir=out / "tokens")  # fmt: skip
    data.prepare_data()
    data.setup()
    return data


def write_pairs(out: Path, triples: list[tuple[str, str, str]], p: float) -> Path:
    """A collection of these texts and one judge's judgments of them."""
    folder = out / "collection"
    folder.mkdir(parents=True)
    n = len(triples)
    q, a, b = zip(*triples, strict=True)
    documents = list(dict.fromkeys([*a, *b]))
    queries = table("queries", query_id=q, text=q, split=["train"] * n)
    write_table(folder, "queries", queries)
    write_table(folder, "documents", table("documents", doc_id=documents,
                title=[""] * len(documents), text=documents))  # fmt: skip
    write_table(folder, "judgments", table("judgments", query_id=q, doc_a=a, doc_b=b,
                repeat=[0] * n, judge=["judge"] * n, score=[1 - 2 * p] * n, status=["ok"] * n,
                reasons=[""] * n))  # fmt: skip
    return folder


def test_pairwise_batches_swap_and_keep_the_meaning(tiny_model: Path, tmp_path: Path) -> None:
    model = PairwiseModel.of(str(tiny_model), max_query_length=8, max_length=32)
    data = pairs(model, [(f"q{i}", "a", "b") for i in range(400)], 0.9, 64, tmp_path)
    a = model.network().tokenizer.convert_tokens_to_ids("a")
    swapped = 0
    for batch in data.train_dataloader():
        first = batch.triples.apply(
            lambda c: torch.stack([row[s == 2][0] for row, s in zip(
                c["input_ids"], c["segment"], strict=True)])
        )  # fmt: skip
        for token, p in zip(first.tolist(), batch.preference.tolist(), strict=True):
            assert p == pytest.approx(0.9 if token == a else 0.1)
            swapped += token != a
    assert 150 < swapped < 250


def train_once(model_folder: Path, out: Path, steps: int, stop: int | None = None) -> torch.Tensor:
    """Parameters after training, with a checkpoint after every step."""
    out.mkdir(exist_ok=True)
    training = TrainingOptions(
        max_epochs=2,
        batch_size=4,
        optimizer=AdamW(lr=1e-3),
        checkpoint_minutes=1e-6,
        frozen_layers=1,  # of which each process keeps its own outputs
    )
    module = bi_encoder(model_folder, max_length=16).module(CentredMSE(), training)
    data = data_module(module, out, rated(), 4, 3, seed=1)
    with nullcontext() if stop is None else calling_back(Stop(stop)):
        fit(module, data, out, steps, training)
    return torch.cat([p.detach().ravel() for p in module.parameters()])


def test_training_resumed_from_a_checkpoint_is_training_undisturbed(
    tiny_model: Path, tmp_path: Path
) -> None:
    whole = train_once(tiny_model, tmp_path / "whole", 6)
    with pytest.raises(RuntimeError, match="killed"):
        train_once(tiny_model, tmp_path / "broken", 6, stop=4)
    assert (tmp_path / "broken" / "checkpoints" / "last.ckpt").exists()
    resumed = train_once(tiny_model, tmp_path / "broken", 6)
    losses = [read_table(tmp_path / n, "losses") for n in ("whole", "broken")]
    assert losses[0].num_rows == 6
    assert losses[1].equals(losses[0])
    assert torch.equal(resumed, whole)


def test_training_lowers_the_loss(tiny_model: Path, tmp_path: Path) -> None:
    training = TrainingOptions(optimizer=AdamW(lr=5e-3))
    triples = [(f"find {w}", f"text about {w}", "text about nothing") for w in "abcdefgh"]
    module = PairwiseModule(str(tiny_model), max_length=32, training=training)
    data = pairs(module.component, triples, 1.0, 8, tmp_path)
    fit(module, data, tmp_path, 40, training)
    last = fitting.load_fitted(module, tmp_path)["final_loss"]
    assert last < 0.5 * read_table(tmp_path, "losses")["loss"][0].as_py()


@pytest.mark.parametrize("at_once", [1, 16])
def test_a_loss_that_is_no_number_stops_with_a_line_and_is_in_no_checkpoint(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Where losses are read in lots too, as from a GPU: of those before the training ends there."""
    monkeypatch.setitem(READ_AT_ONCE, "cpu", at_once)
    training = TrainingOptions(checkpoint_minutes=1e-6 if at_once == 1 else 9.0)
    module = bi_encoder(tiny_model).module(CentredMSE(), training)
    queries = [RatedQuery(f"q{i}", ["d0", "d1"], [0.5, -0.5]) for i in range(5)]
    fifth = stream(0, "epoch", "0").permutation(5)[4]
    queries[fifth] = replace(queries[fifth], targets=[float("nan"), 0.0])
    data = data_module(module, tmp_path, queries, 1)
    words = rf"became nan at step 5, in a batch of queries q{fifth}: lower training\.optimizer\.lr"
    with pytest.raises(UserError, match=words):
        fit(module, data, tmp_path, 8, training)
    kept = tmp_path / "checkpoints" / "last.ckpt"
    assert len(list((tmp_path / "checkpoints").glob("*.ckpt"))) == (at_once == 1)
    assert at_once > 1 or torch.load(kept, weights_only=True)["global_step"] == 4


def test_losses_that_are_read_in_lots_are_the_same(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the table, in the log and in what a checkpoint has."""
    training = TrainingOptions(validate_every=3, accumulate_grad_batches=2)
    found = []
    for at_once in (1, 4):
        monkeypatch.setitem(READ_AT_ONCE, "cpu", at_once)
        out = tmp_path / str(at_once)
        out.mkdir()
        module = bi_encoder(tiny_model).module(CentredMSE(), training)
        data = data_module(module, out, rated(16)[7:], 4, 2, held_out=rated(7))
        log = fit(module, data, out, 10, training)
        found.append((read_table(out, "losses").to_pydict(), (log / "metrics.csv").read_text()))
    assert found[0] == found[1]
    assert len(found[0][0]["loss"]) == 10


def test_frozen_layers_stay_as_they_are(tiny_model: Path, tmp_path: Path) -> None:
    training = TrainingOptions(frozen_layers=1, optimizer=AdamW(lr=1e-2))
    module = bi_encoder(tiny_model).module(CentredMSE(), training)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    data = data_module(module, tmp_path, rated(), 3)
    fit(module, data, tmp_path, 3, training)
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert not any("embeddings" in name or "layer.0." in name for name in changed)
    assert any("layer.1." in name for name in changed)
    with pytest.raises(UserError, match=r"training\.frozen_layers=2: the encoder has 2 layers"):
        bi_encoder(tiny_model).module(CentredMSE(), TrainingOptions(frozen_layers=2))


def test_a_level_is_matched_learned_and_not_shipped(tiny_model: Path, tmp_path: Path) -> None:
    """Targets in [0, 1] say how high a query's documents are; cosines all lie above 0."""
    model = bi_encoder(tiny_model, logit_scale=5.0)
    module = model.module(MSE(), TrainingOptions())
    data = data_module(module, tmp_path, rated(9), 4)
    batch = next(iter(data.train_dataloader()))
    before = module(batch)
    wanted = float(torch.logit(batch.target[batch.mask].mean().clamp(0.01, 0.99)))

    module.calibrate_bias([batch])
    after = module(batch)
    assert float(after[batch.mask].mean()) == pytest.approx(wanted, abs=1e-4)
    torch.testing.assert_close(  # the same for all
        (after - before)[batch.mask],
        torch.full_like(before[batch.mask], float(module.logit_bias.weight)),
    )
    module.objective.total(after, batch, None).sum().backward()
    assert module.logit_bias.weight.grad.abs() > 0
    module.save_pretrained(tmp_path / "model")
    assert not any("bias" in p.name for p in (tmp_path / "model").rglob("*"))
    assert bi_encoder(tiny_model).module(CentredMSE(), TrainingOptions()).logit_bias is None


@pytest.mark.parametrize("make", [BiEncoder, CrossEncoder])
def test_the_scale_is_matched_to_the_targets_and_kept_over_a_resume(
    tiny_model: Path, tmp_path: Path, make: type[BiEncoder | CrossEncoder]
) -> None:
    training = TrainingOptions(optimizer=AdamW(lr=1e-3), checkpoint_minutes=1e-6)
    head = {"head": "segments"} if make is CrossEncoder else {}

    def module() -> PointwiseModule:
        model = make(pretrained=PretrainedModel(name=str(tiny_model)), **head)
        made = model.module(CentredMSE(), training)
        if make is CrossEncoder:
            torch.nn.init.zeros_(made.model[-1].linear.weight)  # leaves the cosine alone
        return made

    matched = module()
    data = data_module(matched, tmp_path, rated(12), 4)
    batches = data.calibration_batches()
    matched.calibrate_scale(batches)
    parts = [(centre(matched(b), b.weight)[b.mask], centre(b.target, b.weight)[b.mask])
             for b in batches]  # fmt: skip
    predicted, targets = (torch.cat(side) for side in zip(*parts, strict=True))
    assert float(predicted.std().detach()) == pytest.approx(float(targets.std()), rel=0.02)
    first = module()
    fit(first, data, tmp_path, 1, training)
    assert first.logit_scale == pytest.approx(matched.logit_scale)
    resumed = module()
    fit(resumed, data_module(resumed, tmp_path, rated(12), 4), tmp_path, 2, training)
    assert resumed.logit_scale == first.logit_scale
    fresh = module()
    fitting.load_fitted(fresh, tmp_path)
    assert fresh.logit_scale == first.logit_scale


@pytest.mark.parametrize("objective", [CentredMSE(), MSE()], ids=["centred", "of 0 to 1"])
def test_held_out_queries_are_measured_as_by_elos(
    tiny_model: Path, tmp_path: Path, objective: BaseObjective
) -> None:
    """torchmetrics in training and `elo_ndcg` afterwards say the same, whatever is learned."""
    queries = rated(16)
    if objective.target != "centred":
        queries = [
            replace(one, targets=(0.5 + 0.01 * np.array(one.targets)).tolist(), elos=one.targets)
            for one in queries
        ]
    training = TrainingOptions(optimizer=AdamW(lr=1e-9), validate_every=2)
    module = bi_encoder(tiny_model).module(objective, training)
    data = data_module(module, tmp_path, queries[7:], 3, 2, held_out=queries[:7])
    log = fit(module, data, tmp_path, 4, training)
    with (log / "metrics.csv").open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row.get("val/NDCG@10")]
    assert [int(row["step"]) for row in logged][:2] == [1, 3]
    values = []
    for batch in data.val_dataloader():
        predictions = module(batch)
        for row, _ in enumerate(batch.query_ids):
            places = batch.document_index[row][batch.mask[row]].tolist()
            (one,) = [one for one in queries[:7] if one.query_id == batch.query_ids[row]]
            elos = dict(zip(places, one.elos or one.targets, strict=True))
            scores = predictions[row][batch.mask[row]].tolist()
            ranked = [p for _, p in sorted(zip(scores, places, strict=True), key=lambda x: -x[0])]
            values.append(elo_ndcg(ranked, elos))
    assert len(values) == 7
    assert float(logged[1]["val/NDCG@10"]) == pytest.approx(np.mean(values), abs=1e-5)
    said = fitting.load_fitted(module, tmp_path)["validated"]
    assert said["val/NDCG@10"] == pytest.approx(np.mean(values), abs=1e-4)


def test_steps_are_capped() -> None:
    assert TrainingOptions(max_epochs=3).steps(10) == 30
    assert TrainingOptions(max_epochs=3, max_steps=8).steps(10) == 8
    assert TrainingOptions(max_epochs=1, max_steps=80).steps(10) == 10


@pytest.mark.parametrize("at_once", [1, 16])
def test_a_loss_that_explodes_stops_with_a_line(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Real targets that lie a thousand times further out than those before."""
    monkeypatch.setitem(READ_AT_ONCE, "cpu", at_once)
    module = bi_encoder(tiny_model, logit_scale=5.0).module(CentredMSE(), TrainingOptions())
    queries = [RatedQuery(f"q{i}", ["d0", "d1"], [0.5, -0.5]) for i in range(12)]
    data = data_module(module, tmp_path, queries, 1)
    rng = stream(0, "epoch", "0").permutation(12)
    late = queries[rng[11]]
    data.dataset.train[rng[11]] = replace(late, targets=[500.0, -500.0])
    with pytest.raises(UserError, match=rf"loss exploded to .* at step 12, .*{late.query_id}: low"):
        fit(module, data, tmp_path, 14)


def test_out_of_memory_names_the_settings(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = bi_encoder(tiny_model).module(CentredMSE(), TrainingOptions())
    monkeypatch.setattr(module, "embed", lambda features: torch.zeros(2**50))  # the allocator's no
    data = data_module(module, tmp_path, rated(), 4)
    with pytest.raises(
        UserError,
        match=r"out of memory .*training\.max_tokens_per_forward=1024, "
        r"training\.gradient_cache=true.*accumulate_grad_batches=2",
    ):
        fit(module, data, tmp_path, 3)


def test_weights_that_are_surely_better_ship_not_the_last(tiny_model: Path, tmp_path: Path) -> None:
    """What is learned is the reverse of what is asked: the first that validated is what is
    loaded."""
    training = TrainingOptions(optimizer=AdamW(lr=1e-2), validate_every=1)
    module = bi_encoder(tiny_model, logit_scale=5.0).module(CentredMSE(), training)
    wanted = [2.0, 1.0, 0.0, -1.0, -2.0]
    learned = [RatedQuery(f"q{i}", list(DOCUMENTS), wanted[::-1]) for i in range(8)]
    asked = [RatedQuery(f"q{i}", list(DOCUMENTS), wanted) for i in range(8, 38)]
    data = data_module(module, tmp_path, learned, 4, held_out=asked)
    fit(module, data, tmp_path, 6, training)
    fresh = bi_encoder(tiny_model, logit_scale=5.0).module(CentredMSE(), training)
    said = fitting.load_fitted(fresh, tmp_path)
    scores = [float(row["val/NDCG@10"]) for row in validations(tmp_path)]
    assert said["validated"]["val/NDCG@10"] == pytest.approx(max(scores), abs=1e-4)
    assert max(scores) > min(scores)
    trainer = fitting.build_trainer(LightningTrainer(), tmp_path, 1, training, False, [])
    again = trainer.validate(fresh, datamodule=data, verbose=False)[0]
    assert again["val/NDCG@10"] == pytest.approx(max(scores), abs=1e-5)


def validations(out: Path) -> list[dict[str, str]]:
    """Rows of Lightning's log with a validation."""
    (path,) = out.rglob("metrics.csv")
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row.get("val/NDCG@10")]
