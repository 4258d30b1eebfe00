from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from zelo.artifacts import read_table
from zelo.errors import UserError
from zelo.evaluation.elo_truth import elo_ndcg
from zelo.models.biencoder import BiEncoder
from zelo.models.crossencoder import CrossEncoder
from zelo.models.pairwise import PairwiseReranker
from zelo.models.weights import Weights
from zelo.training import fit as fitting
from zelo.training.batches import PairwiseDataModule, RatedQuery, ResumableLoader, ScoredDataModule
from zelo.training.modules import PairwiseModule, PointwiseModule
from zelo.training.objectives import MSE, CentredMSE, centre
from zelo.training.options import LightningTrainer, TrainingOptions

DOCUMENTS = {
    f"d{i}": f"document number {i} about {w}"
    for i, w in enumerate(["sun", "moon", "sea", "rain", "snow"])
}


def rated(n: int = 9) -> list[RatedQuery]:
    rng = np.random.default_rng(0)
    return [
        RatedQuery(
            f"query {q}",
            ids := rng.permutation(list(DOCUMENTS))[: 2 + q % 4].tolist(),
            rng.normal(size=len(ids)).tolist(),
        )
        for q in range(n)
    ]


def test_objectives_are_their_formulas() -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 3, 4))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    sigmoid = 1 / (1 + np.exp(-prediction))
    centred = [
        ((prediction[r, m] - prediction[r, m].mean()) - (target[r, m] - target[r, m].mean())) ** 2
        for r, m in enumerate(mask)
    ]
    tensors = [torch.tensor(x) for x in (prediction, target, mask)]
    assert float(MSE()(*tensors)) == pytest.approx(((sigmoid - target) ** 2)[mask].mean())
    assert float(CentredMSE()(*tensors)) == pytest.approx(np.concatenate(centred).mean())


def test_centred_mse_leaves_the_level_of_a_query_free() -> None:
    prediction, target = torch.randn(2, 5), torch.randn(2, 5)
    mask = torch.ones(2, 5, dtype=torch.bool)
    moved = prediction + torch.tensor([[3.0], [-7.0]])
    torch.testing.assert_close(
        CentredMSE()(moved, target, mask), CentredMSE()(prediction, target, mask)
    )


def test_scored_batches_hold_every_rated_document_once() -> None:
    data = ScoredDataModule(rated(), DOCUMENTS, 4, None, seed=3)
    seen = {}
    for batch in data.train_dataloader():
        assert len(set(batch.documents)) == len(batch.documents)
        for row, query in enumerate(batch.queries):
            places = batch.place[row][batch.mask[row]].tolist()
            seen[query] = {
                batch.documents[p]: float(t)
                for p, t in zip(places, batch.target[row][batch.mask[row]], strict=True)
            }
    for query in rated():
        expected = {
            DOCUMENTS[d]: pytest.approx(t)
            for d, t in zip(query.doc_ids, query.targets, strict=True)
        }
        assert seen[query.query] == expected


def test_fewer_candidates_are_drawn_anew_each_epoch() -> None:
    data = ScoredDataModule(rated(8), DOCUMENTS, 8, 2, seed=3)
    first, second = ([b.place.shape for b in data.train_dataloader()] for _ in range(2))
    assert first == second == [(8, 2)]


def test_a_loader_goes_on_where_its_state_says() -> None:
    def loader() -> ResumableLoader[list[int]]:
        return ResumableLoader(range(10), 3, 5, lambda items, rng: [*items, int(rng.integers(100))])

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


def test_pairwise_batches_swap_and_keep_the_meaning() -> None:
    judged = [((f"q{i}", "a", "b"), 0.9) for i in range(400)]
    swapped = 0
    for batch in PairwiseDataModule(judged, 64, 0).train_dataloader():
        for (_, first, _), p in zip(batch.triples, batch.preference.tolist(), strict=True):
            assert p == pytest.approx(0.9 if first == "a" else 0.1)
            swapped += first == "b"
    assert 150 < swapped < 250


