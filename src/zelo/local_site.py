"""A site that this process serves until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from zelo.errors import UserError, in_words


async def serve_until_stopped(
    runner: web.AppRunner, host: str, port: int, begun: Callable[[str, int], None]
) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP; `begun` is told the host as addresses have it, and the
    port. What is under way is left to who cleans the runner up.

    Raises `UserError` where the port is taken or the host is not of this machine.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with suppress(NotImplementedError):  # Windows has none: Ctrl-C ends it there at once
            loop.add_signal_handler(number, stop.set)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, OverflowError) as error:
        await runner.cleanup()
        raise UserError(
            f"host={host} port={port}: cannot be served there ({in_words(error)})"
        ) from None
    begun(f"[{host}]" if ":" in host else host, runner.addresses[0][1])
    await stop.wait()
