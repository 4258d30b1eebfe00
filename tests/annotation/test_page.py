"""The page of `zelo annotate`, in a real browser, served by a real process."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.browser import PROGRAM, Page, browser
from tests.conftest import write_beir
from tests.zelo_server import ZeloServer

from zelo.annotation.server import OWN
from zelo.judging.ledger import Ledger
from zelo.judging.person import PersonSession

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs chromium")
HOSTILE = [
    "<script>document.title = 'owned'</script> apples <img src=x onerror=\"document.title=1\">",
    "</script><style>body { display: none }</style> apples {{ 7 * 7 }} [[end of document]]",
    "apples ' \" ` & &lt; \u202e \u0000 \ud83c\udf4e javascript:alert(1) " + "apples long " * 900,
]
ASKED = "shown !== null && !document.querySelector('[data-answer][disabled]')"
ANSWERED = "Number(document.getElementById('bar').value)"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, zelo_command: str) -> Path:
    """A run that has judged and rated, of documents that are hostile."""
    folder = tmp_path_factory.mktemp("annotate")
    documents = {f"d{i}": text.replace("\u0000", "") for i, text in enumerate(HOSTILE)}
    documents |= {f"e{i}": f"apples number {i} of many" for i in range(5)}
    write_beir(
        folder / "data", documents,
        {"q1": "apples <b>& long", "q2": "number of apples", "q3": "many"},
        {"train": [("q1", "d0", 1), ("q2", "e1", 1)], "test": [("q3", "e0", 1)]},
    )  # fmt: skip
    words = [
        "run", "data=beir", f"data.path={folder}/data", "queries=off", "retriever=bm25",
        "judge=bm25", "stages=[load,retrieve,compare,judge,rate]", f"home={folder}/home",
        f"hydra.run.dir={folder}/run", "sampler=dense",
    ]  # fmt: skip
    done = subprocess.run([zelo_command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Served(ZeloServer):
    """`zelo annotate` in a process of its own."""

    def __init__(self, zelo: str, folder: Path, *words: str) -> None:
        super().__init__(zelo, "annotate", str(folder / "run"), *words)


@contextmanager
def served(zelo: str, folder: Path, *words: str) -> Iterator[Served]:
    running = Served(zelo, folder, *words)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def kept(folder: Path, person: str) -> int:
    """How many answers of a person are on disk."""
    with Ledger(folder / "home" / "ledger.sqlite") as ledger:
        return ledger.count_answers(PersonSession(person).fingerprint, 10_000)


def driven(steps: Callable[[Any], Any]) -> None:
    async def go() -> None:
        async with browser() as tab:
            await steps(tab)

    asyncio.run(go())


async def begun(page: Page, address: str, name: str) -> None:
    """Open the page and say who one is."""
    await page.open(address)
    await page.value("localStorage.clear()")
    await page.open(address)
    await page.until("!document.getElementById('who').hidden")
    await page.value(f"document.getElementById('name').value = {json.dumps(name)}")
    await page.value("document.getElementById('who').requestSubmit()")
    await page.until(ASKED)


async def press(page: Page, key: str, answered: int) -> None:
    """Press a key and wait until so many pairs are answered."""
    await page.press(key)
    await page.until(f"{ANSWERED} === {answered}")


def test_by_keyboard_with_undo_and_reload(
    zelo_command: str, run_folder: Path, tmp_path: Path
) -> None:
    async def steps(tab: Any) -> None:
        with served(zelo_command, run_folder) as running:
            page = await tab()
            await page.screen(1200, 800)
            await begun(page, running.address, "Ann")
            query = await page.value("document.getElementById('query').textContent")
            assert query in ("apples <b>& long", "number of apples")
            assert await page.value("document.querySelectorAll('mark').length") > 0
            await page.picture(tmp_path / "light.png")
            for n, key in enumerate(["ArrowLeft", "ArrowRight", "e", "c"], start=1):
                await press(page, key, n)
                assert kept(run_folder, "Ann") == n  # on disk before the next is shown
            before = await page.value("shown.number")
            await press(page, "u", 3)
            assert kept(run_folder, "Ann") == 3
            undone = await page.value("shown.number")
            assert undone != before
            await press(page, "ArrowLeft", 4)
            await page.open(running.address)  # a reload knows who one is, and how far
            await page.until(ASKED)
            assert await page.value(ANSWERED) == 4
            assert await page.value("shown.number") == before
            assert page.console == []

    driven(steps)


def test_on_a_phone_hostile_documents_are_text(
    zelo_command: str, run_folder: Path, tmp_path: Path
) -> None:
    async def steps(tab: Any) -> None:
        with served(zelo_command, run_folder, "name=Bob") as running:
            page = await tab()
            await page.screen(360, 740, mobile=True)
            await page.do(
                "Emulation.setEmulatedMedia",
                features=[{"name": "prefers-color-scheme", "value": "dark"}],
            )
            await page.open(running.address)
            seen = set()
            folded = 0
            for n in range(1, 1000):
                await page.until(f"{ASKED} && {ANSWERED} === {n - 1}")
                for side in ("left", "right"):
                    seen.add(await page.value(f"document.getElementById('{side}').textContent"))
                wide = await page.value("document.documentElement.scrollWidth")
                assert wide <= 360
                if not await page.value("document.getElementById('more-left').hidden"):
                    folded += 1
                    await page.value("document.getElementById('more-left').click()")
                    assert await page.value("document.getElementById('more-left').hidden")
                if n == 1:
                    await page.picture(tmp_path / "phone.png")
                await page.value("document.querySelector('[data-answer=tie]').click()")
                await page.until(f"{ANSWERED} === {n}")
                if await page.value("shown === null"):
                    break
            assert await page.value("document.getElementById('query').textContent") == (
                "Everything is answered. Thank you."
            )
            assert any(text.startswith("<script>document.title") for text in seen)
            assert folded
            assert await page.value("document.title") == "zelo annotate"
            assert await page.value("document.querySelectorAll('article img').length") == 0
            assert page.console == []

    driven(steps)


def test_two_people_and_two_tabs_lose_nothing(zelo_command: str, run_folder: Path) -> None:
    async def steps(tab: Any) -> None:
        with served(zelo_command, run_folder) as running:
            one, two = await tab(), await tab()
            await begun(one, running.address, "Cleo")
            await two.open(running.address)  # the same browser, so the same person
            await two.until(ASKED)
            assert await two.value("person") == "Cleo"
            shown = [await page.value("shown.number") for page in (one, two)]
            assert shown[0] == shown[1]
            await press(one, "ArrowLeft", 1)
            await press(two, "ArrowRight", 1)  # of a pair that is answered the first answer counts
            await press(two, "ArrowRight", 2)
            await press(one, "ArrowLeft", 2)  # this tab was behind as well
            await press(one, "ArrowLeft", 3)
            assert kept(run_folder, "Cleo") == 3
            await one.value("document.getElementById('other').click()")
            await one.value("document.getElementById('name').value = 'Dan'")
            await one.value("document.getElementById('who').requestSubmit()")
            await one.until(f"person === 'Dan' && {ANSWERED} === 0 && {ASKED}")
            await press(one, "e", 1)
            await press(two, "e", 3)  # still the first person, and behind again
            await press(two, "e", 4)
            assert (kept(run_folder, "Cleo"), kept(run_folder, "Dan")) == (4, 1)

    driven(steps)


def test_a_kill_loses_nothing(zelo_command: str, run_folder: Path) -> None:
    async def steps(tab: Any) -> None:
        page = await tab()
        for n in range(1, 4):
            with served(zelo_command, run_folder, "name=Eve") as running:
                await page.open(running.address)
                await page.until(f"{ASKED} && {ANSWERED} === {n - 1}")
                await press(page, "ArrowLeft", n)
                running.process.send_signal(signal.SIGKILL)
                running.process.communicate()  # until its pipe is closed: then it is gone
                await page.press("ArrowLeft")  # nobody is there any more
                await page.until("document.getElementById('trouble').textContent !== ''")
            assert kept(run_folder, "Eve") == n

    driven(steps)


READ = "performance.now() - since > glance"
ORDER = "[...document.querySelectorAll('li')].map(item => Number(item.dataset.number))"
GRIPS = (
    "[...document.querySelectorAll('.grip')].map(grip => {"
    " const box = grip.getBoundingClientRect();"
    " return [box.left + box.width / 2, box.top + box.height / 2]; })"
)


def test_a_list_is_ordered_by_keyboard(zelo_command: str, run_folder: Path, tmp_path: Path) -> None:
    async def steps(tab: Any) -> None:
        with served(zelo_command, run_folder, "list=4") as running:
            page = await tab()
            await page.screen(1200, 800)
            await begun(page, running.address, "Fay")
            assert await page.value(ORDER) == [0, 1, 2, 3]
            await page.press("ArrowDown", shift=True)
            await page.press("ArrowDown", shift=True)
            assert await page.value(ORDER) == [1, 2, 0, 3]
            await page.press("ArrowUp")
            await page.press("e")  # equal to the first
            await page.press("ArrowDown")  # and moved past them, by two, and back
            await page.press("ArrowUp", shift=True)
            await page.press("ArrowUp", shift=True)
            assert await page.value("places()") == [0, 1, 1, 2]
            await page.press("ArrowDown", shift=True)
            await page.press("ArrowDown", shift=True)
            assert await page.value("places()") == [1, 0, 0, 2]
            await page.press("ArrowUp")
            await page.press("ArrowDown")
            await page.press("ArrowDown")
            await page.press("c")
            assert await page.value("places()") == [1, 0, 0, None]
            await page.picture(tmp_path / "list.png")
            number = await page.value("shown.number")
            await page.until(READ)
            await press(page, "Enter", 1)
            await page.press("Enter")  # nobody has read the next one yet
            assert kept(run_folder, "Fay") == 6  # pairs, on disk before the next is shown
            await page.until(f"shown.number !== {number}")
            await press(page, "u", 0)
            assert kept(run_folder, "Fay") == 0
            assert await page.value("shown.number") == number
            assert await page.value("places()") == [1, 0, 0, None]  # as it was kept
            await page.until(READ)
            await press(page, "Enter", 1)
            assert await page.value(ANSWERED) == 1
            await page.open(running.address)
            await page.until(f"{ASKED} && {ANSWERED} === 1 && shown.number !== {number}")
            assert page.console == []

    driven(steps)


@pytest.mark.parametrize("touch", [False, True])
def test_a_list_is_ordered_by_dragging(
    zelo_command: str, run_folder: Path, tmp_path: Path, touch: bool
) -> None:
    async def steps(tab: Any) -> None:
        with served(zelo_command, run_folder, "list=4", f"name=Gus {touch}") as running:
            page = await tab()
            width, height = (360, 1400) if touch else (1200, 900)
            await page.screen(width, height, mobile=touch)
            if touch:
                await page.do("Emulation.setTouchEmulationEnabled", enabled=True)
            await page.open(running.address)
            await page.until(ASKED)
            await page.value("document.querySelectorAll('.ways')[1].children[1].click()")
            assert await page.value("places()") == [0, 0, 1, 2]
            grips = await page.value(GRIPS)
            await page.drag(grips[3], (grips[0][0], grips[0][1] - 15), touch)
            assert await page.value(ORDER) == [3, 0, 1, 2]
            assert await page.value("places()") == [1, 1, 2, 0]  # what was equal is so still
            grips = await page.value(GRIPS)
            await page.drag(grips[1], (grips[1][0], grips[3][1] + 80), touch)
            assert await page.value(ORDER) == [3, 1, 2, 0]
            assert await page.value("places()") == [3, 1, 2, 0]  # and is so no more
            assert await page.value("document.querySelector('.held') === null")
            assert await page.value("document.documentElement.scrollWidth") <= (
                360 if touch else 1200
            )
            await page.picture(tmp_path / "dragged.png")
            await page.until(READ)
            await page.value("document.getElementById('keep').click()")
            await page.until(f"{ANSWERED} === 1")
            assert kept(run_folder, f"Gus {touch}") == 6
            while not await page.value("shown === null"):
                before = await page.value(ANSWERED)
                await page.until(READ)
                await page.value("document.getElementById('keep').click()")
                await page.until(f"{ANSWERED} > {before}")
            assert await page.value("document.querySelectorAll('li img').length") == 0
            assert page.console == []

    driven(steps)


def test_other_sites_and_those_without_the_token_are_refused(
    zelo_command: str, run_folder: Path
) -> None:
    async def go() -> None:
        with served(zelo_command, run_folder) as running:
            base, _, token = running.address.rstrip("/").rpartition("/")
            own, body = {OWN: "1"}, json.dumps({"person": "Mallory", "number": 0, "answer": "left"})
            async with aiohttp.ClientSession() as http:

                async def status(path: str, headers: dict[str, str], data: str = body) -> int:
                    async with http.post(f"{base}/{path}", data=data, headers=headers) as found:
                        return found.status

                assert await status(f"{token[:-1]}x/answer", own) == 404
                assert await status("/answer", own) == 404
                assert await status(f"{token}/answer", {}) == 403
                assert await status(f"{token}/answer", own | {"Origin": "http://evil"}) == 403
                assert await status(f"{token}/answer", own | {"Host": "evil.example"}) == 403
                for wrong in (
                    "", "[]", "{}", '{"person": ""}', '{"person": "M", "number": "x"}',
                    '{"person": "M", "number": 0, "answer": "best"}',
                    '{"person": "M", "number": 0, "answer": [1, 0]}',
                ):  # fmt: skip
                    assert await status(f"{token}/answer", own, wrong) == 400
                assert await status(f"{token}/answer", own, "x" * 20_000) in (400, 413)
                async with http.get(running.address) as found:
                    policy = found.headers["Content-Security-Policy"]
                    assert "default-src 'none'" in policy
                    assert "frame-ancestors 'none'" in policy
                    assert "Access-Control-Allow-Origin" not in found.headers
                async with http.get(f"{base}/") as found:
                    assert found.status == 404
        assert kept(run_folder, "Mallory") == 0

    asyncio.run(go())


def test_it_ends_with_what_was_answered(zelo_command: str, run_folder: Path) -> None:
    running = Served(zelo_command, run_folder)
    running.process.send_signal(signal.SIGINT)
    said, _ = running.process.communicate(timeout=60)
    assert running.process.returncode == 0, said
    taken = subprocess.run(
        [zelo_command, "annotate", str(run_folder / "run"), "host=192.0.2.1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert taken.returncode == 2
    assert "error: host=192.0.2.1" in taken.stderr
