"""What a run may spend and has spent: nothing is sent that could pass the budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zelo.config import Component, option


class Budget(Component):
    """Limits of a run (`budget.usd`, `budget.calls`), over all its judges and restarts."""

    usd: float | None = option(None, "most money; null: no limit", ge=0)
    calls: int | None = option(None, "most requests, repeated ones included; null: no limit", ge=0)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.usd is not None or self.calls is not None


class Price(Component):
    """What a model costs, in USD per million tokens."""

    input: float = option(help="USD per million tokens read", ge=0)
    output: float = option(help="USD per million tokens written", ge=0)
    cached: float | None = option(
        None,
        "USD per million tokens read that the provider had kept of an earlier prompt; null: as of "
        "others",
        ge=0,
    )

    def half(self) -> Price:
        """What the same costs in a batch."""
        cached = None if self.cached is None else self.cached / 2
        return Price(input=self.input / 2, output=self.output / 2, cached=cached)

    def of(self, tokens_in: float, tokens_out: float, tokens_cached: float = 0.0) -> float:
        """USD of so many tokens; `tokens_cached` are those of `tokens_in` that were kept."""
        kept = self.input if self.cached is None else self.cached
        read = (tokens_in - tokens_cached) * self.input + tokens_cached * kept
        return (read + tokens_out * self.output) / 1e6


@dataclass
class Spending:
    """Requests sent and money spent, counted before it is spent.

    A request first reserves the most it can cost. When it has come back its price takes the
    reservation's place; where it is not known whether it was billed (a time-out, a lost
    connection), the reservation stays.
    """

    budget: Budget
    calls: int = 0  # also the number of the latest reservation
    usd: float = 0.0  # spent, and reserved for what is in flight
    open: int = 0  # requests in flight
    batched: int = 0  # of these, in batches, which nobody waits for
    reached: str = ""  # the limit that a request would have passed
    exhausted: bool = False  # nothing is in flight and no request fits any more

    def refusal(self, ledger: Path) -> str:
        """What to say where the budget is reached."""
        return (
            f"{self.reached} would be passed: {self.calls:,} requests and ${self.usd:.4g} are "
            f"spent, and every answer is in {ledger}; the same command with a higher budget goes "
            f"on from here"
        )

    def reserve(self, usd: float) -> bool:
        """Count a request that may cost `usd`; False, and nothing counted, beyond the budget."""
        if self.budget.calls is not None and self.calls + 1 > self.budget.calls:
            self.reached = f"budget.calls={self.budget.calls}"
        elif self.budget.usd is not None and self.usd + usd > self.budget.usd:
            self.reached = f"budget.usd={self.budget.usd:g}"
        else:
            # In this order, since another thread reads calls first: it never sees a call unpaid.
            self.usd += usd
            self.calls += 1
            self.open += 1
            return True
        self.exhausted = self.exhausted or not self.open
        return False

    def settle(self, reserved: float, usd: float) -> None:
        """Put what a request did cost in the place of what was reserved for it."""
        self.usd += usd - reserved
        self.open -= 1
