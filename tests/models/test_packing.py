"""Texts read without padding: as padded rows are read, in every family and by every head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.shapes import make
from safetensors.torch import load_file
from tests.training import trainings
from tests.training.trainings import Row
from transformers import AutoConfig, AutoModel

from zelo.models import packing
from zelo.models.batching import by_own_tokens
from zelo.models.cross_encoder import new_cross_encoder
from zelo.models.heads import heads_in_32_bits, narrow
from zelo.models.layers import compile_layers
from zelo.models.packing import FAMILIES, Packing, can_pack, pack, read_packed
from zelo.models.pairwise import PairwiseCrossEncoder
from zelo.models.scoring import score_pairs
from zelo.models.tokens import PACKING, Chunking, TokenFile, tokenize

LENGTHS = [5, 17, 1, 9]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 64, "vocab_size": 200, "max_position_embeddings": 64,
         "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0,
         "sep_token_id": 2}  # fmt: skip
DECODER = {"num_key_value_heads": 2, "head_dim": 8}
OWN: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64},
    "llama": DECODER,
    "mistral": {**DECODER, "sliding_window": 6},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": DECODER,
}


def backbone(family: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SHAPE, **OWN.get(family, {})})
    return AutoModel.from_config(config, attn_implementation="sdpa").eval()


def padded(left: bool) -> dict[str, torch.Tensor]:
    longest = max(LENGTHS)
    ids, mask = torch.ones(2, len(LENGTHS), longest, dtype=torch.long).unbind()
    mask = 0 * mask
    for row, n in enumerate(LENGTHS):
        own = slice(longest - n, None) if left else slice(n)
        ids[row, own], mask[row, own] = torch.randint(5, 200, (n,)), 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("left", [False, True])
def test_a_family_reads_without_padding_what_it_reads_with_it(family: str, left: bool) -> None:
    """Sums differ in their order alone, with what fills the sequence up and without; gradients
    too, though activations are made anew."""
    if left and "num_key_value_heads" not in OWN.get(family, {}):
        return  # positions are a table, and begin at the left
    model = backbone(family)
    assert can_pack(model)
    features = padded(left)
    real = features["attention_mask"].bool()

    def read(**more: Packing) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        hidden = model(**features, **more).last_hidden_state
        hidden[real].square().mean().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return hidden.detach(), torch.cat(gradients)

    expected, wanted = read()
    read_packed(model)
    assert torch.equal(read()[0], expected)
    for size in (0, 50):
        packed = pack(LENGTHS, max(LENGTHS), left, size)
        assert packed.places.shape == (max(size, sum(LENGTHS)),)
        hidden, gradients = read(packing=packed)
        torch.testing.assert_close(hidden[real], expected[real], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(gradients, wanted, atol=1e-6, rtol=1e-4)
        assert not hidden[~real].any()
    if model.supports_gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # where activations are made anew; no dropout is set
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        torch.testing.assert_close(read(packing=packed)[1], wanted, atol=1e-6, rtol=1e-4)


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    decoder = make("qwen3-toy", tmp_path_factory.mktemp("decoder"))
    return {"mean": tiny_model, "cls": tiny_model, "segments": tiny_model, "answer": decoder}


@pytest.mark.parametrize("head", ["mean", "cls", "segments", "answer"])
def test_heads_keep_their_32_bits(head: str, models: dict[str, Path], tmp_path: Path) -> None:
    """The same scores as stock modules give; with a transformer in bfloat16 near them, and many
    different ones still."""
    torch.manual_seed(0)
    model = new_cross_encoder(models[head], head)
    pairs = [(f"what is {i}", f"{i} is {w}" * (i % 7)) for i in range(40) for w in ("a", "word")]
    tokenize(model, pairs, None, tmp_path / "pairs.arrow", "pairs")
    file = TokenFile(tmp_path / "pairs.arrow")

    @torch.inference_mode()
    def scores(chunking: Chunking) -> torch.Tensor:
        chunks = file.chunks(range(len(pairs)), chunking)
        assert all((PACKING in chunk) == chunking.packed for chunk in chunks.features)
        return chunks.apply(lambda chunk: model(chunk)["scores"]).squeeze(1)

    stock = scores(Chunking(300))
    heads_in_32_bits(model)
    torch.testing.assert_close(scores(Chunking(300)), stock, atol=1e-6, rtol=1e-6)
    narrow(model[0].model)
    half = scores(Chunking(300))
    assert half.dtype == torch.float32
    assert 0 < (half - stock).abs().max() < 0.05 * stock.abs().max()
    assert len(half.unique()) >= len(stock.unique()) - 3


def test_sequences_are_of_a_few_lengths(tiny_model: Path, tmp_path: Path) -> None:
    model = new_cross_encoder(tiny_model, "mean")
    pairs = [("a query", "word " * (i % 40)) for i in range(100)]
    tokenize(model, pairs, None, tmp_path / "pairs.arrow", "pairs")
    file = TokenFile(tmp_path / "pairs.arrow")
    chunking = Chunking(512, packed=True, fixed=True)
    packings = [chunk[PACKING] for chunk in file.chunks(range(100), chunking).features]
    sizes = [len(packing.places) for packing in packings]
    assert set(sizes) <= {512, 256, 128, 64}
    assert sum(packing.tokens for packing in packings) == file.lengths.sum()
    assert {packing.longest for packing in packings} == {file.lengths.max()}
    assert all(size < 2 * packing.tokens for size, packing in zip(sizes, packings, strict=True))
    assert by_own_tokens([9, 3, 3, 3, 1], 6) == [[0], [1, 2], [3, 4]]


@pytest.mark.parametrize("name", ["answer", "bi-encoder-decoder", "pairwise-decoder"])
def test_what_is_frozen_ships_with_all_its_bits(
    name: str, models: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Held in 16 bits in training, and of 32 in the folder: as before where no adapter is."""
    folders = trainings.write_folders(tmp_path, {
        "encoder": tiny_model, "reranker": tiny_model, "decoder": models["answer"]})  # fmt: skip
    row = Row(name, precision="bf16-mixed", options={"max_steps": 1})
    row.stage()(**row.arguments(tmp_path / "out", folders))
    before = load_file(models["answer"] / "model.safetensors")
    (file,) = (
        path for path in (tmp_path / "out" / "model").rglob("model.safetensors")
        if "adapter" not in path.parts
    )  # fmt: skip
    after = load_file(file)
    same = 0
    for key, value in before.items():
        shipped = after.get(key, after.get(key.removeprefix("model.")))
        if shipped is None:
            continue  # of a head that is not in use
        assert shipped.dtype == torch.float32
        adapted = "proj" in key
        assert adapted or torch.equal(shipped, value), key
        torch.testing.assert_close(shipped, value, atol=1e-3, rtol=0)
        same += not adapted
    assert same > 5


