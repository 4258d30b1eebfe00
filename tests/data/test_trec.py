"""TREC's formats, read and written."""

from __future__ import annotations

import json
from pathlib import Path

import ir_measures
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zelo.data.records import TREC, read_qrels
from zelo.data.trec import TrecFiles, read_documents, read_run, read_topics, write_run
from zelo.errors import UserError
from zelo.evaluation.metrics import evaluate_rankings
from zelo.models.rerank_file import documents_of

CLASSIC = """<top>
<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations.
</top>
<top>
<num> Number: 302
<title> Poliomyelitis and
   Post-Polio
</top>
"""
XML = """<topics>
<topic number="1"><query>coronavirus &amp; origin</query><question>what is it</question></topic>
<topic number='2'><query>masks</query></topic>
</topics>
"""
LESS = """<top>
<num> Number: 1
<title> cost < 5 and x<y
<desc> Description: what costs less
</top>
<top><num> Number: 2 <title>List<String> in Java</title></top>
<top><num> Number: 3 <title> a <b <narr> and no more </top>
"""
CLINICAL = """<topics task="2021 TREC Clinical Trials">
  <topic number="1">
    A 45-year-old man with p < 0.05 &amp; anaplastic
    astrocytoma.
  </topic>
  <topic number="2" template="glaucoma">
    <field name="condition">glaucoma</field><field name="age">60</field>
  </topic>
  <topic number="3"><disease>Liposarcoma</disease><gene>CDK4</gene>
    <demographic>38-year-old male</demographic></topic>
</topics>
"""
DECISIONS = """<topics><topic number="1" type="diagnosis"><description>a long story</description>
<summary>short</summary></topic>
<topic number="2"><description>only this</description></topic></topics>
"""


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.topics", CLASSIC, [("301", "International Organized Crime"),
                               ("302", "Poliomyelitis and Post-Polio")]),
        ("b.xml", XML, [("1", "coronavirus & origin"), ("2", "masks")]),
        ("c.tsv", "\ufeffq1\twhat is it\r\nq2\ta: b\r\n", [("q1", "what is it"), ("q2", "a: b")]),
        ("d.tsv", "qid\tquery\nq1\twhat is it\n", [("q1", "what is it")]),
        ("e.tsv", "text\t_id\nwhat is it\tq1\nid\ttext\n", [("q1", "what is it"), ("text", "id")]),
        ("f.tsv", "q0\ttext\nq1\twhat is it\n", [("q0", "text"), ("q1", "what is it")]),
        ("g.topics", LESS, [("1", "cost < 5 and x<y"), ("2", "List<String> in Java"),
                            ("3", "a <b")]),
        ("h.xml", CLINICAL, [("1", "A 45-year-old man with p < 0.05 & anaplastic astrocytoma."),
                             ("2", "condition: glaucoma age: 60"),
                             ("3", "Liposarcoma CDK4 38-year-old male")]),
        ("i.xml", DECISIONS, [("1", "short"), ("2", "only this")]),
    ],
)  # fmt: skip
def test_topics(tmp_path: Path, name: str, content: str, expected: list[tuple[str, str]]) -> None:
    assert list(read_topics(write(tmp_path / name, content))) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", "q1\twhat\tis it\n", r"t\.tsv:1: expected id<TAB>text, found 3 fields"),
        ("t.tsv", "q1\tx\nq1\ty\n", r"t\.tsv:2: topic 'q1' was there before"),
        ("t.tsv", "\n", r"t\.tsv: empty"),
        ("t.xml", "<top><num> 1 </top>", r"t\.xml: topic 1 has no number or no text"),
    ],
)
def test_a_mistake_in_topics_is_named(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        list(read_topics(write(tmp_path / name, content)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q1 0 d1\n", r"q:1: score must be a whole number, found 'd1'"),
        ("q1 0 d1 1\nq1 0 d2\n", r"q:2: expected 4 fields separated by white space .* found 3"),
        ("q1 0 d1 1\nq1 0 d2 1.5\n", r"q:2: score must be a whole number, found '1.5'"),
        ("q1\t0\td\tx\t1\n", r"q:1: expected 3 fields .* or TREC's 4 .*, found 5"),
    ],
)
def test_a_mistake_in_qrels_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_qrels(write(tmp_path / "q", content), TREC))


