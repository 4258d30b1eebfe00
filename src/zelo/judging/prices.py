"""The price list, conf/prices.yaml."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from typing import Any

from pydantic import field_validator

from zelo.config import Component, build, conf_file, option
from zelo.judging.spending import Price

OLD = timedelta(days=183)  # a price older than that is doubted
SOON = timedelta(days=31)  # one that ends within that is told of


class ListedPrice(Component):
    """An entry of the list."""

    input: float = option(help="USD per million tokens read", ge=0)
    output: float = option(help="USD per million tokens written", ge=0)
    seen: date = option(help="day on which it was so")
    source: str = option(help="where, a name under `sources`")
    until: date | None = option(None, "last day on which it holds, where that is known")

    @field_validator("source")
    @classmethod
    def _named(cls, source: str) -> str:
        if source not in listed()["sources"]:
            raise ValueError("not among the `sources` of conf/prices.yaml")
        return source

    def doubts(self, today: date) -> str | None:
        """What speaks against it, in words; None where nothing does."""
        if self.until is not None and today + SOON > self.until:
            verb = "held" if today > self.until else "holds"
            return f"{verb} until {self.until} (it changes then, or the model is shut down)"
        if today - self.seen > OLD:
            return f"is of {self.seen}, more than six months ago"
        return None


@cache
def listed() -> dict[str, Any]:
    """The file: `free`, `sources` and `models`."""
    return conf_file("prices.yaml")


def entry_of(model: str) -> ListedPrice | None:
    """The entry of `provider/model`; None where there is none."""
    entry = listed()["models"].get(model)
    if entry is None:
        return None
    target = f"{ListedPrice.__module__}.{ListedPrice.__qualname__}"
    listed_price: ListedPrice = build({"_target_": target, **entry}, f"prices.{model}")
    return listed_price


def price_of(model: str) -> Price | None:
    """The price of `provider/model`; None where it is not listed."""
    if model.split("/")[0] in listed()["free"]:
        return Price(input=0.0, output=0.0)
    entry = entry_of(model)
    return None if entry is None else Price(input=entry.input, output=entry.output)
