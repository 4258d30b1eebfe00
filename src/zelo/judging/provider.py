"""A provider of language models: an endpoint, its account and its limits."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import field_validator

from zelo.config import Component, option
from zelo.judging.endpoint import secret

if TYPE_CHECKING:
    import aiohttp

AUTHORIZATION = "Authorization"
NO_KEY = "none"  # what an endpoint that needs no key is sent as one, since the SDK sends some
VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
SECRET = re.compile("key|token|secret|password|^sig", re.IGNORECASE)  # of an address's parameters


class Provider(Component):
    """An endpoint, its account and its limits.

    Of these, `name` and `structured` alone are part of what the ledger keeps an answer by.
    """

    name: str = option(help="who answers; part of the key of an answer")
    base_url: str = option(
        help="endpoint, up to and without /chat/completions", exclude=True, repr=False
    )
    key_variable: str | None = option(
        None,
        "environment variable that holds the key; null: none is needed",
        exclude=True,
        repr=False,
    )
    key_header: str = option(
        "Authorization",
        "header that carries the key: Authorization (as Bearer KEY), or api-key (Azure)",
        pattern="^[A-Za-z0-9-]+$",
        exclude=True,
    )
    headers: dict[str, str] = option(
        {},
        "more headers: each one's name, and the environment variable that holds its value",
        exclude=True,
        repr=False,
    )
    structured: str = option(
        "none",
        "how the endpoint is told to answer in JSON, if it can be",
        pattern="^(json_schema|json_object|none)$",
    )
    token_limit_field: str = option(
        "max_tokens",
        "what the endpoint calls the limit of tokens written",
        pattern="^(max_tokens|max_completion_tokens)$",
        exclude=True,
    )
    in_flight: int = option(16, "requests at once", ge=1, le=4096, exclude=True)
    requests_per_minute: float | None = option(None, "null: no limit", gt=0, exclude=True)
    tokens_per_minute: float | None = option(
        None, "read and written together; null: no limit", gt=0, exclude=True
    )
    timeout: float = option(120.0, "seconds for one request", gt=0, exclude=True)
    attempts: int = option(
        8, "requests for one question before it is left for the next run", ge=1, exclude=True
    )
    patience: float = option(
        900.0, "seconds a question may wait on rate limits in all", ge=0, exclude=True
    )

    batch: bool = option(
        False,
        "ask in batches, at half the price, within a day",
        exclude=True,
    )
    batch_cancel: bool = option(
        False,
        "cancel the batches under way: what they have answered is kept, the rest asked one by one",
        exclude=True,
    )
    batch_protocol: str = option(
        "openai",
        "whose batches they are: openai, or anthropic (message batches)",
        pattern="^(openai|anthropic)$",
        exclude=True,
    )
    batch_least: int = option(
        100, "fewer questions than these are asked one by one", ge=1, exclude=True
    )
    batch_size: int = option(10_000, "questions of one batch", ge=1, le=50_000, exclude=True)
    batch_poll: float = option(60.0, "seconds from one look to the next", gt=0, exclude=True)

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an http(s) address is needed")
        if parts.username or parts.password:
            raise ValueError("a password has no place in an address: name a key_variable")
        if parts.fragment:
            raise ValueError("an address ends before /chat/completions, without #")
        if any(SECRET.search(name) for name, _ in parse_qsl(parts.query)):
            raise ValueError("a key has no place in an address: name a key_variable, a key_header")
        return urlunsplit(parts._replace(path=parts.path.rstrip("/")))

    @field_validator("key_variable")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        if name is not None and not VARIABLE.fullmatch(name):
            raise ValueError("the NAME of an environment variable is needed, never the key itself")
        return name

    @field_validator("headers")
    @classmethod
    def _variables(cls, headers: dict[str, str]) -> dict[str, str]:
        if not all(VARIABLE.fullmatch(name) for name in headers.values()):
            raise ValueError("of each header the NAME of an environment variable is needed")
        return headers

    @property
    def chat_url(self) -> str:
        """Where requests go."""
        return self.address("/chat/completions")

    def address(self, path: str) -> str:
        """A path below the endpoint's address; what follows a ? there (api-version) stays."""
        parts = urlsplit(self.base_url)
        path, _, query = path.partition("?")
        query = "&".join(filter(None, (parts.query, query)))
        return urlunsplit(parts._replace(path=f"{parts.path}{path}", query=query))

    def key(self) -> str:
        """The key, "" where none is needed; `UserError` where its variable is not set."""
        if self.key_variable is None:
            return ""
        return self._secret(self.key_variable, "the provider's key")

    def more_headers(self) -> dict[str, str]:
        """Values of `headers`; `UserError` where a variable is not set."""
        return {
            name: self._secret(variable, f"the value of the header {name}")
            for name, variable in self.headers.items()
        }

    def _secret(self, variable: str, what: str) -> str:
        return secret(
            variable, f"judge {self.name}", f"; put {what} there, or choose another judge"
        )

    def account_headers(self, key: str) -> dict[str, str]:
        """Headers of the SDK's client for this account (authorisation, organisation, project,
        agent), and those that the configuration names."""
        import openai

        key = key or NO_KEY
        client = openai.AsyncOpenAI(api_key=key, base_url=self.base_url, max_retries=0)
        headers: dict[str, object] = {**client.default_headers, **client.auth_headers}
        if self.key_header != AUTHORIZATION:
            headers = {**headers, AUTHORIZATION: None, self.key_header: key}
        return {
            name: value
            for name, value in {**headers, **self.more_headers()}.items()
            if isinstance(value, str) and not name.startswith("X-Stainless")  # where the SDK runs
        }

    def connect(self, headers: Mapping[str, str]) -> aiohttp.ClientSession:
        """A connection with as many requests at once as are sent, which keeps no cookie."""
        import aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self.proxy(),
        )

    def proxy(self) -> str | None:
        """The proxy that the environment names for the address."""
        parts = urlsplit(self.base_url)
        if urllib.request.proxy_bypass(parts.netloc):
            return None
        return urllib.request.getproxies().get(parts.scheme)
