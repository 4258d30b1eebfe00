from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from tests.reporting.tables import judgments_of_one_judge

from zelo.artifacts import table, write_json, write_table
from zelo.data.collection import load
from zelo.evaluation.significance import Estimate
from zelo.models.fusion import FUSION
from zelo.rating.preferences import average
from zelo.reporting import plots
from zelo.reporting.figures import most_compared
from zelo.reporting.judges import Panel
from zelo.reporting.report import caveats, report
from zelo.reporting.results import Comparison, label, weight_in_words, what_ships
from zelo.store import RECORD

HOSTILE = (
    "<svg onload=alert(1)><a href='javascript:alert(2)'>x</a></svg>\u202e"
    "</p></li></ol></details></style><style>*{display:none}</style><script src=//x/y.js></script>"
)
EVIL = "</figcaption><script>document.title='stolen'</script><img src=http://x/y> $x^2$ {{ 7*7 }}"


def test_matrices_are_sorted_by_elo(tmp_path: Path) -> None:
    rows = [("q", "a", "b", 0.2), ("q", "c", "b", -0.6), ("other", "a", "b", 0.0)]
    judgments = judgments_of_one_judge(rows)
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
    found = most_compared(average(judgments, "soft"), tmp_path, tmp_path)
    assert found is not None
    nan = np.nan
    assert found.query_id == "q"
    assert found.elo == [-1.0, 0.0, 1.0]
    np.testing.assert_allclose(found.matrix, [[nan, 0.4, nan], [0.6, nan, 0.2], [nan, 0.8, nan]])
    np.testing.assert_allclose(found.sorted, [[nan, 0.8, nan], [0.2, nan, 0.6], [nan, 0.4, nan]])


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
    down = Panel("", [], [], {}, None, {}, {}, {"x": "gone"})
    assert caveats(counts, [{"stage": "judge", "counts": counts["judge"]}], [down]) == [
        "2 queries have only one candidate",
        "1,200 judgments failed",
        "3 judgments are missing; the same command asks for them",
        "judge x was given up: gone",
    ]


