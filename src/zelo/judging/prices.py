"""The price list, conf/prices.yaml."""

from __future__ import annotations

from functools import cache
from typing import Any

from omegaconf import OmegaConf

from zelo.config import build, conf_folder
from zelo.judging.spending import Price


@cache
def listed() -> dict[str, Any]:
    """The file: `as_of`, `free` and `models`."""
    content: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        OmegaConf.load(conf_folder() / "prices.yaml")
    )
    return content


def price_of(model: str) -> Price | None:
    """The price of `provider/model`; None where it is not listed."""
    if model.split("/")[0] in listed()["free"]:
        return Price(input=0.0, output=0.0)
    entry = listed()["models"].get(model)
    if entry is None:
        return None
    price: Price = build({"_target_": "zelo.judging.spending.Price", **entry}, f"prices.{model}")
    return price
