from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from zelo.artifacts import table, write_json, write_table
from zelo.data.collection import load
from zelo.judging.ensemble import average
from zelo.reporting import plots
from zelo.reporting.judges import Panel
from zelo.reporting.report import caveats, matrices_of_one_query, report
from zelo.reporting.results import Comparison, Estimate
from zelo.store import RECORD

EVIL = "</figcaption><script>document.title='stolen'</script><img src=http://x/y> $x^2$ {{ 7*7 }}"


def test_matrices_are_sorted_by_elo(tmp_path: Path) -> None:
    rows = [("q", "a", "b", 0.2), ("q", "c", "b", -0.6), ("other", "a", "b", 0.0)]
    n = len(rows)
    judgments = table(
        "judgments",
        query_id=[r[0] for r in rows],
        doc_a=[r[1] for r in rows],
        doc_b=[r[2] for r in rows],
        repeat=[0] * n,
        judge=["j"] * n,
        score=[r[3] for r in rows],
        status=["answered"] * n,
        reasons=[""] * n,
    )
    write_table(
        tmp_path,
        "candidates",
        table(
            "candidates",
            query_id=["q"] * 4,
            doc_id=list("abcd"),
            rank=[1, 2, 3, 4],
            score=[0.0] * 4,
        ),
    )
    elos = table(
        "ratings",
        query_id=["q"] * 3,
        doc_id=list("abc"),
        elo=[-1.0, 0.0, 1.0],
        stderr=[0.1] * 3,
        target=[0.0] * 3,
    )
    write_table(tmp_path, "ratings", elos)
    found = matrices_of_one_query(average(judgments, "soft"), tmp_path, tmp_path)
    assert found is not None
    query_id, before, after = found
    nan = np.nan
    assert query_id == "q"
    np.testing.assert_allclose(before, [[nan, 0.4, nan], [0.6, nan, 0.2], [nan, 0.8, nan]])
    np.testing.assert_allclose(after, [[nan, 0.8, nan], [0.2, nan, 0.6], [nan, 0.4, nan]])


@pytest.mark.parametrize(
    ("difference", "p", "verdict"),
    [
        (0.1, 0.01, "significantly better"),
        (-0.1, 0.01, "significantly worse"),
        (0.1, 0.06, "not significantly different"),
    ],
)
def test_the_verdict_says_no_more_than_the_test(difference: float, p: float, verdict: str) -> None:
    assert Comparison("m", Estimate(difference, 0, 0), p, 0, 0, 0).verdict == verdict


def test_what_went_less_than_well_is_said() -> None:
    counts = {
        "retrieve": {"queries_without_candidates": 0, "queries_with_one_candidate": 2},
        "compare": {"queries_too_few_candidates": 0},
        "judge": {"failed": 1200, "missing": 3},
        "rate": {"disconnected_queries": 0, "not_converged": 0},
    }
    down = Panel("", [], [], None, {}, {}, {"x": "gone"})
    assert caveats(counts, [{"stage": "judge", "counts": counts["judge"]}], [down]) == [
        "2 queries have only one candidate",
        "1,200 judgments failed",
        "3 judgments are missing; the same command asks for them",
        "judge x was given up: gone",
    ]


