"""How many answers per second does a judge behind an endpoint give, and at what CPU time each?

    python benchmarks/judging.py          some minutes

An OpenAI-compatible endpoint on loopback (`tests/judging/endpoint.py`, a process of its own)
answers after 25 to 75 ms, drawn evenly. A user's endpoint does not compute on the user's machine:
this one has a core to itself, the clients have the others, where there are several. With N requests
in flight N / 0.05 answers a second are possible. Three clients take turns, `ROUNDS` times; numbers
are medians, after some answers to warm up.

- `zelo`: `ask_all` as the judge stage calls it: the prompt, limits, budget, the reply read, every
  answer in a ledger on disk.
- `openai SDK`: `AsyncOpenAI().chat.completions.create` in a semaphore, the same request, the score
  read by `json.loads`, nothing kept. It is asked a tenth of the questions.
- `aiohttp`: the same request as ready bytes, the response thrown away: what the machine allows.

CPU time is that of the client's process per answer, and the endpoint's beside it. Then the cost
table of the paper's run, by `zelo plan`.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import aiohttp
import openai

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import machine, save
from tests.judging.endpoint import Running, running

from zelo.judging import prompt
from zelo.judging.api import ApiJudge, ApiSession
from zelo.judging.asking import ask_all
from zelo.judging.ledger import Ledger
from zelo.judging.provider import Provider
from zelo.judging.question import Question
from zelo.judging.spending import Budget, Spending

LATENCY, SPREAD, IN_FLIGHT, ROUNDS = 0.05, 0.5, (16, 64, 256), 5
TURNS, WARM_UP, MOST = 150, 512, 16000  # questions: per place in flight; before; at most

Client = Callable[[ApiSession, list[Question]], None]


def questions(n: int) -> list[Question]:
    """Questions about two documents of some hundred tokens each."""
    return [
        Question(
            f"q{i // 10}",
            f"a{i}",
            f"b{i}",
            0,
            f"query {i // 10}",
            f"worth={i / 1000} " + "some text " * 60,
            f"worth={(i * 7919 % n) / 1000} " + "other text " * 60,
        )
        for i in range(n)
    ]


def zelo(judge: ApiSession, asked: list[Question]) -> None:
    """This project."""
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        found = ask_all({"j": judge}, {"j": asked}, ledger, Spending(Budget()), "benchmark")
        assert None not in found.answers["j"]


def sdk(judge: ApiSession, asked: list[Question]) -> None:
    """The SDK in a semaphore."""

    async def all_of_them() -> None:
        async with openai.AsyncOpenAI(
            api_key="none", base_url=judge.judge.provider.base_url, max_retries=0
        ) as client:
            slots = asyncio.Semaphore(judge.judge.provider.in_flight)

            async def one(question: Question) -> float:
                messages = prompt.messages(question, judge.judge.max_document_tokens)
                async with slots:
                    reply = await client.chat.completions.create(**judge.judge.body(messages))
                return float(json.loads(reply.choices[0].message.content)["score"])

            scores = await asyncio.gather(*map(one, asked))
        assert len(scores) == len(asked)

    asyncio.run(all_of_them())


def bare(judge: ApiSession, asked: list[Question]) -> None:
    """Bytes over HTTP and nothing else."""
    provider = judge.judge.provider
    body = json.dumps(judge.judge.body(prompt.messages(asked[0], 1000))).encode()
    supply = iter(asked)

    async def work(session: aiohttp.ClientSession) -> None:
        for _ in supply:
            async with session.post(f"{provider.base_url}/chat/completions", data=body) as response:
                await response.read()

    async def all_of_them() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            await asyncio.gather(*(work(session) for _ in range(provider.in_flight)))

    asyncio.run(all_of_them())


CLIENTS: dict[str, Client] = {"zelo": zelo, "openai SDK": sdk, "aiohttp": bare}


def main() -> None:
    print(machine())
    per_second, client_cpu, server_cpu = (defaultdict[tuple[int, str], list[float]](list)
                                          for _ in range(3))  # fmt: skip
    with running(latency=LATENCY, spread=SPREAD) as endpoint:
        every = os.sched_getaffinity(0)
        cores = apart(endpoint)
        print(f"the endpoint on a core of its own, clients on {cores} core(s)" if cores
              else "one core, which clients share with the endpoint")  # fmt: skip
        for number in range(ROUNDS + 1):
            for in_flight in IN_FLIGHT:
                provider = Provider(name="fake", base_url=endpoint.base_url, in_flight=in_flight)
                judge = ApiJudge(provider=provider, model="m").prepare(Path(), {}, 0)
                every_question = questions(min(in_flight * TURNS, MOST) if number else WARM_UP)
                for name, client in CLIENTS.items():
                    asked = every_question[:: 10 if name == "openai SDK" else 1]
                    server, cpu, start = used_by(endpoint), time.process_time(), time.monotonic()
                    client(judge, asked)
                    if number:
                        took, n = time.monotonic() - start, len(asked)
                        per_second[in_flight, name].append(n / took)
                        client_cpu[in_flight, name].append((time.process_time() - cpu) / n)
                        server_cpu[in_flight, name].append((used_by(endpoint) - server) / n)
    os.sched_setaffinity(0, every)
    rows = []
    print(f"\n{'in flight':>9}  {'client':<10} {'answers/s':>9} {'of ideal':>9} "
          f"{'client CPU':>11} {'endpoint CPU':>13}")  # fmt: skip
    for (in_flight, name), rates in per_second.items():
        rate = statistics.median(rates)
        cpu, server = (statistics.median(x[in_flight, name]) for x in (client_cpu, server_cpu))
        ideal = in_flight / LATENCY
        rows.append(
            {
                "in_flight": in_flight,
                "client": name,
                "answers_per_second": round(rate),
                "of_ideal": round(rate / ideal, 3),
                "client_cpu_us": round(cpu * 1e6),
                "endpoint_cpu_us": round(server * 1e6),
                "rounds": ROUNDS,
                "latency_seconds": LATENCY,
                "latency_spread": SPREAD,
                "client_cores": cores or "1, shared with the endpoint",
            }
        )
        print(f"{in_flight:>9}  {name:<10} {rate:>9,.0f} {rate / ideal:>9.1%} "
              f"{cpu * 1e6:>8,.0f} µs {server * 1e6:>10,.0f} µs")  # fmt: skip
    save("judging.csv", rows)
    print(flush=True)
    command = [str(Path(sys.executable).parent / "zelo"), "plan", "experiment=paper_scale"]
    subprocess.run(command, check=True)


def apart(endpoint: Running) -> int:
    """Give the endpoint one core and this process the others: how many; 0 where there is one."""
    *others, last = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(endpoint.process.pid, {last})
        os.sched_setaffinity(0, others)
    return len(others)


def used_by(endpoint: Running) -> float:
    """Seconds of CPU time that the endpoint has taken."""
    fields = Path(f"/proc/{endpoint.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
