"""A served reranker under load: `python -m bench.load [--home DIR] [--seconds 10] [--full] [--soak MINUTES]`.

Starts `rerankops serve` with its score cache off over a copy of the deployment in DIR (the tests' small one when left
out), measures its capacity by callers who each wait for their answer, then offers requests in an open loop
(`bench.load_generator`) at 0.5, 0.8, 1, 2 and 4 times that capacity. Then, at 0.8, the release is swapped and rolled
back, and the scoring process killed (SIGKILL). `--full` overloads for five minutes; `--soak` offers 0.8 for so long
instead of all that, and reads the memory of both processes. `--only hostile` offers both routes beside callers who send
documents and queries of megabytes, `--only answers` more questions than there is time for. Prints the figures and
writes the tables `load`, `overload`, `load80`, `swap`, `scorer_kill` and `soak` of docs/benchmarks/results.json, and
their plots; `hostile`, `memory` and `answers` go to faults.json.

The generator shares the machine with the service, and so lowers the capacity that it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.folders import FIGURES
from bench.load_deployment import DOCUMENTS, Deployment, copied_deployment, small_deployment
from bench.load_generator import ANSWER, LATE, RERANK, Answered, Caller, closed_loop, offer, recovery_s, summary
from bench.load_plots import draw_levels, draw_soak
from bench.results import RESULTS, merge, merge_into
from models.settings import Settings
from tests.service_process import ServiceProcess, start_service

LEVELS = (0.5, 0.8, 1.0, 2.0, 4.0)
_RECOVERY_S = 10.0
_SWAPPED = 20
"""Different requests while releases are swapped; the answers of each release to them are known."""
_UNHURRIED_MS = 60_000.0
_SAME = 1e-4
_KILL_S = 30.0
_SAMPLE_S = 10.0
_HOSTILE_SHARE = 0.2
"""Of the capacity, on each of the two routes beside the hostile callers."""
_ATTACKERS = 2
_SETTLED_S = 5.0
_ANSWER_RATES = (60, 120)
"""Questions a second."""
_KEPT = 120
"""Points of the soak that are kept."""


_PARTS = ["levels", "swap", "kill", "hostile", "answers"]


class Bench:
    """One started service and its deployment."""

    def __init__(self, service: ServiceProcess, deployment: Deployment, deadline_ms: float, seconds: float) -> None:
        self.service = service
        self.deployment = deployment
        self.deadline_ms = deadline_ms
        self.seconds = seconds
        self.caller = Caller(service.url, service.key)
        self.bodies = deployment.bodies(deadline_ms)
        self.capacity = 0.0

    async def measure_capacity(self) -> None:
        """Full answers a second to callers who each wait for theirs and are in no hurry, behind a warm-up."""
        bodies = self.deployment.bodies(_UNHURRIED_MS)
        await closed_loop(self.caller, bodies, self.seconds / 2)
        measured = summary(await closed_loop(self.caller, bodies, self.seconds), self.seconds, self.deadline_ms)
        self.capacity = measured["full_per_second"]
        print(f"capacity {self.capacity:.1f} requests/s", measured, flush=True)
        assert self.capacity > 0, "no request was answered in full inside its deadline: the machine is too slow or busy"

    async def levels(self, overload_s: float) -> dict[str, Any]:
        """All levels, and the recovery behind the last."""
        levels: dict[str, Any] = {}
        for level in LEVELS:
            seconds = overload_s if level == LEVELS[-1] else self.seconds
            answers = await offer(self.caller, self.bodies, level * self.capacity, seconds, 2)
            levels[str(level)] = summary(answers, seconds, self.deadline_ms)
            print(level, levels[str(level)], flush=True)
        after = await offer(self.caller, self.bodies, 0.5 * self.capacity, _RECOVERY_S, 3)
        recovered = recovery_s(after, levels["0.5"])
        print(f"normal again after {recovered} s", summary(after, _RECOVERY_S, self.deadline_ms), flush=True)
        over = levels[str(LEVELS[-1])]
        return {
            "load": {"levels": levels, "recovery_s": recovered},
            "overload": {name: over[name] for name in ("errors", "late_share", "degraded_share", "seconds", "max_ms")},
            "load80": {name: levels["0.8"][name] for name in ("p99_ms", "degraded_share")},
        }

    async def swaps(self) -> dict[str, Any]:
        """A swap and a rollback at 0.8 of capacity; every full answer must have the scores of the release it names."""
        bodies = self.bodies[:_SWAPPED]
        expected = {}
        for version in ("2", "1"):
            await self._put_in_service(version)
            expected[version] = [await self._scores(body) for body in range(len(bodies))]
        took: list[float] = []

        async def swap_and_roll_back(_: float) -> None:
            for version in ("2", "1"):
                await asyncio.sleep(self.seconds / 5)
                began = time.perf_counter()
                await self._put_in_service(version)
                took.append(round(time.perf_counter() - began, 2))

        seconds = max(2 * self.seconds, _KILL_S)
        answers = await offer(self.caller, bodies, 0.8 * self.capacity, seconds, 4, swap_and_roll_back)
        full = [answer for answer in answers if not answer.degraded and answer.status == 200]
        mixed = sum(not _same(answer.scores, expected[answer.model_version][answer.body]) for answer in full)
        by_version = {version: sum(answer.model_version == version for answer in full) for version in expected}
        assert all(by_version.values()), f"both releases answered in full: {by_version}"
        measured = summary(answers, seconds, self.deadline_ms)
        swap = {
            "failed_requests": measured["errors"],
            "mixed_answers": mixed,
            "full_answers_by_version": by_version,
            "late_share": measured["late_share"],
            "degraded_share": measured["degraded_share"],
            "seconds_to_effect": took,
        }
        print("swap", swap, flush=True)
        return {"swap": swap}

    async def scorer_kill(self) -> dict[str, Any]:
        """SIGKILL for the scoring process at 0.8 of capacity."""
        seconds = max(self.seconds, _KILL_S)
        killed_at = 0.0

        async def kill(started: float) -> None:
            nonlocal killed_at
            await asyncio.sleep(seconds / 5)
            os.kill(self.service.scorer_pid, signal.SIGKILL)
            killed_at = time.perf_counter() - started

        answers = await offer(self.caller, self.bodies, 0.8 * self.capacity, seconds, 5, kill)
        behind = [answer for answer in answers if answer.at > killed_at]
        full = [answer.answered_at for answer in behind if not answer.degraded and answer.status == 200]
        lean = [answer for answer in answers if answer.why == "scorer"]
        measured = summary(answers, seconds, self.deadline_ms)
        killed = {
            "errors": measured["errors"],
            "late_share": measured["late_share"],
            "max_ms": measured["max_ms"],
            "answered_lean": len(lean),
            "lean_p99_ms": summary(lean, seconds, self.deadline_ms)["p99_ms"] if lean else None,
            "seconds_until_full_tiers": round(min(full) - killed_at, 2) if full else None,
        }
        print("scorer_kill", killed, flush=True)
        return {"scorer_kill": killed}

    async def hostile(self) -> dict[str, Any]:
        """Both routes at a part of the capacity, beside callers who send megabytes as fast as they are answered, twice;
        the memory of the service before and behind each attack."""
        text = "the pump of the house moves water to the roof; "
        huge = text * (3_900_000 // len(text))
        attacks = [
            (RERANK, {"model": "champion", "query": "how", "documents": [huge]}),
            (RERANK, {"model": "champion", "query": "how", "documents": [huge[:3_800]] * 1000}),
            (RERANK, {"model": "champion", "query": huge, "documents": ["a", "b"]}),
            (RERANK, {"model": "champion", "query": huge[:4_000], "documents": [huge[:50_000]] * 70}),
            (ANSWER, {"query": huge}),
            (ANSWER, {"query": huge[:4_000]}),
        ]
        bodies = [(path, json.dumps({**body, "timeout_ms": self.deadline_ms}).encode()) for path, body in attacks]
        ended = asyncio.Event()
        statuses: list[int] = []
        pid = self.service.process.pid

        async def attack(first: int) -> None:
            number = first
            while not ended.is_set():
                with suppress(OSError, EOFError):
                    statuses.append((await self.caller.post(*bodies[number % len(bodies)]))[0])
                number += 1

        async def load(seed: int) -> tuple[list[Answered], list[Answered]]:
            rate, answers = _HOSTILE_SHARE * self.capacity, self.deployment.answer_bodies(self.deadline_ms)
            return await asyncio.gather(
                offer(self.caller, self.bodies, rate, self.seconds, seed),
                offer(self.caller, answers, rate, self.seconds, seed + 1, path=ANSWER),
            )

        undisturbed = await load(7)
        before_mb = _resident_mb(pid)
        attacked: list[tuple[float, float]] = []
        disturbed: tuple[list[Answered], list[Answered]] = [], []
        for seed in (9, 11):
            ended.clear()
            attackers = [asyncio.ensure_future(attack(number)) for number in range(_ATTACKERS)]
            for answers, more in zip(disturbed, await load(seed), strict=True):
                answers += more
            highest_mb = _resident_mb(pid)
            ended.set()
            await asyncio.gather(*attackers)
            await asyncio.sleep(_SETTLED_S)
            attacked.append((highest_mb, _resident_mb(pid)))
        figures = {
            route: summary(answers, seconds, self.deadline_ms)
            for name, both, seconds in (
                ("undisturbed", undisturbed, self.seconds),
                ("disturbed", disturbed, 2 * self.seconds),
            )
            for route, answers in ((f"rerank_{name}", both[0]), (f"answer_{name}", both[1]))
        }
        others = [answer for answers in disturbed for answer in answers]
        hostile = {
            **figures,
            "late": sum(answer.ms > LATE * self.deadline_ms for answer in others),
            "errors": sum(answer.status != 200 for answer in others),
            "requests": len(others),
            "attacks": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        }
        memory = {
            "before_mib": round(before_mb),
            "under_attack_mib": round(attacked[0][0]),
            "growth_mib": round(attacked[0][1] - before_mb),
            "growth_by_second_attack_mib": round(attacked[1][1] - attacked[0][1]),
        }
        print("hostile", hostile, memory, flush=True)
        return {"hostile": hostile, "memory": memory}

    async def answers(self) -> dict[str, Any]:
        """/v1/answer at more than it can answer."""
        bodies, rates = self.deployment.answer_bodies(self.deadline_ms), {}
        for rate in _ANSWER_RATES:
            answers = await offer(self.caller, bodies, rate, self.seconds, 11, path=ANSWER)
            dropped = sum(answer.status == 503 for answer in answers)
            rates[str(rate)] = {**summary(answers, self.seconds, self.deadline_ms), "dropped": dropped}
            print("answers", rate, rates[str(rate)], flush=True)
        return {"answers": {"rates": rates}}

    async def soak(self, minutes: float) -> dict[str, Any]:
        """0.8 of capacity for long; the resident memory of both processes."""
        points: list[tuple[float, float, float]] = []
        ended = asyncio.Event()

        async def sample(started: float) -> None:
            while not ended.is_set():
                service, scorer = _resident_mb(self.service.process.pid), _resident_mb(self.service.scorer_pid)
                points.append(((time.perf_counter() - started) / 60, service, scorer))
                if points[-1][0] >= minutes - _SAMPLE_S / 60:
                    return
                await asyncio.sleep(_SAMPLE_S)

        answers = await offer(self.caller, self.bodies, 0.8 * self.capacity, 60 * minutes, 6, sample)
        measured = summary(answers, 60 * minutes, self.deadline_ms)
        behind = np.array([point for point in points if point[0] >= minutes / 6])
        slopes = {
            name: round(60 * float(np.polyfit(behind[:, 0], behind[:, column], 1)[0]), 1)
            for name, column in (("service", 1), ("scorer", 2))
        }
        step = max(1, len(points) // _KEPT)
        soak = {
            "minutes": minutes,
            **{
                name: measured[name]
                for name in ("requests", "errors", "late_share", "degraded_share", "p50_ms", "p99_ms")
            },
            "mb_per_hour": slopes,
            "first_mb": [round(value) for value in points[0][1:]],
            "last_mb": [round(value) for value in points[-1][1:]],
            "points": [[round(value, 2) for value in point] for point in points[::step]],
        }
        print("soak", {name: value for name, value in soak.items() if name != "points"}, flush=True)
        return {"soak": soak}

    async def _put_in_service(self, version: str) -> None:
        self.deployment.activate(version)
        status, swap = await self.caller.post("/v1/release/refresh", b"")
        assert (status, swap["model_version"]) == (200, version), swap

    async def _scores(self, number: int) -> tuple[float, ...]:
        body = json.dumps({**json.loads(self.bodies[number]), "timeout_ms": _UNHURRIED_MS}).encode()
        answered = await self.caller.ask([body], 0, 0.0, time.perf_counter())
        assert not answered.degraded, answered.reason
        return answered.scores


async def measure(bench: Bench, parts: Sequence[str], overload_s: float, soak_minutes: float) -> dict[str, Any]:
    """The wanted parts."""
    await bench.measure_capacity()
    figures: dict[str, Any] = {}
    for part in parts:
        if part == "levels":
            figures |= await bench.levels(overload_s)
        elif part == "swap":
            figures |= await bench.swaps()
        elif part == "kill":
            figures |= await bench.scorer_kill()
        elif part == "hostile":
            figures |= await bench.hostile()
        elif part == "answers":
            figures |= await bench.answers()
        else:
            figures |= await bench.soak(soak_minutes)
    bench.caller.close()
    return figures


def conditions(bench: Bench, settings: Settings) -> dict[str, Any]:
    """Under which a table was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "deployment": bench.deployment.name,
        "capacity_per_second": round(bench.capacity, 2),
        "deadline_ms": bench.deadline_ms,
        "objective_p99_ms": settings.objectives.p99_ms,
        "documents": DOCUMENTS,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
    }


