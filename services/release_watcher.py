"""Which bundle serves: loaded, warmed and swapped while requests go on.

Each bundle has one worker thread and so a queue of its own. A swap changes one pointer; the bundle before it finishes
the jobs that it was given and is closed by the job behind them, so no request sees two releases.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from models.errors import ReleaseError, RerankOpsError
from models.serving_types import ServedBundle
from services.errors import NothingServed, Overloaded, ReleaseLoadFailed
from services.telemetry import Telemetry, error_facts
from services.warm_up import warm_up

if TYPE_CHECKING:
    from models.ledger import Release
    from models.settings import Settings

    LoadRelease = Callable[[Settings, Release], ServedBundle]
    """Fetches, verifies and loads the bundle of a release; raises a `RerankOpsError` that says why it cannot."""

_LOG = logging.getLogger(__name__)
_FIRST_RETRY_S = 30.0
_LONGEST_RETRY_S = 900.0
_CLOSE_S = 30.0
MAX_QUEUED = 64
"""Requests in front of one bundle. Those that wait past their deadline get the lean tier, which drains the queue; only
behind this bound is a request refused."""

T = TypeVar("T")


class ReleaseLedger(Protocol):
    """Where the current release is written down (`models.ledger.Ledger`)."""

    def current(self) -> Release | None:
        """The release that should serve, None before the first one."""
        ...


@dataclass(frozen=True, slots=True)
class Swap:
    """What a look at the ledger led to. `release` is the one that serves now."""

    release: Release
    swapped: bool
    seconds: float
    warm_up_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadFault:
    """A release that did not load, and when it is tried again (`time.monotonic`)."""

    release_id: str
    error: str
    message: str
    at: datetime
    attempts: int
    retry_at: float


class ServedRelease:
    """A loaded bundle behind its one worker thread, on which it was also loaded and warmed."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.warm_up_ms: Mapping[str, float] = {}
        self.waiting = 0
        self._bundle: ServedBundle | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"release-{release.release_id}")

    def open(self, settings: Settings, load: LoadRelease) -> None:
        """Load and warm; blocks. Torch keeps a thread pool per calling thread, so this runs where requests will."""
        try:
            self._worker.submit(self._open, settings, load).result()
        except BaseException:
            self._worker.shutdown(wait=False)
            raise

    def submit(self, job: Callable[[ServedBundle], T]) -> Future[T]:
        """Queue a job for the bundle."""
        return self._worker.submit(self._run, job)

    def retire(self) -> Future[None]:
        """Close the bundle behind the last job; no `submit` may follow."""
        closing = self._worker.submit(self._close)
        self._worker.shutdown(wait=False)
        return closing

    def _open(self, settings: Settings, load: LoadRelease) -> None:
        bundle = load(settings, self.release)
        try:
            if bundle.release_id != self.release.release_id or bundle.bundle_version != self.release.bundle_version:
                raise ReleaseError(
                    f"release {self.release.release_id} (bundle {self.release.bundle_version}) loaded as "
                    f"{bundle.release_id} (bundle {bundle.bundle_version})"
                )
            self.warm_up_ms = warm_up(bundle, settings)
        except BaseException:
            bundle.close()
            raise
        self._bundle = bundle

    def _run(self, job: Callable[[ServedBundle], T]) -> T:
        assert self._bundle is not None
        return job(self._bundle)

    def _close(self) -> None:
        assert self._bundle is not None
        try:
            self._bundle.close()
            _LOG.info("release closed", extra={"facts": {"release_id": self.release.release_id}})
        except Exception as error:
            _LOG.error("release did not close", extra={"facts": error_facts(error)})