def test_the_same_figure_is_the_same_file() -> None:
    drawn = [plots.elo_distribution([0.0, 1.0, -1.0], [0.1, 0.2, 0.1]) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert "<svg" in drawn[0]


@pytest.fixture
def page(tmp_path: Path, beir_folder: Path) -> Path:
    """A report whose query, collection and model names try to break out of it."""
    from hydra import compose, initialize_config_dir

    from zelo.config import build_from, conf_folder

    queries = beir_folder / "queries.jsonl"
    queries.write_text(queries.read_text().replace("history of apples", EVIL.replace('"', "'")))
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        run = build_from(
            compose(
                "config",
                overrides=[
                    "data=beir",
                    f"data.path={beir_folder}",
                    "data.name='<b>&'",
                    "rating.joint_judges=true",
                ],
            )
        )
    folders = {}
    for name in ("data", "candidates", "comparisons", "judgments", "ratings", "trained", "metrics"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
    load(out=folders["data"], source=run.data)
    query, docs = "q-apples-history", [f"d{i}-apples" for i in (0, 3)]
    write = write_table
    write(
        folders["candidates"],
        "candidates",
        table("candidates", query_id=[query] * 2, doc_id=docs, rank=[1, 2], score=[2.0, 1.0]),
    )
    write(
        folders["judgments"],
        "judgments",
        table(
            "judgments",
            query_id=[query] * 8,
            doc_a=docs[:1] * 6 + docs[1:] + docs[:1],
            doc_b=docs[1:] * 6 + docs[:1] + docs[1:],
            repeat=[0, 1, 2, 3, 4, 5, 0, 0],
            judge=["<script>j"] * 6 + ["k", "down"],
            score=[-0.5, -0.5, -0.5, 0.5, 0.0, None, 0.9, None],
            status=["answered"] * 5 + ["refused", "answered", "missing"],
            reasons=[""] * 8,
        ),
    )
    write(
        folders["ratings"],
        "ratings",
        table(
            "ratings",
            query_id=[query] * 2,
            doc_id=docs,
            elo=[0.3, -0.3],
            stderr=[0.2, 0.2],
            target=[0.0, 0.0],
        ),
    )
    write(
        folders["ratings"],
        "judges",
        table(
            "judges",
            judge=["<script>j"],
            answers=[1234],
            failed=[0],
            ties=[5],
            first=[0.625],
            agreement=[0.75],
            bias=[0.125],
            bias_stderr=[0.05],
            scale=[1.5],
            log_scale_stderr=[0.1],
        ),
    )
    write(folders["trained"], "losses", table("losses", step=[1, 2], loss=[0.5, 0.4]))
    rows = [(s, m) for s in ("bm25", "start", "zelo") for m in ("NDCG@10", "Recall@10")]
    write(
        folders["metrics"],
        "metrics",
        table(
            "metrics",
            system=[r[0] for r in rows],
            metric=[r[1] for r in rows],
            value=[0.5] * 6,
            low=[0.4] * 6,
            high=[0.6] * 6,
            queries=[8] * 6,
        ),
    )
    one = {
        "difference": 0.01,
        "low": -0.1,
        "high": 0.1,
        "p_value": 0.5,
        "wins": 2,
        "losses": 1,
        "ties": 5,
    }
    write_json(folders["metrics"] / "significance.json", {"NDCG@10": one, "Recall@10": one})
    counts = {
        "data": ("load", {"documents": 32}),
        "candidates": (
            "retrieve",
            {"queries_without_candidates": 0, "queries_with_one_candidate": 0},
        ),
        "comparisons": ("compare", {"queries_too_few_candidates": 0}),
        "judgments": (
            "judge",
            {
                "comparisons": 1,
                "judgments": 7,
                "failed": 1,
                "missing": 1,
                "usd": 0.0,
                "documents_cut": {"<script>j": 4321},
                "failed_attempts": {"<script>j": {"rate_limited": 17, "server_error": 2}},
                "given_up": {"down": "unauthorised <b>"},
            },
        ),
        "ratings": (
            "rate",
            {"queries": 1, "documents": 2, "disconnected_queries": 0, "not_converged": 0},
        ),
        "trained": ("train", {"queries": 1, "steps": 2}),
        "metrics": ("evaluate", {"queries": 8, "split": "test"}),
    }
    for name, (of, count) in counts.items():
        write_json(folders[name] / RECORD, {"stage": of, "seconds": 1.0, "counts": count})
    out = tmp_path / "out"
    out.mkdir()
    report(out=out, run=run, vote="soft", **folders)
    return out / "report.html"


def test_texts_cannot_break_the_page_and_it_needs_nothing_else(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "&lt;/figcaption&gt;&lt;script&gt;" in html
    assert "{{ 7*7 }}" in html
    assert "<script" not in html
    assert "<b>&" not in html
    assert not re.findall(
        r"""(?:src|href)=["']?(?!data:)[^"' >]+""", html.replace("src=http://x/y", "")
    )
    for shown in ("&lt;script&gt;j", "75.0%", "+0.12", "1.50", "1.22", "4,321"):
        assert shown in html
    text = " ".join(re.sub("<[^>]*>", " ", html).split())
    # answers, ties, failed, missing; preferring the first in three of four that decided
    assert "&lt;script&gt;j 5 1 20.0% 1 0 75.0% ± 42.4%" in text
    assert "down 0 0 0 1 –" in text
    assert "100.0% of 1" in text  # j by the mean of its answers, k the other way round
    assert "All judges chose the same document in 100.0%" in text
    assert "failed answers: refused 1; attempts that failed when it was last asked: " in text
    assert "rate limited 17, server error 2." in text
    assert "1 judgments are missing; the same command asks for them" in text
    assert "judge down was given up: unauthorised &lt;b&gt;" in text
    for part in (
        "Results",
        "Judges",
        "Comparisons of one query",
        "Elos",
        "Training",
        "What it cost",
        "Configuration",
    ):
        assert f"{part}</" in html
    assert html.count("<img") == 4
    assert "not significantly different" in html
    card = (page.parent / "README.md").read_text(encoding="utf-8")
    learned = json.loads(card.split("```json\n")[1].split("```")[0])
    assert learned["objective"]["_target_"].endswith("CentredMSE")
    assert learned["training"]["batch"] == 4
    assert card.startswith(
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity"
    )


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_it(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    browser = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    dumped = subprocess.run(
        [*browser, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "<title>zELO on &lt;b&gt;&amp;</title>" in dumped
    subprocess.run(
        [*browser, f"--screenshot={picture}", "--window-size=900,2600", page.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    from matplotlib.image import imread

    pixels = imread(picture)[..., :3]
    # Blue of the Elo histogram: the pictures are drawn, not just linked.
    assert (np.abs(pixels - np.array([9, 105, 218]) / 255).max(axis=2) < 0.02).sum() > 500
