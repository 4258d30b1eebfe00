"""What an endpoint is asked about queries: each answer is in the ledger before it is used."""

from __future__ import annotations

from collections.abc import Sequence

from zelo.errors import UserError
from zelo.judging.api import ApiJudge, ApiSession
from zelo.judging.asking import ask_all
from zelo.judging.ensemble import Ensemble
from zelo.judging.ledger import Ledger
from zelo.judging.question import Answer, Question
from zelo.judging.spending import Budget, Spending
from zelo.queries.base import WritingContext


def paid_answers(
    name: str, session: ApiSession, questions: Sequence[Question], context: WritingContext
) -> list[Answer | None]:
    """The answer to each question, None where there is none yet; as many requests at once as the
    provider allows. `name` is what messages call the one who is asked.

    Raises `UserError` where the budget is reached, or where nobody can be asked; what was answered
    is kept, and the same command goes on from there.
    """
    assert context.ledger is not None
    with Ledger(context.ledger) as ledger:
        spending = Spending(context.budget or Budget(), *ledger.spent(context.run))
        outcome = ask_all({name: session}, {name: questions}, ledger, spending, context.run)
    if spending.exhausted:
        raise UserError(spending.refusal(context.ledger))
    if why := outcome.given_up.get(name):
        raise UserError(
            f"{name}: {why}; every answer so far is in {context.ledger}, and the same command "
            f"asks for the rest"
        )
    return outcome.answers[name]


def first_asked(judges: Ensemble) -> ApiJudge | None:
    """The first judge that is asked at an endpoint, if any is."""
    asked = (judge for judge in judges.judges.values() if isinstance(judge, ApiJudge))
    return next(asked, None)