def main() -> None:
    """Build, serve, load, print and write."""
    parser = argparse.ArgumentParser(description="A served reranker under load.")
    parser.add_argument("--home", type=Path, help="deployment whose release is served, from a copy")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each level")
    parser.add_argument("--overload-seconds", type=float, help="at 4 times capacity; as --seconds when left out")
    parser.add_argument("--full", action="store_true", help="five minutes at 4 times capacity")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="0.8 of capacity for so long, and nothing else")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS[:3])
    options = parser.parse_args()
    overload_s = 300.0 if options.full else options.overload_seconds or options.seconds
    parts = ["soak"] if options.soak else options.only
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="load-") as work:
        deployment = copied_deployment(options.home, Path(work)) if options.home else small_deployment(Path(work))
        deployment.activate("1")
        given = {
            "STORAGE__ARTIFACTS": deployment.artifacts,
            "SERVING__POLL_SECONDS": "3600",
            "CACHE__MAX_MB": "0",
        }
        with start_service(deployment.home, port=None, **given) as service:
            bench = Bench(service, deployment, settings.tiers.budget_ms, options.seconds)
            figures = asyncio.run(measure(bench, parts, overload_s, options.soak or 0.0))
    for table in figures.values():
        table["conditions"] = conditions(bench, settings)
    faults = {name: figures.pop(name) for name in ("hostile", "memory", "answers") if name in figures}
    if faults:
        merge_into(FIGURES / "faults.json", faults)
    if figures:
        merge(figures)
    images = RESULTS.parent.parent / "images"
    if "load" in figures:
        draw_levels(figures["load"], images)
    if "soak" in figures:
        draw_soak(figures["soak"], images)


def _same(scores: Sequence[float], expected: Sequence[float]) -> bool:
    return len(scores) == len(expected) and bool(np.allclose(scores, expected, rtol=0, atol=_SAME))


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


if __name__ == "__main__":
    main()
