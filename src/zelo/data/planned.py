"""A collection that is not there yet, for `zelo plan`."""

from __future__ import annotations

from zelo.config import Component, option
from zelo.data.collection import Collection
from zelo.errors import UserError

NOT_THERE = "data=planned only says how large a collection is: use it with `zelo plan`"


class Planned(Component):
    """How large a collection will be."""

    name: str = option("planned", "what it is called")
    train_queries: int = option(help="queries to train on", ge=1)
    documents: int = option(help="documents", ge=2)
    query_tokens: float = option(help="mean tokens of a query", gt=0)
    document_tokens: float = option(help="mean tokens of a document", gt=0)

    def fingerprint(self) -> str:
        """Raise `UserError`: a run needs a collection that is there."""
        raise UserError(NOT_THERE)

    def load(self) -> Collection:
        """Raise `UserError`, as does `fingerprint`."""
        raise UserError(NOT_THERE)
