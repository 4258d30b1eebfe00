"""A real browser without a window, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium")
PATIENCE = 60.0  # seconds for a page to become what is waited for
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "c": 67,
        "e": 69, "u": 85}  # fmt: skip
SHIFT = 8


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.last = socket, 0
        self.console: list[str] = []  # messages and errors of the page

    async def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self.last += 1
        number = self.last
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = json.loads((await self.socket.receive(timeout=PATIENCE)).data)
            if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown",
                                         "Log.entryAdded"):  # fmt: skip
                self.console.append(json.dumps(message["params"])[:500])
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found

    async def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        found = await self.do(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until it is true."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not (found := await self.value(expression)):
            assert asyncio.get_running_loop().time() < end, (expression, self.console)
            await asyncio.sleep(0.05)
        return found

    async def press(self, key: str, shift: bool = False) -> None:
        """Press a key."""
        known = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, 0)}
        known["modifiers"] = SHIFT if shift else 0
        for kind in ("keyDown", "keyUp"):
            await self.do("Input.dispatchKeyEvent", type=kind, **known)

    async def drag(self, start: tuple[float, float], end: tuple[float, float], touch: bool) -> None:
        """Press at one place of the window, move to another in steps, and let go."""
        steps = [[a + (b - a) * n / 10 for a, b in zip(start, end, strict=True)] for n in range(11)]
        for n, (x, y) in enumerate([*steps, steps[-1]]):
            last = n == len(steps)
            if touch:
                kind = "touchEnd" if last else "touchMove" if n else "touchStart"
                points = [] if last else [{"x": x, "y": y}]
                await self.do("Input.dispatchTouchEvent", type=kind, touchPoints=points)
            else:
                kind = "mouseReleased" if last else "mouseMoved" if n else "mousePressed"
                await self.do(
                    "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
                )

    async def open(self, address: str) -> None:
        """Go to an address."""
        await self.do("Page.navigate", url=address)
        await self.until("document.readyState === 'complete'")

    async def screen(self, width: int, height: int, mobile: bool = False) -> None:
        """Set the size of the window."""
        await self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip

    async def picture(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        found = await self.do("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def browser() -> AsyncIterator[Any]:
    """A browser; what it gives opens tabs."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            end = asyncio.get_running_loop().time() + PATIENCE
            while not port_file.exists() or not port_file.read_text():
                assert asyncio.get_running_loop().time() < end, "no browser"
                await asyncio.sleep(0.05)
            port = port_file.read_text().split()[0]
            async with aiohttp.ClientSession() as http:

                async def tab() -> Page:
                    async with http.put(
                        f"http://127.0.0.1:{port}/json/new?about:blank"
                    ) as response:
                        address = (await response.json())["webSocketDebuggerUrl"]
                    page = Page(await http.ws_connect(address, max_msg_size=0))
                    for part in ("Page", "Runtime", "Log"):
                        await page.do(f"{part}.enable")
                    return page

                yield tab
        finally:
            process.kill()
            process.wait()