class Stop(Callback):
    """Dies in the middle of training, as a kill would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if trainer.global_step == self.at:
            raise RuntimeError("killed")


def train_once(model_folder: Path, out: Path, steps: int, stop: int | None = None) -> torch.Tensor:
    """Parameters after training, with a checkpoint after every step."""
    out.mkdir(exist_ok=True)
    training = TrainingOptions(epochs=2, batch=4, learning_rate=1e-3, checkpoint_minutes=1e-6)
    torch.manual_seed(0)
    module = BiEncoder(weights=Weights(name=str(model_folder)), max_tokens=16).module(
        CentredMSE(), training, steps
    )
    trainer = LightningTrainer()
    if stop is not None:
        build = trainer.build

        def with_stop(folder, steps, training, logger, callbacks):
            return build(folder, steps, training, logger, [*callbacks, Stop(stop)])

        object.__setattr__(trainer, "build", with_stop)
    data = ScoredDataModule(rated(), DOCUMENTS, 4, 3, seed=1)
    fitting.fit(module, data, out, steps, training, trainer, CSVLogger(out), "t")
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
    np.testing.assert_allclose(losses[1]["loss"], losses[0]["loss"], rtol=1e-6)
    torch.testing.assert_close(resumed, whole)


def test_training_lowers_the_loss(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    training = TrainingOptions(epochs=40, batch=16, learning_rate=5e-3)
    judged = [((f"find {w}", f"text about {w}", "text about nothing"), 1.0) for w in "abcdefgh"]
    data = PairwiseDataModule(judged, 8, 0)
    module = PairwiseModule(PairwiseReranker(tiny_model, 8, 32), training, 40)
    last = fitting.fit(
        module, data, tmp_path, 40, training, LightningTrainer(), CSVLogger(tmp_path), "t"
    )
    assert last < 0.5 * read_table(tmp_path, "losses")["loss"][0].as_py()


def test_a_loss_that_is_no_number_stops_with_a_line(tiny_model: Path, tmp_path: Path) -> None:
    training = TrainingOptions()
    module = BiEncoder(weights=Weights(name=str(tiny_model))).module(CentredMSE(), training, 3)
    bad = [RatedQuery("q", ["d0", "d1"], [float("nan"), 0.0])]
    data = ScoredDataModule(bad, DOCUMENTS, 4, None, 0)
    with pytest.raises(
        UserError, match=r"the loss became nan at step 1: lower training\.learning_rate"
    ):
        fitting.fit(
            module, data, tmp_path, 3, training, LightningTrainer(), CSVLogger(tmp_path), "t"
        )


def test_frozen_layers_stay_as_they_are(tiny_model: Path, tmp_path: Path) -> None:
    training = TrainingOptions(frozen_layers=1, learning_rate=1e-2)
    module = BiEncoder(weights=Weights(name=str(tiny_model))).module(CentredMSE(), training, 3)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    data = ScoredDataModule(rated(), DOCUMENTS, 3, None, 0)
    fitting.fit(module, data, tmp_path, 3, training, LightningTrainer(), CSVLogger(tmp_path), "t")
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert not any("embeddings" in name or "layer.0." in name for name in changed)
    assert any("layer.1." in name for name in changed)
    with pytest.raises(UserError, match=r"training\.frozen_layers=2: the encoder has 2 layers"):
        BiEncoder(weights=Weights(name=str(tiny_model))).module(
            CentredMSE(), TrainingOptions(frozen_layers=2), 3
        )


@pytest.mark.parametrize("make", [BiEncoder, CrossEncoder])
def test_the_scale_is_matched_to_the_targets_and_kept_over_a_resume(
    tiny_model: Path, tmp_path: Path, make: type[BiEncoder | CrossEncoder]
) -> None:
    training = TrainingOptions(learning_rate=1e-3, checkpoint_minutes=1e-6)
    data = ScoredDataModule(rated(12), DOCUMENTS, 4, None, 0)

    def module(steps: int) -> PointwiseModule:
        made = make(weights=Weights(name=str(tiny_model))).module(CentredMSE(), training, steps)
        made.to_match = list(data.train_dataloader())
        if make is CrossEncoder:
            torch.nn.init.zeros_(made.model[-1].linear.weight)  # leaves the cosine alone
        return made

    matched = module(1)
    matched.match_scale(matched.to_match)
    parts = [(centre(matched(b), b.mask)[b.mask], centre(b.target, b.mask)[b.mask])
             for b in matched.to_match]  # fmt: skip
    predicted, targets = (torch.cat(side) for side in zip(*parts, strict=True))
    assert float(predicted.std().detach()) == pytest.approx(float(targets.std()), rel=0.02)
    first = module(1)
    fitting.fit(first, ScoredDataModule(rated(12), DOCUMENTS, 4, None, 0), tmp_path, 1, training,
                LightningTrainer(), CSVLogger(tmp_path), "t")  # fmt: skip
    assert first.cosine_scale == pytest.approx(matched.cosine_scale)
    resumed = module(2)
    fitting.fit(resumed, ScoredDataModule(rated(12), DOCUMENTS, 4, None, 0), tmp_path, 2, training,
                LightningTrainer(), CSVLogger(tmp_path), "t")  # fmt: skip
    assert resumed.cosine_scale == first.cosine_scale


def test_held_out_queries_are_measured_as_by_elos(tiny_model: Path, tmp_path: Path) -> None:
    """torchmetrics in training and `elo_ndcg` afterwards say the same."""
    training = TrainingOptions(learning_rate=1e-9, validate_every=2)
    module = BiEncoder(weights=Weights(name=str(tiny_model))).module(CentredMSE(), training, 4)
    held_out = rated(7)
    data = ScoredDataModule(rated(16)[7:], DOCUMENTS, 3, 2, 0, held_out)
    logger = CSVLogger(tmp_path)
    fitting.fit(module, data, tmp_path, 4, training, LightningTrainer(), logger, "t")
    logger.save()
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row.get("val/NDCG@10")]
    assert [int(row["step"]) for row in logged] == [1, 3]
    values = []
    for batch in data.val_dataloader():
        predictions = module(batch)
        for row, _ in enumerate(batch.queries):
            places = batch.place[row][batch.mask[row]].tolist()
            elos = dict(zip(places, batch.target[row][batch.mask[row]].tolist(), strict=True))
            scores = predictions[row][batch.mask[row]].tolist()
            ranked = [p for _, p in sorted(zip(scores, places, strict=True), key=lambda x: -x[0])]
            values.append(elo_ndcg(ranked, elos))
    assert len(values) == 7
    assert float(logged[-1]["val/NDCG@10"]) == pytest.approx(np.mean(values), abs=1e-5)
    at_the_end = fitting.validate(module, data, LightningTrainer())
    assert at_the_end["val/NDCG@10"] == pytest.approx(np.mean(values), abs=1e-4)


def test_steps_are_capped() -> None:
    assert TrainingOptions(epochs=3).steps(10) == 30
    assert TrainingOptions(epochs=3, max_steps=8).steps(10) == 8
    assert TrainingOptions(epochs=1, max_steps=80).steps(10) == 10
