"""Whichever library multiplies, it does so in 32 bits; short texts attend as long ones do."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModel

from zelo.models.arithmetic import attention_of, multiplies_by_onednn


def test_products_are_of_32_bits() -> None:
    multiplies_by_onednn()
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(300, 384, generator=generator, requires_grad=True)
    b = torch.randn(384, 1536, generator=generator, requires_grad=True)
    whole = a.detach().double() @ b.detach().double()
    torch.testing.assert_close((a @ b).double(), whole, atol=2e-4, rtol=0)
    (a @ b).sum().backward()
    for one, other, dim in ((a, b, 1), (b, a, 0)):
        exact = other.detach().double().sum(dim)
        exact = exact.expand(len(a), -1) if one is a else exact[:, None].expand(-1, b.shape[1])
        torch.testing.assert_close(one.grad.double(), exact, atol=2e-3, rtol=1e-5)


def test_short_texts_attend_as_others_do(tiny_model: Path) -> None:
    model = AutoModel.from_pretrained(tiny_model).eval()
    ids = torch.randint(5, 1000, (6, 20), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(20)[None] < torch.tensor([20, 7, 3, 12, 1, 20])[:, None]).long()
    features = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        expected = model(**features).last_hidden_state
        with attention_of(features):
            found = model(**features).last_hidden_state
    torch.testing.assert_close(found[mask > 0], expected[mask > 0], atol=1e-5, rtol=1e-5)
