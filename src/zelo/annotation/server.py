"""The page on which people compare or order documents, served on this machine.

Loopback by default; a token in the address lets in who was given it. Requests of other sites are
refused: on loopback the host that is asked for must be this one, and what changes anything carries
a header that a page of another site may not send. Texts go to the page as JSON and are shown as
text.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader

from zelo.annotation.desk import Desk, Shown
from zelo.annotation.lists import ListDesk, ShownList
from zelo.errors import UserError
from zelo.judging.person import checked_name
from zelo.progress import say

OWN = "X-Zelo-Annotate"  # a header that a form or another site's script cannot send
LARGEST = 16 * 1024  # bytes of a request
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AnnotationServer:
    """Answers the requests of the page."""

    def __init__(self, desk: Desk | ListDesk, name: str = "") -> None:
        self.desk, self.name = desk, name
        self.token = secrets.token_urlsafe(24)
        self.hosts: set[str] = set()

    def application(self) -> web.Application:
        """The routes, all below the token."""
        made = web.Application(middlewares=[self.guarded], client_max_size=LARGEST)
        made.router.add_get("/{token}/", self.page)
        made.router.add_post("/{token}/next", self.next)
        made.router.add_post("/{token}/answer", self.answer)
        made.router.add_post("/{token}/undo", self.undo)
        return made

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse who has not got the token, and other sites."""
        given = request.match_info.get("token", "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            raise web.HTTPNotFound
        if self.hosts and request.host not in self.hosts:
            raise web.HTTPForbidden(text="asked for under another name")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.host}":
            raise web.HTTPForbidden(text="asked for by another site")
        if request.method == "POST" and OWN not in request.headers:
            raise web.HTTPForbidden(text=f"the header {OWN} is missing")
        try:
            response = await handler(request)
        except UserError as error:  # the ledger cannot be read or written
            raise web.HTTPInsufficientStorage(text=str(error)) from None
        response.headers.update(
            {
                "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
            }
        )
        return response

    async def page(self, request: web.Request) -> web.Response:
        """The page itself, without any text of the collection."""
        nonce = secrets.token_urlsafe(16)
        template = "list_page.html.j2" if isinstance(self.desk, ListDesk) else "pair_page.html.j2"
        text = TEMPLATES.get_template(template).render(nonce=nonce, own=OWN, name=self.name)
        response = web.Response(text=text, content_type="text/html")
        response.headers["Content-Security-Policy"] = POLICY.format(nonce=nonce)
        return response

    async def next(self, request: web.Request) -> web.Response:
        """What a person is asked next."""
        person, _ = await self.said(request)
        return self.told(person, self.desk.next(person))

    async def answer(self, request: web.Request) -> web.Response:
        """Keep an answer, then what is asked next."""
        person, said = await self.said(request)
        try:
            self.desk.answer(person, int(said["number"]), said["answer"])
        except (KeyError, TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"not an answer: {error}") from None
        return self.told(person, self.desk.next(person))

    async def undo(self, request: web.Request) -> web.Response:
        """Take the latest answer back, and show again what it was about."""
        person, _ = await self.said(request)
        return self.told(person, self.desk.undo(person) or self.desk.next(person))

    async def said(self, request: web.Request) -> tuple[str, dict[str, Any]]:
        """Who asks, and what."""
        try:
            content = await request.json()
            return checked_name(str(content["person"])), content
        except (KeyError, TypeError, ValueError) as error:  # what is no JSON, or no name
            raise web.HTTPBadRequest(text=f"not a request of this page: {error}") from None

    def told(self, person: str, shown: Shown | ShownList | None) -> web.Response:
        """What is asked, and how far a person is."""
        content: dict[str, Any] = {"progress": self.desk.progress(person)}
        if shown is not None:
            content["shown"] = shown.content()
        return web.json_response(content)


TEMPLATES = Environment(loader=PackageLoader("zelo.annotation", "."), autoescape=True)


def serve(desk: Desk | ListDesk, host: str, port: int, name: str) -> None:
    """Serve the page until Ctrl-C; its address is said first. `UserError` where the port is taken
    or the host is not of this machine."""
    asyncio.run(serving(desk, host, port, name))


async def serving(desk: Desk | ListDesk, host: str, port: int, name: str) -> None:
    """The same, in an event loop."""
    from zelo.local_site import serve_until_stopped

    server = AnnotationServer(desk, name)
    runner = web.AppRunner(server.application(), access_log=None)
    pairs = desk.desk if isinstance(desk, ListDesk) else desk

    def begun(shown: str, bound: int) -> None:
        if host in ("127.0.0.1", "::1", "localhost"):
            names = (shown, "localhost", "127.0.0.1")
            with_port = {f"{of}:{bound}" for of in names}
            server.hosts = with_port | (set(names) if bound == 80 else set())
        say(f"http://{shown}:{bound}/{server.token}/")
        say(f"{desk.asked}; answers are in {pairs.ledger.path}; Ctrl-C ends it")

    await serve_until_stopped(runner, host, port, begun)
    await runner.cleanup()
    for person, answers in sorted(pairs.answers.items()):
        say(f"{person}: {len(answers):,} answers; a run uses them with judge=person")
