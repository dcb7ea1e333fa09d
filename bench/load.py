"""A served reranker under load: `python -m bench.load [--seconds 10] [--overload-seconds 10] [--full]`.

Starts `rerankops serve` over the tests' small deployment with its score cache off, measures its capacity by callers who
each wait for their answer, then sends requests at times drawn before (a Poisson process), whether or not earlier ones
were answered, at 0.5, 0.8, 1, 2 and 4 times that capacity. Latency is counted from the time at which a request was to
be sent, so that a generator or service that falls behind is charged for it (no coordinated omission). Then the release
is swapped and rolled back at 0.8 of capacity. `--full` overloads for five minutes. Prints a table and writes the tables
`overload`, `load80`, `swap` and `load` of docs/benchmarks/results.json.

The generator shares the machine with the service, and so lowers the capacity that it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.results import merge
from models.database import Database
from models.ledger import Ledger
from models.settings import load_settings
from tests.service_process import ServiceProcess, start_service
from tests.small_bundle import MACHINES, build_small, put_in_service

if TYPE_CHECKING:
    from tests.small_bundle import Small

LEVELS = (0.5, 0.8, 1.0, 2.0, 4.0)
BUDGET_MS = 1000.0
LATE = 1.1
"""An answer is late behind this many times its deadline."""
DOCUMENTS = 16
_CALLERS = 8
_RECOVERY_S = 10.0
_SLOW = 1.5


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it was to be sent (seconds from the start), milliseconds from then to its answer; status 0 is a
    broken connection."""

    at: float
    ms: float
    status: int
    degraded: bool = False
    reason: str = ""
    model_version: str = ""


class Caller:
    """A minimal HTTP/1.1 client over kept connections, since a full one would take the cores from the service."""

    def __init__(self, service: ServiceProcess) -> None:
        host, _, port = service.url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._key = service.key
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        try:
            head = f"POST {path} HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer {self._key}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
            found = json.loads(await reader.readexactly(length))
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return int(lines[0].split()[1]), found

    async def rerank(self, body: bytes, at: float, started: float) -> Answered:
        """One request that was to be sent `at` seconds behind `started` (`time.perf_counter`)."""
        try:
            status, found = await self.post("/v2/rerank", body)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            return Answered(at, 1000 * (time.perf_counter() - started - at), 0)
        ms = 1000 * (time.perf_counter() - started - at)
        meta = found.get("meta", {})
        return Answered(
            at, ms, status, meta.get("degraded", False), meta.get("degraded_reason", ""), meta.get("model_version", "")
        )

    def close(self) -> None:
        """Close the kept connections."""
        for _, writer in self._idle:
            writer.close()


def requests_of(small: Small, count: int, seed: int) -> list[bytes]:
    """Bodies of requests: a question and passages of the corpus, drawn anew for each."""
    texts = small.artifacts["corpus/passages"].read_table("passages.parquet")["text"].tolist()
    draw = random.Random(seed)
    bodies = []
    for _ in range(count):
        query = f"how do I clean the {draw.choice(list(MACHINES))} number {draw.randrange(10_000)}"
        body = {"model": "champion", "query": query, "documents": draw.sample(texts, DOCUMENTS)}
        bodies.append(json.dumps({**body, "timeout_ms": BUDGET_MS}).encode())
    return bodies


async def capacity(caller: Caller, bodies: Sequence[bytes], seconds: float) -> float:
    """Requests a second that are answered in full to callers who wait for each."""
    started = time.perf_counter()
    full = 0
    waiting = cycle(bodies)

    async def ask() -> None:
        nonlocal full
        while time.perf_counter() - started < seconds:
            now = time.perf_counter() - started
            full += not (await caller.rerank(next(waiting), now, started)).degraded

    await asyncio.gather(*(ask() for _ in range(_CALLERS)))
    return full / (time.perf_counter() - started)