def test_the_same_figure_is_the_same_file() -> None:
    drawn = [plots.histogram([0.0, 1.0, -1.0], "Elo") for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert "<svg" in drawn[0]


def test_a_figure_of_many_queries_or_steps_stays_small() -> None:
    many = np.random.default_rng(0).normal(size=100_000)
    assert len(plots.gains(many, "NDCG@10")) < 300_000
    assert len(plots.loss_curve(np.abs(many).tolist())) < 1_000_000


SHIPS = {"shipped": "trained", "shipped_because": "better on the held-out queries",
         "val/gain": 0.031, "val/gain_at_least": 0.0156, "validation_queries": 100}  # fmt: skip
FUSED = {"weight": 0.7, "start_weight": 0.5, "search_weight": 0.8, "start_search_weight": 0.6,
         "first_stage": "hybrid", "queries": 100}  # fmt: skip


def test_what_ships_is_said_with_what_to_change() -> None:
    """And rows and lines of a model that did not learn do not call it trained."""
    assert what_ships(SHIPS) == (
        "The trained model ships: +0.031 NDCG@10 on 100 held-out judged queries, with 95 % "
        "certainty at least +0.016."
    )
    start = {**SHIPS, "shipped": "start", "val/gain_at_least": -0.004}
    said = what_ships(start)
    assert said.startswith("The starting model ships, as training made it not surely better: +0.03")
    for what in ("at least -0.004", "more training queries", "other judges", "optimizer.lr"):
        assert what in said
    unasked = {"shipped": "trained", "shipped_because": "no query was held out"}
    assert what_ships(unasked).endswith("not held against the starting one: no query was held out.")
    assert label("zelo", SHIPS) == "zELO-trained"
    assert label("zelo", start) == "what ships (the start)"
    assert label("zelo-search+bm25", start) == "shipped search+BM25"
    names = ("zelo+hybrid", "start+bm25", "zelo-search", "start-search+bm25")
    assert [label(name) for name in names] == [
        "trained + hybrid", "start + BM25", "trained search", "start search+BM25",
    ]  # fmt: skip
    said = weight_in_words({"fusion": FUSED, "systems": ["zelo+hybrid"]})
    assert "0.7 of the model, 0.3 of hybrid (of the starting model's 0.5); z-scores" in said
    said = weight_in_words({"fusion": FUSED, "systems": ["zelo-search+bm25"]})
    assert "0.8 of the search, 0.2 of BM25 (of the starting model's 0.6)" in said


@pytest.fixture
def page(tmp_path: Path, beir_folder: Path) -> Path:
    """A report whose query, collection and model names try to break out of it."""
    from hydra import compose, initialize_config_dir

    from zelo.config import build_from, conf_folder

    queries = beir_folder / "queries.jsonl"
    queries.write_text(queries.read_text().replace("history of apples", EVIL.replace('"', "'")))
    corpus = beir_folder / "corpus.jsonl"
    first = "apples history about apple number 0"
    corpus.write_text(corpus.read_text().replace(first, json.dumps(HOSTILE)[1:-1]))
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
    names = ("data", "candidates", "comparisons", "judgments", "ratings", "trained", "fusion",
             "metrics")  # fmt: skip
    for name in names:
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
    write(
        folders["ratings"],
        "fits",
        table(
            "fits",
            query_id=[query],
            documents=[2],
            comparisons=[8],
            unanswered=[2],
            components=[1],
            iterations=[3],
            converged=[True],
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
    tested = "q-apples-theory"
    orders = [("start", docs), ("zelo", docs[::-1])]
    write(
        folders["metrics"],
        "rankings",
        table(
            "rankings",
            system=[system for system, _ in orders for _ in docs],
            query_id=[tested] * 4,
            doc_id=[doc_id for _, order in orders for doc_id in order],
            rank=[1, 2] * 2,
            score=[0.5, 0.25] * 2,
        ),
    )
    write(
        folders["metrics"],
        "per_query",
        table(
            "per_query",
            system=["start", "zelo"],
            query_id=[tested] * 2,
            metric=["NDCG@10"] * 2,
            value=[0.25, 0.75],
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
    fused = {"metric": "NDCG@10", "system": "zelo+hybrid", "baseline": "hybrid",
             "p_corrected": 0.5, **one}  # fmt: skip
    write_json(folders["metrics"] / "differences.json", [fused])
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
        "trained": ("train", {"queries": 1, "steps": 2, **SHIPS}),
        "fusion": ("fuse", FUSED),
        "metrics": ("evaluate", {"queries": 8, "split": "test", "systems": [], "fusion": FUSED}),
    }
    for name, (of, count) in counts.items():
        write_json(folders[name] / RECORD, {"stage": of, "seconds": 1.0, "counts": count})
    write_json(folders["fusion"] / FUSION, {**FUSED, "ndcg_at_10": {}})
    out = tmp_path / "out"
    out.mkdir()
    words = ["data=beir", "judge=[a,b]"]
    report(out=out, run=run, vote="soft", overrides=words, **folders)
    return out / "report.html"


class Links(HTMLParser):
    """What a page refers to, and what it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.to: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.to += [value or "" for name, value in attrs if name in ("src", "href")]


def test_texts_cannot_break_the_page_and_it_needs_nothing_else(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "&lt;/figcaption&gt;&lt;script&gt;" in html
    assert "{{ 7*7 }}" in html
    assert "<script" not in html
    assert "<b>&" not in html
    links = Links()
    links.feed(html)
    assert links.to
    assert all(to.startswith(("#", "data:")) for to in links.to)
    assert not {"script", "svg", "iframe", "object", "form"} & links.tags
    assert not [name for name in links.attributes if name.startswith("on")]
    for shown in ("&lt;script&gt;j", "75.0%", "+0.12", "1.50", "1.22", "4,321"):
        assert shown in html
    text = " ".join(re.sub("<[^>]*>", " ", html).split())
    # answers, ties, failed, missing; preferring the first in three of four that decided
    assert "&lt;script&gt;j 5 1 20.0% 1 0 75.0% ± 42.4%" in text
    assert "down 0 0 0 1 –" in text
    # one labelled pair, which both of them order as its labels do
    assert (
        "j 5 1 20.0% 1 0 75.0% ± 42.4% 75.0% +0.12 ± 0.10 1.50 × or ÷ 1.22 100.0% [20.7%, " in text
    )
    assert "nothing learns from them" in text
    assert (
        "100.0% [20.7%, 100.0%] of 1" in text
    )  # j by the mean of its answers, k the other way round
    assert "All judges chose the same document in 100.0%" in text
    assert "failed answers: refused 1; attempts that failed when it was last asked: " in text
    assert "rate limited 17, server error 2." in text
    assert "1 judgments are missing; the same command asks for them" in text
    assert "judge down was given up: unauthorised &lt;b&gt;" in text
    for part in (
        "Results",
        "Queries won and lost",
        "Judges",
        "Elos",
        "The query with the most comparisons",
        "Calibration",
        "Training",
        "What it cost",
        "Reproduce",
        "Configuration",
    ):
        assert f"{part}</" in html
    assert html.count("<img") == 8
    assert "not significantly different" in html
    card = (page.parent / "README.md").read_text(encoding="utf-8")
    learned = json.loads(card.split("```json\n")[1].split("```")[0])
    assert learned["objective"]["class"] == "CentredMSE"
    assert learned["training"]["batch_size"] == 4
    assert card.startswith(
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity"
    )


def test_won_and_lost_queries_stand_side_by_side(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    won = html[html.index("Won most") : html.index("Lost most")]
    assert "theory of apples" in won
    assert "NDCG@10 0.25 → 0.75" in won
    ids = re.findall(r'class="id">([^<]+)<', won)
    assert ids == ["d0-apples", "d3-apples", "d3-apples", "d0-apples"]
    assert "other model: 2" in won
    assert "&lt;svg onload=alert(1)&gt;" in won
    assert "No query lost." in html
    assert "zelo run data=beir &#39;judge=[a,b]&#39;" in html


def browser(profile: Path, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What a real browser makes of a page."""
    fixed = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--hide-scrollbars", f"--user-data-dir={profile}",
    ]  # fmt: skip
    return subprocess.run(
        ["chromium", *fixed, *options, address],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")


@needs_browser
def test_a_browser_shows_it_and_has_nothing_to_complain_of(page: Path, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.headers["Host"], self.path))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        everything_comes_here = f"--host-resolver-rules=MAP * 127.0.0.1:{server.server_port}"
        told = ["--enable-logging=stderr", "--v=0", everything_comes_here, "--dump-dom"]
        shown = browser(tmp_path / "profile", "http://a.test/report.html", *told)
        server.shutdown()
    assert "<title>zELO on &lt;b&gt;&amp;</title>" in shown.stdout
    assert "Lost most</h3>" in shown.stdout
    assert "CONSOLE" not in shown.stderr
    # The browser itself looks for the time and for updates
    of_page = [request for request in asked if not request[0].endswith(OF_THE_BROWSER)]
    assert of_page == [("a.test", "/report.html")]


OF_THE_BROWSER = ("google.com", "googleapis.com", "gvt1.com")

SCHEMES = {"light": (1, (255, 255, 255), (9, 105, 218)), "dark": (0, (13, 17, 23), (68, 147, 248))}


@needs_browser
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1000, 500])
def test_it_is_drawn_light_and_dark_wide_and_narrow(
    page: Path, tmp_path: Path, scheme: str, width: int
) -> None:
    from matplotlib.image import imread

    number, paper, accent = SCHEMES[scheme]
    picture = tmp_path / "page.png"
    browser(
        tmp_path / "profile",
        page.as_uri(),
        f"--blink-settings=preferredColorScheme={number}",
        f"--screenshot={picture}",
        f"--window-size={width},6000",
    )
    pixels = imread(picture)[..., :3]
    assert pixels.shape[1] == width

    def share(color: tuple[int, int, int]) -> float:
        return float((np.abs(pixels - np.array(color) / 255).max(axis=2) < 0.02).mean())

    assert share(paper) > 0.5
    assert share(accent) > 0.0005  # of the figures: they are drawn, not just linked
    assert share(SCHEMES["dark" if scheme == "light" else "light"][1]) < 0.02
    right = pixels[:, -4:]
    assert np.ptp(right, axis=(0, 1)).max() < 0.02  # nothing sticks out