@pytest.mark.parametrize("name", ["mean", "answer"])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_pairwise_model_prefers_the_same_without_padding(
    name: str, fixed: bool, models: dict[str, Path]
) -> None:
    model = PairwiseCrossEncoder(models[name], 16, 64)
    triples = [(f"query {i}", "a word " * (i % 9), f"text {i}") for i in range(20)]
    expected = model.preference(triples, Chunking(200))
    read_packed(model.encoder)
    found = model.preference(triples, Chunking(200, packed=True, fixed=fixed))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_layers_are_compiled_once_for_each_length(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many texts a sequence has; with a stand-in for what a GPU attends by."""

    @torch.library.custom_op("zelo_tests::attend", mutates_args={})
    def attend(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: torch.Tensor, n: int, scale: float
    ) -> torch.Tensor:
        return packing.text_by_text(q, k, v, ends, scale, (-1, 0)).contiguous()

    @attend.register_fake
    def _(q: torch.Tensor, *_: Any) -> torch.Tensor:
        return torch.empty_like(q)

    def stand_in(q, k, v, ends, ends_k, n, n_k, scale, window_size):  # type: ignore[no-untyped-def]
        return attend(q.contiguous(), k.contiguous(), v.contiguous(), ends, n, scale)

    monkeypatch.setattr(packing, "KERNEL", stand_in)
    monkeypatch.setattr(packing, "fast_on", lambda *_: True)
    model = new_cross_encoder(models["answer"], "answer")
    pairs = [(f"query {i}", "a word " * (i % 60)) for i in range(100)]
    tokenize(model, pairs, None, tmp_path / "pairs.arrow", "pairs")
    file, chunking = TokenFile(tmp_path / "pairs.arrow"), Chunking(2048, packed=True, fixed=True)
    read_packed(model[0].model)
    packing.lets_packing_through(model[0])
    batches = [range(i, min(i + 13, 100)) for i in range(0, 100, 13)]
    chunks = [file.chunks(rows, chunking) for rows in batches]
    sizes = {len(chunk[PACKING].places) for one in chunks for chunk in one.features}
    assert len(sizes) > 1

    @torch.no_grad()
    def scores() -> torch.Tensor:
        return torch.cat([one.apply(lambda chunk: model(chunk)["scores"]) for one in chunks])

    expected = scores()
    heads_in_32_bits(model)
    for half in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compile_layers(model[0].model, fixed=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = scores()
        torch.testing.assert_close(found, expected, atol=1e-3 if half else 1e-6, rtol=1e-5)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(sizes)
        assert not torch._dynamo.utils.counters["graph_break"]
        assert not torch._dynamo.utils.counters["recompile_limit"]


def test_no_pairs_have_no_scores(tiny_model: Path) -> None:
    assert score_pairs(new_cross_encoder(tiny_model, "mean"), []) == []