async def offer(
    caller: Caller,
    bodies: Sequence[bytes],
    rate: float,
    seconds: float,
    seed: int,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> list[Answered]:
    """Send `rate` requests a second at random times, each at its time, whatever became of the others."""
    draw = random.Random(seed)
    times, now = [], draw.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += draw.expovariate(rate)
    started = time.perf_counter()
    beside = asyncio.ensure_future(meanwhile()) if meanwhile is not None else None
    tasks = []
    for place, at in enumerate(times):
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        tasks.append(asyncio.ensure_future(caller.rerank(bodies[place % len(bodies)], at, started)))
    found = list(await asyncio.gather(*tasks))
    if beside is not None:
        await beside
    return found


def summary(answers: Sequence[Answered], seconds: float) -> dict[str, Any]:
    """Figures of one level."""
    ms = [one.ms for one in answers]
    share = 1 / max(len(answers), 1)
    p50, p95, p99 = np.percentile(ms, [50, 95, 99], method="inverted_cdf").round(1).tolist()
    reasons = sorted({one.reason.partition(":")[0] for one in answers if one.degraded})
    return {
        "requests": len(answers),
        "seconds": seconds,
        "errors": sum(one.status != 200 for one in answers),
        "late_share": round(sum(one.ms > LATE * BUDGET_MS for one in answers) * share, 4),
        "degraded_share": round(sum(one.degraded for one in answers) * share, 4),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": round(max(ms), 1),
        "full_per_second": round(sum(not one.degraded and one.status == 200 for one in answers) / seconds, 2),
        "degraded_for": reasons,
    }


def recovery_s(answers: Sequence[Answered], normal_ms: float) -> float:
    """Seconds until no answer was degraded or slow any more."""
    worse = [one.at for one in answers if one.degraded or one.status != 200 or one.ms > _SLOW * normal_ms]
    return round(max(worse, default=0.0), 2)


async def measure(service: ServiceProcess, small: Small, ledger: Ledger, seconds: float, overload_s: float) -> Any:
    """All levels, the recovery behind the last, and a swap and rollback under load."""
    caller = Caller(service)
    bodies = requests_of(small, 2000, 1)
    await capacity(caller, bodies, seconds / 2)
    found = await capacity(caller, bodies, seconds)
    print(f"capacity {found:.1f} requests/s")
    assert found > 0, "no request was answered in full inside its deadline: the machine is too slow or too busy"
    levels: dict[str, Any] = {}
    for level in LEVELS:
        duration = overload_s if level == LEVELS[-1] else seconds
        levels[str(level)] = summary(await offer(caller, bodies, level * found, duration, 2), duration)
        print(level, levels[str(level)])
    after = await offer(caller, bodies, 0.5 * found, _RECOVERY_S, 3)
    recovered = recovery_s(after, levels["0.5"]["p99_ms"])
    print(f"normal again after {recovered} s")
    swaps: list[float] = []

    async def swap_and_roll_back() -> None:
        for candidate, version in ((small.shuffled(), "2"), (small.first, "1")):
            await asyncio.sleep(seconds / 5)
            began = time.perf_counter()
            put_in_service(ledger, candidate, version)
            status, swap = await caller.post("/v1/release/refresh", b"")
            assert (status, swap["model_version"]) == (200, version), swap
            swaps.append(round(time.perf_counter() - began, 2))

    swapped = await offer(caller, bodies, 0.8 * found, 2 * seconds, 4, swap_and_roll_back)
    caller.close()
    served = [one.model_version for one in sorted(swapped, key=lambda one: one.at + one.ms / 1000) if one.model_version]
    assert {"1", "2"} <= set(served), "both releases answered"
    return {
        "load": {
            "capacity_per_second": round(found, 2),
            "deadline_ms": BUDGET_MS,
            "documents": DOCUMENTS,
            "threads": os.cpu_count(),
            "levels": levels,
            "recovery_s": recovered,
        },
        "overload": {name: levels["4.0"][name] for name in ("errors", "late_share", "degraded_share", "seconds")},
        "load80": {"p99_ms": levels["0.8"]["p99_ms"]},
        "swap": {
            "failed_requests": sum(one.status != 200 for one in swapped),
            "late_share": summary(swapped, 2 * seconds)["late_share"],
            "seconds_to_effect": swaps,
        },
    }


def main() -> None:
    """Build, serve, load, print and write."""
    parser = argparse.ArgumentParser(description="A served reranker under load.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each level")
    parser.add_argument("--overload-seconds", type=float, default=None, help="at 4 times capacity; as --seconds")
    parser.add_argument("--full", action="store_true", help="five minutes at 4 times capacity")
    options = parser.parse_args()
    overload_s = 300.0 if options.full else options.overload_seconds or options.seconds
    with tempfile.TemporaryDirectory(prefix="load-") as work:
        folder = Path(work)
        (folder / "small").mkdir()
        small = build_small(folder / "small")
        small.shuffled()
        home = folder / "home"
        home.mkdir()
        database = Database(f"sqlite:///{home / 'rerankops.db'}")
        database.migrate()
        ledger = Ledger(database)
        put_in_service(ledger, small.first, "1")
        settings = {
            "STORAGE__ARTIFACTS": small.settings.artifact_root,
            "TIERS__BUDGET_MS": str(BUDGET_MS),
            "SERVING__THREADS": str(load_settings().serving.threads),
            "SERVING__POLL_SECONDS": "3600",
            "CACHE__MAX_MB": "0",
        }
        with start_service(home, **settings) as service:
            figures = asyncio.run(measure(service, small, ledger, options.seconds, overload_s))
        database.close()
    merge(figures)
    print(json.dumps({name: figures[name] for name in ("overload", "load80", "swap")}))


if __name__ == "__main__":
    main()
