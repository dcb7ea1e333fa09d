"""Requests at times drawn before, whatever became of the earlier ones, and what their answers say.

Latency is counted from the time at which a request was to be sent, so that a generator or service that falls behind is
charged for it (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, get_args

import numpy as np

from services.lanes import BypassReason

RERANK, ANSWER = "/v2/rerank", "/v1/answer"
LATE = 1.1
"""An answer is late behind this many times its deadline."""
_CALLERS = 8
_SLOW = 1.5
_TOLERATED = 0.01
_KEEP_S = 2.0
"""For so long a connection that is not used is kept: the service closes those behind 5 s."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: the place of its body, when it was to be sent (seconds from the start), milliseconds from then to
    its answer; status 0 is a broken connection."""

    body: int
    at: float
    ms: float
    status: int
    degraded: bool = False
    reason: str = ""
    model_version: str = ""
    scores: tuple[float, ...] = ()

    @property
    def why(self) -> str:
        """Why it is degraded, in a word: `cut` where the models ran and did not get to the end."""
        why = self.reason.partition(":")[0]
        return why if why in get_args(BypassReason) or not why else "cut"

    @property
    def answered_at(self) -> float:
        """Seconds from the start."""
        return self.at + self.ms / 1000


class Caller:
    """A minimal HTTP/1.1 client over kept connections, since a full one would take the cores from the service."""

    def __init__(self, url: str, key: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._key = key
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer."""
        reader, writer = self._kept() or await asyncio.open_connection(*self._address)
        try:
            head = f"POST {path} HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer {self._key}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
            answer = json.loads(await reader.readexactly(length))
        except BaseException:
            writer.close()
            raise
        if "connection: close" in lines:
            writer.close()
        else:
            self._idle.append((time.monotonic(), reader, writer))
        return int(lines[0].split()[1]), answer

    async def ask(
        self, bodies: Sequence[bytes], number: int, at: float, started: float, path: str = RERANK
    ) -> Answered:
        """One request that was to be sent `at` seconds behind `started` (`time.perf_counter`)."""
        try:
            status, answer = await self.post(path, bodies[number])
        except (OSError, EOFError):
            return Answered(number, at, 1000 * (time.perf_counter() - started - at), 0)
        ms = 1000 * (time.perf_counter() - started - at)
        if path == ANSWER:
            version = answer.get("versions", {}).get("model_version", "")
            degraded, reason = answer.get("degraded", False), answer.get("degraded_reason", "")
            return Answered(number, at, ms, status, degraded, reason, version)
        meta = answer.get("meta", {})
        results = sorted(answer.get("results", []), key=lambda result: result["index"])
        return Answered(
            number,
            at,
            ms,
            status,
            meta.get("degraded", False),
            meta.get("degraded_reason", ""),
            meta.get("model_version", ""),
            tuple(result["relevance_score"] for result in results),
        )

    def close(self) -> None:
        """Close the kept connections."""
        for _, _, writer in self._idle:
            writer.close()

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            since, reader, writer = self._idle.pop()
            if time.monotonic() - since < _KEEP_S:
                return reader, writer
            writer.close()
        return None


async def closed_loop(caller: Caller, bodies: Sequence[bytes], seconds: float) -> list[Answered]:
    """Answers to a few callers who each wait for one before they ask again."""
    started = time.perf_counter()
    answers: list[Answered] = []
    waiting = cycle(range(len(bodies)))

    async def ask() -> None:
        while time.perf_counter() - started < seconds:
            now = time.perf_counter() - started
            answers.append(await caller.ask(bodies, next(waiting), now, started))

    await asyncio.gather(*(ask() for _ in range(_CALLERS)))
    return answers


async def offer(
    caller: Caller,
    bodies: Sequence[bytes],
    rate: float,
    seconds: float,
    seed: int,
    meanwhile: Callable[[float], Awaitable[None]] | None = None,
    path: str = RERANK,
) -> list[Answered]:
    """Send `rate` requests a second at random times (a Poisson process), each at its time, whatever became of the
    others; `meanwhile` runs beside and is told when it started (`time.perf_counter`)."""
    draw = random.Random(seed)
    times, now = [], draw.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += draw.expovariate(rate)
    started = time.perf_counter()
    beside = asyncio.ensure_future(meanwhile(started)) if meanwhile is not None else None
    tasks = []
    for number, at in enumerate(times):
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        tasks.append(asyncio.ensure_future(caller.ask(bodies, number % len(bodies), at, started, path)))
    answers = list(await asyncio.gather(*tasks))
    if beside is not None:
        await beside
    return answers


def summary(answers: Sequence[Answered], seconds: float, deadline_ms: float) -> dict[str, Any]:
    """Figures of one level."""
    ms = [answer.ms for answer in answers]
    share = 1 / max(len(answers), 1)
    p50, p95, p99 = np.percentile(ms, [50, 95, 99], method="inverted_cdf").round(1).tolist()
    reasons = [answer.why for answer in answers if answer.degraded]
    return {
        "requests": len(answers),
        "seconds": seconds,
        "errors": sum(answer.status != 200 for answer in answers),
        "late_share": round(sum(answer.ms > LATE * deadline_ms for answer in answers) * share, 4),
        "degraded_share": round(sum(answer.degraded for answer in answers) * share, 4),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": round(max(ms), 1),
        "full_per_second": round(sum(not answer.degraded and answer.status == 200 for answer in answers) / seconds, 2),
        "degraded_for": [[why, round(reasons.count(why) * share, 4)] for why in sorted(set(reasons))],
    }


def recovery_s(answers: Sequence[Answered], normal: dict[str, Any]) -> float:
    """Seconds from the start of `answers` behind which no larger share of them is degraded, failed or slow than in the
    level `normal`, give or take one in a hundred."""
    allowed = normal["degraded_share"] + _TOLERATED
    ordered = sorted(answers, key=lambda answer: answer.at)
    worse = [answer.degraded or answer.status != 200 or answer.ms > _SLOW * normal["p99_ms"] for answer in ordered]
    for number, answer in enumerate(ordered):
        if sum(worse[number:]) <= allowed * (len(worse) - number):
            return round(answer.at, 2)
    return float("inf")