class ReleaseWatcher:
    """Keeps the ledger's current release serving. `refresh` may be called from any thread; loads never overlap."""

    def __init__(self, settings: Settings, ledger: ReleaseLedger, load: LoadRelease, telemetry: Telemetry) -> None:
        self._settings = settings
        self._ledger = ledger
        self._load = load
        self._telemetry = telemetry
        self._pointer = threading.Lock()
        self._loading = threading.Lock()
        self._served: ServedRelease | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="release-watcher", daemon=True)
        self.fault: LoadFault | None = None
        self.ledger_reachable = True

    @property
    def served(self) -> Release | None:
        """The release that serves, None before the first."""
        with self._pointer:
            return None if self._served is None else self._served.release

    def start(self) -> None:
        """Load the current release and begin to watch. A ledger or release that fails is logged and tried again."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, let the queued jobs finish, close the bundle."""
        self._stopped.set()
        with self._loading, self._pointer:
            served, self._served = self._served, None
        closing = None if served is None else served.retire()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)
        if closing is not None:
            wait([closing], _CLOSE_S)

    async def run(self, job: Callable[[ServedBundle], T]) -> T:
        """Run a job on the bundle that serves now, off the event loop, and return what it returns.

        Raises `NothingServed` or `Overloaded` at once.
        """
        with self._pointer:
            served = self._served
            if served is None:
                raise self._nothing_served()
            if served.waiting >= MAX_QUEUED:
                hint = f"{MAX_QUEUED} requests wait already"
                raise Overloaded("The service has more requests than it can queue", hint)
            future = served.submit(job)
            served.waiting += 1
            self._telemetry.queue(served.waiting)
        future.add_done_callback(lambda _: self._leave(served))
        return await asyncio.wrap_future(future)

    def refresh(self, *, force: bool = True) -> Swap | None:
        """Load, warm and swap in the ledger's current release unless it serves already; None when there is none.

        Raises `ReleaseLoadFailed`; what served before goes on serving. Without `force` a release that failed before is
        left alone until its next try is due.
        """
        with self._loading:
            release = self._ledger.current()
            self.ledger_reachable = True
            if release is None or self._stopped.is_set():
                return None
            if self._is_served(release):
                self.fault = None
                return Swap(release, swapped=False, seconds=0.0)
            fault = self.fault
            if fault and not force and fault.release_id == release.release_id and time.monotonic() < fault.retry_at:
                return None
            return self._swap_in(release)

    def look(self) -> None:
        """One look at the ledger that raises nothing: failures are kept in `fault`, logged, and tried again."""
        try:
            self.refresh(force=False)
        except ReleaseLoadFailed:
            return  # Kept and logged where it happened.
        except Exception as error:
            # The thread must outlive whatever the database does; what is loaded goes on serving.
            if self.ledger_reachable:
                _LOG.error("ledger unreachable", extra={"facts": error_facts(error)})
            self.ledger_reachable = False

    def _watch(self) -> None:
        while not self._stopped.wait(self._settings.serving.poll_seconds):
            self.look()

    def _is_served(self, release: Release) -> bool:
        served = self.served
        return served is not None and served.release_id == release.release_id

    def _swap_in(self, release: Release) -> Swap:
        started = time.monotonic()
        opened = ServedRelease(release)
        try:
            opened.open(self._settings, self._load)
        except Exception as error:
            raise self._failed(release, error) from error
        seconds = time.monotonic() - started
        with self._pointer:
            before, self._served = self._served, opened
        if before is not None:
            before.retire()
        self.fault = None
        self._telemetry.serving(release, seconds)
        facts = {"release_id": release.release_id, "seconds": round(seconds, 3), "warm_up_ms": dict(opened.warm_up_ms)}
        _LOG.info("release serves", extra={"facts": facts})
        return Swap(release, swapped=True, seconds=seconds, warm_up_ms=opened.warm_up_ms)

    def _failed(self, release: Release, error: Exception) -> ReleaseLoadFailed:
        message = str(error) if isinstance(error, RerankOpsError) else f"{type(error).__name__}; the log says where"
        before = self.fault
        attempts = before.attempts + 1 if before and before.release_id == release.release_id else 1
        pause = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * math.pow(2, attempts - 1))
        self.fault = LoadFault(
            release.release_id, type(error).__name__, message, datetime.now(UTC), attempts, time.monotonic() + pause
        )
        self._telemetry.load_failed()
        facts = {"release_id": release.release_id, "attempts": attempts, "retry_s": pause} | error_facts(error)
        _LOG.error("release does not load", extra={"facts": facts})
        return ReleaseLoadFailed(f"Release {release.release_id} does not load: {message}")

    def _leave(self, served: ServedRelease) -> None:
        with self._pointer:
            served.waiting -= 1
            if served is self._served:
                self._telemetry.queue(served.waiting)

    def _nothing_served(self) -> NothingServed:
        if self.fault is not None:
            return NothingServed("The current release does not load", "GET /health with the key says why")
        if not self.ledger_reachable:
            return NothingServed("The release ledger cannot be reached", "Check that the records database is running")
        return NothingServed("No release is loaded", "Materialize the release assets; the service then loads it")
