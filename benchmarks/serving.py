"""How long do 64 clients at once wait for `zelo serve`, beside one after the other?

    python benchmarks/serving.py [REQUESTS]           200 by default

MiniLM as an embedding model reranks 12 documents of some 200 characters, by `/rerank`: requests one
after the other, then from 64 clients at once, every twentieth of which is given up after 50 ms and
every twentieth is no JSON. Reported are the requests answered in a second, the median and the 95th
percentile of the seconds that an answered one took, and how many were lost: none may be.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from latency import MINILM
from machine import machine, save

CLIENTS, DOCUMENTS, EVERY = 64, 12, 20


async def ask(http: Any, n: int, seconds: list[float], came: Counter[str], faults: bool) -> None:
    """One request, by its number."""
    rng = np.random.default_rng(n)
    texts = [" ".join(f"word{i}" for i in rng.integers(0, 999, 30)) for _ in range(DOCUMENTS)]
    sent: dict[str, Any] = {"json": {"query": f"which is number {n}", "documents": texts}}
    if faults and n % EVERY == 1:
        sent = {"data": b"{"}
    if faults and n % EVERY == 2:
        sent["timeout"] = aiohttp.ClientTimeout(total=0.05)
    start = time.monotonic()
    try:
        async with http.post("/rerank", **sent) as response:
            found = await response.json()
    except TimeoutError:
        came["given up"] += 1
        return
    if response.status != 200:
        came[f"status {response.status}"] += 1
        return
    assert len(found["results"]) == DOCUMENTS
    seconds.append(time.monotonic() - start)
    came["answered"] += 1


async def load(address: str, requests: int, clients: int, faults: bool) -> dict[str, Any]:
    """A row of the result."""
    gate, seconds = asyncio.Semaphore(clients), list[float]()
    came: Counter[str] = Counter()
    patience = aiohttp.ClientTimeout(total=600)
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(address, timeout=patience, connector=connector) as http:

        async def one(n: int) -> None:
            async with gate:
                await ask(http, n, seconds, came, faults)

        await ask(http, 0, [], Counter(), False)  # the model is warm
        start = time.monotonic()
        await asyncio.gather(*(one(n) for n in range(requests)))
        took = time.monotonic() - start
    assert sum(came.values()) == requests, came
    assert set(came) <= {"answered", "given up", "status 422"}, came
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    rest = ", ".join(f"{number} {what}" for what, number in sorted(came.items()))
    return {
        "clients": clients,
        "answered_per_second": round(came["answered"] / took, 1),
        "median_s": round(float(p50), 3),
        "p95_s": round(float(p95), 3),
        "requests": rest,
    }


def main(requests: int) -> None:
    print(machine())
    zelo = str(Path(sys.executable).parent / "zelo")
    server = subprocess.Popen(
        [zelo, "serve", str(MINILM.locate()), "port=0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        while not (found := re.search(r"http://\S+", line := server.stdout.readline())):
            assert line, "the server ended"
        rows = [
            asyncio.run(load(found[0], requests // 4, 1, False)),
            asyncio.run(load(found[0], requests, CLIENTS, True)),
        ]
    finally:
        server.kill()
        server.wait()
    print(*rows, sep="\n")
    save("serving.csv", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
