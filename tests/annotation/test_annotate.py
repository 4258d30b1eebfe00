"""People beside judges: which pairs they are asked about, what is kept, what is said of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from tests.conftest import Cli, write_beir

from zelo.annotation.agreement import (
    judgments_of_people,
    kappa,
    kappa_with_interval,
    sharpness,
    with_people,
)
from zelo.annotation.desk import Desk
from zelo.annotation.exchange import keep_answers, rows_of, write_answers
from zelo.annotation.pairs import Ids, boundary_values, in_order, is_random
from zelo.annotation.source import AnnotationSource
from zelo.annotation.two_systems import answers_to_settle, pairs_between, preference, ranks_in_table
from zelo.artifacts import Table, read_table, table
from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.errors import UserError
from zelo.finished_run import FinishedRun
from zelo.judging.ledger import Ledger
from zelo.judging.person import Person, checked_name
from zelo.judging.question import Answer, Question

NAMES = ["Ann", "Jürgen / 2"]


def pairs(n: int, query: str = "q") -> list[Ids]:
    return [(query, f"a{i}", f"b{i}") for i in range(n)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    asked = pairs(12)
    documents = {d: f"text of {d}" for ids in asked for d in ids[1:]}
    ledger = Ledger(tmp_path / "ledger.sqlite")
    return Desk(asked, ledger, {"q": "a query"}, documents, {"q": "recent ones"})


def test_pairs_come_in_turn_and_each_once() -> None:
    every = [ids for n in range(8) for ids in pairs(40, f"q{n}")]
    rng = np.random.default_rng(0)
    p = {ids: float(rng.choice([0.0, 0.5, 2 / 3, 1.0])) for ids in every}
    ratings = {
        f"q{n}": {f"{side}{i}": (float(-i), 1.0) for i in range(40) for side in "ab"}
        for n in range(8)
    }
    # Of pairs (a_i, b_i) both stand on one side of the top ten but those of other ranks
    crossing = [("q0", "a4", "a6"), ("q0", "a0", "a39"), ("q0", "a1", "b3")]
    p |= dict.fromkeys(crossing, 1.0)
    values = boundary_values(p, ratings)
    assert set(values) == set(crossing[:2])  # b3 is among the ten as well
    assert 0.5 > values[crossing[0]] > values[crossing[1]] > 0
    found = in_order(p, ratings)
    assert sorted(found) == sorted(p)
    assert 0.1 < sum(map(is_random, p)) / len(p) < 0.3
    assert [is_random(ids) for ids in found[:2]] == [True, False]
    undecided = [ids for ids in found if not is_random(ids) and p[ids] == 0.5]
    assert len({ids[0] for ids in undecided[:8]}) == 8  # one of each query first
    first = next(ids for ids in found if ids in crossing[:2] and not is_random(ids))
    assert found.index(first) <= 2


def test_an_answer_is_kept_whatever_side_it_was_on(desk: Desk, tmp_path: Path) -> None:
    sides = set()
    for person in NAMES:
        while (shown := desk.next(person)) is not None:
            better_left = shown.question.doc_a.startswith("a")
            sides.add(better_left)
            assert desk.answer(person, shown.number, "left" if better_left else "right")
            assert not desk.answer(person, shown.number, "tie")  # the first counts
    assert sides == {True, False}
    kept = judgments_of_people(desk, NAMES)
    assert set(kept["doc_a"].to_pylist()) == {f"a{i}" for i in range(12)}
    assert set(kept["score"].to_pylist()) == {-1.0}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:  # another process, after a kill
        again = Desk(desk.pairs, ledger, desk.queries, desk.documents, desk.instructions)
        assert [again.next(person) for person in NAMES] == [None, None]
        assert again.next("Bob") is not None
        assert len(ledger.judges("person:")) == 2


def test_the_latest_answer_is_taken_back(desk: Desk) -> None:
    first = desk.next("Ann")
    assert first is not None
    desk.answer("Ann", first.number, "cannot_say")
    second = desk.next("Ann")
    assert second is not None
    desk.answer("Ann", second.number, "tie")
    assert desk.undo("Ann") == second
    assert desk.undo("Ann") == first
    assert desk.undo("Ann") is None
    assert desk.progress("Ann")["answered"] == 0
    assert desk.answer("Ann", first.number, "left")


def rankings_of(**systems: dict[str, str]) -> Table:
    """Documents of one letter by system and query, the best first."""
    rows = [
        (system, query_id, doc_id, rank)
        for system, queries in systems.items()
        for query_id, ranked in queries.items()
        for rank, doc_id in enumerate(ranked, 1)
    ]
    system, query_id, doc_id, rank = zip(*rows, strict=True)
    return table("rankings", system=system, query_id=query_id, doc_id=doc_id, rank=rank,
                 score=[-float(r) for r in rank])  # fmt: skip


def test_pairs_between_two_systems_are_those_that_they_order_otherwise() -> None:
    rankings = rankings_of(
        old={"q": "abcd", "same": "ab", "only": "ab", "r": "xyz"},
        new={"q": "bacx", "same": "ab", "r": "zyx"},
    )
    found = pairs_between(ranks_in_table(rankings, "old"), ranks_in_table(rankings, "new"))
    # Of r: y stands second in both. Of q: a before b and b before a, then c in both, then d or x.
    assert found == {("q", "a", "b"): True, ("q", "d", "x"): True, ("r", "x", "z"): True}
    assert [ids[0] for ids in found][-1] == "q"  # second pairs come last
    with pytest.raises(UserError, match=r"'mine' is no file, and no system .* have new, old"):
        ranks_in_table(rankings, "mine")


def test_answers_between_two_systems_are_counted_by_side() -> None:
    between = {("q", "a", "b"): True, ("q", "c", "d"): False, ("r", "a", "b"): True}

    def said(query_id: str, a: str, b: str, score: float | None) -> tuple[Question, str, Answer]:
        question = Question(query_id, a, b, 0, "query", "text", "other text")
        return question, "Ann", Answer(score, "answered" if score is not None else "cannot_say")

    found = preference(
        [
            said("q", "b", "a", 1.0),  # a is better, which the first system says
            said("q", "c", "d", -1.0),  # c, which the second says
            said("r", "a", "b", -1.0),
            said("r", "a", "b", 0.0),
            said("r", "a", "b", None),
        ],
        between,
    )
    assert (found.answers, found.decided) == (4, 3)
    assert found.share[0] == pytest.approx(2 / 3)
    assert not found.settled
    assert preference([], between).more is None


@pytest.mark.parametrize("share", [0.55, 0.6, 0.7, 0.35])
def test_so_many_answers_settle_it_in_four_of_five_cases(share: float) -> None:
    needed = answers_to_settle(share, 1)
    assert needed is not None
    n = needed + 1
    right = np.random.default_rng(0).binomial(n, share, 20_000) / n
    settled = np.abs(right - 0.5) > 1.96 * 0.5 / np.sqrt(n)
    assert settled.mean() == pytest.approx(0.8, abs=0.06)
    assert answers_to_settle(share, n) == 0
    assert answers_to_settle(0.5, 10) is None
    assert answers_to_settle(0.501, 10) is None


def test_two_trec_runs_on_a_collection_without_a_run(cli: Cli, tmp_path: Path) -> None:
    documents = {f"d{i}": f"text {i}" for i in range(4)}
    write_beir(tmp_path / "data", documents, {"q1": "one", "q2": "two"}, {})
    (tmp_path / "old.trec").write_text("q1 Q0 d0 1 2 x\nq1 Q0 d1 2 1 x\nq2 Q0 d3 1 1 x\n")
    (tmp_path / "new.trec").write_text("q1 Q0 d1 1 2 x\nq1 Q0 d0 2 1 x\nq2 Q0 d2 1 1 x\n")
    (tmp_path / "other.trec").write_text("q1 Q0 d9 1 2 x\n")
    words = ("annotate", str(tmp_path / "data"), f"home={tmp_path / 'home'}")
    between = f"between={tmp_path / 'old.trec'},{tmp_path / 'new.trec'}"
    answers = tmp_path / "answers.csv"
    answers.write_text("query_id,doc_a,doc_b,person,choice\nq1,d0,d1,Ann,b\nq2,d2,d3,Ann,equal\n")
    done = cli(*words, between, f"import={answers}")
    assert done.returncode == 0, done.stderr
    assert "2 new answers" in done.stderr
    report = cli(*words, between, "--report")
    assert report.returncode == 0, report.stderr
    assert "2 answers of 1 people" in report.stderr
    assert "in 1 one document was better" in report.stderr
    assert "0.0% [0.0%, " in report.stderr
    assert "further decided answers" in report.stderr
    for wrong, why in (
        ([f"between={tmp_path / 'old.trec'},{tmp_path / 'other.trec'}"], "document 'd9' is not in"),
        ([f"between={tmp_path / 'old.trec'},new"], "'new' is no file"),
        (["between=a,a"], "two systems are needed"),
        ([], "a collection alone has no pairs"),
    ):
        refused = cli(*words, *wrong, "--report")
        assert refused.returncode == 2
        assert why in refused.stderr


def test_what_is_no_answer(desk: Desk) -> None:
    for number, choice in ((99, "left"), (-1, "left"), (0, "both")):
        with pytest.raises(ValueError, match="pair"):
            desk.answer("Ann", number, choice)
    for name in ("", "  ", "a\0b"):
        with pytest.raises(ValueError, match="a name has letters"):
            checked_name(name)
    for name in ("x" * 181, "\U0001f600" * 50):
        with pytest.raises(ValueError, match="too long a name"):
            checked_name(name)
    assert checked_name("  Ann   Lee ") == "Ann Lee" == Person(name="Ann  Lee").name
    assert checked_name("Ju\u0308rgen") == "J\u00fcrgen"


def test_another_process_has_answered_meanwhile(desk: Desk, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        other = Desk(desk.pairs, ledger, desk.queries, desk.documents, desk.instructions)
        assert (desk.next("Ann"), other.next("Ann")) != (None, None)
        assert other.answer("Ann", 0, "tie")
        assert not desk.answer("Ann", 0, "left")  # which is not kept, and not undone
        assert desk.of("Ann")[0].score == 0.0
        assert desk.undo("Ann") is None
        assert ledger.count_answers("person:Ann", 9) == 1


def test_documents_of_one_text_are_asked_about_once(beir_folder: Path, tmp_path: Path) -> None:
    with (beir_folder / "corpus.jsonl").open("a") as file:
        text = "apples history about apple number 0"
        file.write(json.dumps({"_id": "copy", "title": "", "text": text}) + "\n")
    (data := tmp_path / "data").mkdir()
    load(out=data, source=BeirFolder(path=str(beir_folder)))
    with Ledger(tmp_path / "another.sqlite") as ledger:
        query = "q-apples-history"
        asked = [(query, "d0-apples", "d1-apples"), (query, "copy", "d1-apples")]
        asked.append((query, "d1-apples", "d2-apples"))
        desk = Desk.of_collection(data, asked, ledger)
    assert desk.pairs == [asked[0], asked[2]]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_answers_go_out_and_come_back(kind: str, desk: Desk, tmp_path: Path) -> None:
    for person, choices in zip(NAMES, (["left", "right"], ["tie", "cannot_say"]), strict=True):
        for choice in choices * 3:
            shown = desk.next(person)
            assert shown is not None
            desk.answer(person, shown.number, choice)
    path = tmp_path / f"answers.{kind}"
    assert write_answers(desk, NAMES, path) == 12
    ledger = Ledger(tmp_path / "another.sqlite")
    other = Desk(desk.pairs, ledger, desk.queries, desk.documents, desk.instructions)
    assert keep_answers(other, rows_of(path)) == (12, 0)
    assert keep_answers(other, rows_of(path)) == (0, 0)
    assert judgments_of_people(other, NAMES) == judgments_of_people(desk, NAMES)
    fewer = Desk(desk.pairs[:3], ledger, desk.queries, desk.documents, desk.instructions)
    assert keep_answers(fewer, rows_of(path))[1] > 0


def test_a_swapped_row_is_turned(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    with path.open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["person", "choice", "query_id", "doc_a", "doc_b"])
        rows.writerow(["Ann", "a", "q", "b3", "a3"])
    assert keep_answers(desk, rows_of(path)) == (1, 0)
    assert desk.of("Ann")[3].score == 1.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "query_id,doc_a\nq,a", "no column doc_b, person, choice"),
        ("a.csv", "query_id,doc_a,doc_b,person,choice\nq,a,b,Ann,perhaps", "line 2: choice"),
        ("a.csv", "query_id,doc_a,doc_b,person,choice\nq,a,b", "line 2: choice ''"),
        ("a.csv", "query_id,doc_a,doc_b,person,choice\nq,a,b,,a", "line 2: a name has"),
        ("a.json", "{}", "a list of Label Studio's tasks"),
        ("a.json", "[", "no JSON"),
        ("a.json", '[{"data": {}}]', "task 0: not as Label Studio writes it"),
        ("a.txt", "", ".csv or .json"),
    ],
)
def test_a_file_that_is_wrong(
    name: str, content: str, message: str, desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        keep_answers(desk, rows_of(tmp_path / name))
    with pytest.raises(UserError, match=r"cannot be read|\.csv or"):
        keep_answers(desk, rows_of(tmp_path / f"no-{name.replace('.txt', '.csv')}"))


def test_label_studios_own_export_is_read(desk: Desk, tmp_path: Path) -> None:
    """As its template for pairwise comparison writes it, with fields that are not needed."""
    task = {
        "id": 7,
        "data": {"query_id": "q", "doc_a": "a1", "doc_b": "b1", "prompt": "p"},
        "annotations": [
            {
                "id": 3,
                "completed_by": {"id": 1, "email": "ann@example.org"},
                "result": [
                    {
                        "id": "x", "type": "pairwise", "origin": "manual", "to_name": "l,r",
                        "from_name": "pw", "value": {"selected": "right"},
                    },
                    {"type": "textarea", "value": {"text": ["why"]}, "from_name": "t"},
                ],
            },
            {"completed_by": 12, "result": [], "was_cancelled": True},
        ],
    }  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps([task]))
    assert keep_answers(desk, rows_of(tmp_path / "export.json")) == (2, 0)
    assert desk.of("ann@example.org")[1].score == 1.0
    assert desk.of("12")[1].status == "cannot_say"


def test_kappa_is_cohens_of_both_orders() -> None:
    """scikit-learn's, where every pair stands in both orders."""
    rng = np.random.default_rng(0)
    one = rng.choice([-1.0, 0.0, 1.0], 200, p=[0.5, 0.2, 0.3])
    other = np.where(rng.random(200) < 0.6, one, rng.choice([-1.0, 0.0, 1.0], 200))
    both = cohen_kappa_score(np.concatenate([one, -one]), np.concatenate([other, -other]))
    assert kappa(one, other, np.ones(200)) == pytest.approx(both)
    found, low, high = kappa_with_interval(one, other, np.arange(200) // 4)
    assert low < found < high
    assert np.isnan(kappa(np.zeros(3), np.zeros(3), np.ones(3)))
    assert np.isnan(kappa_with_interval(np.zeros(0), np.zeros(0), np.zeros(0, int))[0])


def test_a_judge_that_guesses_is_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    chosen = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    every = [(f"q{q}", f"d{i:02}", f"d{j:02}") for q in range(30) for i, j in chosen]
    worth = {(f"q{q}", f"d{i:02}"): rng.normal(0, 1.5) for q in range(30) for i in range(6)}

    def said(scale: float) -> list[float]:
        gap = np.array([worth[q, a] - worth[q, b] for q, a, b in every])
        return np.where(rng.random(len(every)) < 1 / (1 + np.exp(-scale * gap)), -1.0, 1.0).tolist()

    def rows(name: str, scores: list[float]) -> dict[str, list[object]]:
        q, a, b = map(list, zip(*every, strict=True))
        n = len(every)
        return {
            "query_id": q, "doc_a": a, "doc_b": b, "repeat": [0] * n, "judge": [name] * n,
            "score": list(scores), "status": ["answered"] * n, "reasons": [""] * n,
        }  # fmt: skip

    good, bad, ann = rows("good", said(2)), rows("bad", said(0.1)), rows("Ann", said(2))
    judges = table("judgments", **{k: [*good[k], *bad[k]] for k in good})
    people = table("judgments", **ann)
    found = {line.judge: line for line in with_people(judges, people, ["Ann"])}
    assert found.keys() == {"good", "bad"}
    assert found["good"].pairs == sum(map(is_random, every))
    assert found["good"].kappa[1] > found["bad"].kappa[2]
    sharp = {s.judge: s.scale for s in sharpness(judges, people, "thurstone", 0.05, ["Ann"])}
    assert sharp["Ann"] == pytest.approx(1)
    assert sharp["bad"] < 0.4 < 0.6 < sharp["good"]


def test_a_run_uses_what_people_answered(cli: Cli, toy: list[str], tmp_path: Path) -> None:
    words = ["run", "experiment=quickstart", *toy, f"home={tmp_path}"]
    done = cli(*words, f"hydra.run.dir={tmp_path}/one")
    assert done.returncode == 0, done.stderr
    run = FinishedRun.at(tmp_path / "one")
    answers = tmp_path / "answers.csv"
    (judged,) = run.judgments_folders()
    rows = read_table(judged, "judgments").to_pylist()[:60]
    with answers.open("w") as file:
        out = csv.writer(file)
        out.writerow(["query_id", "doc_a", "doc_b", "person", "choice"])
        seen = set()
        for row in rows:
            key = (row["query_id"], *sorted((row["doc_a"], row["doc_b"])))
            if key not in seen:
                seen.add(key)
                choice = "a" if row["score"] < 0 else "b"
                out.writerow([row["query_id"], row["doc_a"], row["doc_b"], "Ann", choice])
    none = cli("annotate", str(tmp_path / "one"), "--report")
    assert none.returncode == 2
    assert "nobody has compared" in none.stderr
    done = cli("annotate", str(tmp_path / "one"), f"import={answers}")
    assert done.returncode == 0, done.stderr
    assert f"{len(seen)} new answers" in done.stderr + done.stdout
    report = cli("annotate", str(tmp_path / "one"), "--report")
    assert report.returncode == 0, report.stderr
    assert "Ann" in report.stdout
    assert "κ" in report.stdout
    between = ("annotate", str(tmp_path / "one"), "between=bm25,zelo")
    done = cli(*between, f"export={tmp_path / 'between.csv'}")
    assert done.returncode == 0, done.stderr
    desk_pairs = AnnotationSource.at(tmp_path / "one", ["bm25", "zelo"], tmp_path).between()
    with answers.open("w") as file:  # all but the last side with what was trained
        out = csv.writer(file)
        out.writerow(["query_id", "doc_a", "doc_b", "person", "choice"])
        for n, ((query_id, low, high), bm25_first) in enumerate(desk_pairs.items()):
            last = n == len(desk_pairs) - 1
            out.writerow([query_id, low, high, "Ben", "b" if bm25_first != last else "a"])
    done = cli(*between, f"import={answers}")
    assert done.returncode == 0, done.stderr
    report = cli(*between, "--report")
    assert report.returncode == 0, report.stderr
    assert f"{len(desk_pairs)} answers of 1 people where bm25 and zelo disagree" in report.stderr
    assert "people find zelo better" in report.stderr
    unknown = cli("annotate", str(tmp_path / "one"), "between=bm25,best", "--report")
    assert unknown.returncode == 2
    assert "'best' is no file, and no system of a run; the results have bm25, " in unknown.stderr
    person = ["judge=[simulated,person]", "judge.judges.person.name=Ann"]
    done = cli(*words, *person, f"hydra.run.dir={tmp_path}/two")
    assert done.returncode == 0, done.stderr
    (judged,) = FinishedRun.at(tmp_path / "two").judgments_folders()
    of_ann = [r for r in read_table(judged, "judgments").to_pylist() if r["judge"] == "person"]
    assert sum(r["status"] == "answered" for r in of_ann) == len(seen)
    assert {r["status"] for r in of_ann} == {"answered", "missing"}
