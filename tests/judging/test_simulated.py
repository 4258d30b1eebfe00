from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from zelo.judging.question import FAILED, Question
from zelo.judging.simulated import Noise, SimulatedSession

N = 20_000


def asked(noise: Noise, gap: float, seed: int = 0) -> list[float | None]:
    scores = {(f"q{n}", doc_id): s for n in range(N) for doc_id, s in (("a", gap), ("b", 0.0))}
    judge = SimulatedSession("f", scores, noise, seed)
    questions = [Question(f"q{n}", "a", "b", 0, "", "", "") for n in range(N)]
    return [answer.score for answer in judge.answer(questions)]


@pytest.mark.parametrize("gap", [-3.0, 0.0, 0.7, 2.0])
def test_answers_follow_the_noise_model(gap: float) -> None:
    """Mean against the integral of METHOD's formula over its noise."""
    preference = (1 - np.array(asked(Noise(spread=0.2, guess=0.02), gap))) / 2
    smooth = quad(lambda e: expit(gap + 0.2 * e) * norm.pdf(e), -8, 8)[0]
    assert preference.mean() == pytest.approx(0.98 * smooth + 0.02 * 0.5, abs=0.002)


def test_without_noise_the_answer_is_the_sigmoid() -> None:
    assert asked(Noise(spread=0, guess=0), 1.0)[0] == pytest.approx(1 - 2 * expit(1.0))


def test_position_bias_favours_the_first() -> None:
    scores = asked(Noise(spread=0, guess=0, position_bias=1.5), 0.0)
    assert scores[0] == pytest.approx(1 - 2 * expit(1.5))


def test_small_differences_are_ties_when_asked() -> None:
    scores = np.array(asked(Noise(spread=0.3, guess=0, tie_width=0.2), 0.0))
    assert 0.5 < (scores == 0).mean() < 0.9
    assert (np.abs(scores[scores != 0]) >= 0.2).all()


def test_a_failure_is_not_a_tie() -> None:
    scores = asked(Noise(failure_rate=0.1), 0.0)
    assert scores.count(None) / N == pytest.approx(0.1, abs=0.01)


def test_an_answer_depends_on_its_question_alone() -> None:
    scores = {("q", doc_id): float(i) for i, doc_id in enumerate("abc")}
    judge = SimulatedSession("f", scores, Noise(failure_rate=0.3), 7)
    questions = [
        Question("q", a, b, r, "", "", "") for a in "abc" for b in "abc" if a != b for r in (0, 1)
    ]
    together = judge.answer(questions)
    assert [judge.answer([q])[0] for q in reversed(questions)] == together[::-1]
    assert {a.status for a in together} == {"answered", FAILED}
    assert judge.answer([]) == []


def test_views_need_privileged_text_and_grades_need_labels(
    beir_folder: Path, tmp_path: Path
) -> None:
    from zelo.data.beir import BeirFolder
    from zelo.data.collection import load
    from zelo.errors import UserError
    from zelo.judging.views import Grades, Lexical

    load(out=tmp_path, source=BeirFolder(path=str(beir_folder)))
    pairs = {"q-apples-history": ["d0-apples", "d3-apples", "d0-poems"]}
    with pytest.raises(UserError, match="only the built-in collection has"):
        Lexical().hidden_scores(tmp_path, pairs)
    assert list(Grades(gain=2).hidden_scores(tmp_path, pairs).values()) == [4.0, 2.0, 0.0]
    tested = {"q-apples-theory": ["d1-apples"]}  # as `zelo evaluate` asks about
    assert set(Grades(gain=2).hidden_scores(tmp_path, tested).values()) == {4.0}
    with pytest.raises(UserError, match="these have none"):
        Grades().hidden_scores(tmp_path, {"q-unknown": ["d0-poems"]})