def test_files_make_a_collection(tmp_path: Path) -> None:
    source = TrecFiles(
        documents=str(write(tmp_path / "docs.tsv", "d1\tone\nd2\ttitle\ttwo\nd3\tthree\n")),
        topics=str(write(tmp_path / "some.topics", CLASSIC)),
        qrels={"test": str(write(tmp_path / "qrels", "301 0 d2 2\n301 0 d3 0\n")), "train": None},
    )
    collection = source.load()
    assert collection.name == "some"
    documents = pa.concat_tables(collection.documents).to_pylist()
    assert documents[1] == {"doc_id": "d2", "title": "title", "text": "two"}
    assert [row["split"] for row in collection.queries.to_pylist()] == ["test", "train"]
    assert collection.qrels.num_rows == 2
    before = source.fingerprint()
    write(tmp_path / "qrels", "301 0 d2 1\n")
    assert source.fingerprint() != before
    json_lines = write(tmp_path / "d.jsonl", '{"docid": "d1", "contents": "x"}\n')
    other = TrecFiles(documents=str(json_lines), topics=source.topics)
    assert pa.concat_tables(other.load().documents).to_pylist() == [
        {"doc_id": "d1", "title": "", "text": "x"}
    ]
    with pytest.raises(UserError, match=r"nowhere: not found; it was named as the topics"):
        TrecFiles(documents=str(json_lines), topics=str(tmp_path / "nowhere")).load()


@given(
    st.dictionaries(
        st.sampled_from([f"d{i}" for i in range(9)] + ["D 1", "é"]),
        st.sampled_from([0.0, 0.5, 0.25, -1.0]),
        min_size=1,
    ),
    st.dictionaries(st.sampled_from([f"d{i}" for i in range(9)]), st.integers(0, 2), min_size=1),
)
def test_ties_of_a_run_are_broken_as_trec_eval_does(
    scores: dict[str, float], grades: dict[str, int]
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        lines = [f"q Q0 {d.replace(' ', '_')} 1 {s} x\n" for d, s in scores.items()]
        run = read_run(write(Path(folder) / "r", "".join(lines)))
    grades |= {"d0": 1}
    ours = evaluate_rankings({"q": [d for d, _ in run["q"]]}, {"q": grades}, ["NDCG@3", "MRR"])
    theirs = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 3, ir_measures.RR],
        {"q": grades},
        {"q": {d.replace(" ", "_"): s for d, s in scores.items()}},
    )
    for name, measure in (("NDCG@3", ir_measures.nDCG @ 3), ("MRR", ir_measures.RR)):
        assert ours[name][0] == pytest.approx(theirs[measure], abs=1e-6)


def test_scores_are_compared_in_single_precision(tmp_path: Path) -> None:
    """As trec_eval holds them: these two are equal there, and the higher id comes first."""
    run = read_run(write(tmp_path / "r", "q Q0 a 1 1.00000001 x\nq Q0 b 2 1.0 x\n"))
    assert [doc_id for doc_id, _ in run["q"]] == ["b", "a"]
    reciprocal = ir_measures.calc_aggregate(
        [ir_measures.RR], {"q": {"a": 1}}, {"q": {"a": 1.00000001, "b": 1.0}}
    )
    assert reciprocal[ir_measures.RR] == 0.5


def test_documents_that_occur_twice_are_named(tmp_path: Path) -> None:
    for name, content in (
        ("d.tsv", "a\tx\nb\ty\na\tz\n"),
        (
            "d.jsonl",
            '{"id": "a", "text": "x"}\n{"id": "b", "text": "x"}\n{"id": "a", "text": ""}\n',
        ),
    ):
        path = write(tmp_path / name, content)
        with pytest.raises(UserError, match=r"d\.\w+:3: id 'a' was used before, on line 1"):
            list(read_documents(path))


def test_a_run_comes_back_in_its_order(tmp_path: Path) -> None:
    ranking = {"q1": [("b", 1.0), ("a", 1.0), ("c", 0.5)], "q2": [("x", -3.25)]}
    write_run(tmp_path / "r", ranking, "tag")
    back = read_run(tmp_path / "r")
    assert {q: [d for d, _ in ranked] for q, ranked in back.items()} == {
        "q1": ["b", "a", "c"],
        "q2": ["x"],
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id\ttext\nd1\tone\n", ("d1", "", "one")),
        ("docid\ttitle\ttext\nd1\tT\tone\n", ("d1", "T", "one")),
        ("id\ttext\ttitle\nd1\tone\tT\n", ("d1", "T", "one")),  # as DPR's passages
        ("d1\tT\tone\n", ("d1", "T", "one")),
        ("d1\ttext\n", ("d1", "", "text")),
    ],
)
def test_a_first_line_that_names_columns_is_no_document(
    tmp_path: Path, content: str, expected: tuple[str, str, str]
) -> None:
    assert list(read_documents(write(tmp_path / "d.tsv", content))) == [expected]


def test_numbers_are_ids_and_titles_of_json_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", '{"docid": 7, "contents": "x", "title": ["A", 2]}\n')
    assert list(read_documents(path)) == [("7", "A 2", "x")]


def test_documents_to_rerank_have_the_titles_that_collections_have(tmp_path: Path) -> None:
    rows = [{"text": "x", "title": title} for title in (1984, ["A", 2], None, "T")]
    path = write(tmp_path / "d.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [text for _, text in documents_of(str(path))] == ["1984 x", "A 2 x", "x", "T x"]
