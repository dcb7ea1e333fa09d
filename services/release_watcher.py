"""Which release serves: the ledger's current one, swapped in while requests go on.

A swap changes one pointer; the bundle before it finishes the requests that it was given and is closed behind the last
of them, so no request sees two releases.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Generator, Iterable, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from models.errors import RerankOpsError
from models.serving.last_releases import LastReleases, ReleaseLedger
from services.deadline import Deadline
from services.errors import NothingServed, ReleaseLoadFailed
from services.log_lines import error_facts
from services.served_release import ServedRelease, Work
from services.telemetry import Telemetry

if TYPE_CHECKING:
    from models.records.ledger import Release
    from models.settings import Settings
    from services.served_release import LoadRelease

_LOG = logging.getLogger(__name__)
_FIRST_RETRY_S = 30.0
_LONGEST_RETRY_S = 900.0
_CLOSE_S = 30.0

T = TypeVar("T")


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


class ReleaseWatcher:
    """Keeps the ledger's current release serving. `refresh` may be called from any thread; loads never overlap.

    What the ledger says is kept in `last`, and is served at a start at which the ledger cannot be reached. While a
    release is loaded and nothing serves, what `load_words` makes of it answers without the models.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: ReleaseLedger,
        load: LoadRelease,
        telemetry: Telemetry,
        last: LastReleases | None = None,
        load_words: LoadRelease | None = None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._load = load
        self._telemetry = telemetry
        self._last = last
        self._load_words = load_words
        self._words: ServedRelease | None = None
        self._kept: Release | None = None
        self._last_retry_at = -math.inf
        self._pointer = threading.Lock()
        self._loading = threading.Lock()
        self._served: ServedRelease | None = None
        self._stopped = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="release-watcher", daemon=True)
        self.fault: LoadFault | None = None
        self.ledger_reachable = True
        self.remembered = False
        """Whether what serves is what the ledger said before this start, and it has not been asked since."""
        telemetry.watch_queue(self)

    @property
    def queued_requests(self) -> int:
        """Requests that the models have not answered yet."""
        with self._pointer:
            served = self._served
        return 0 if served is None else served.models.waiting

    @property
    def queued_ms(self) -> float:
        """Predicted milliseconds of their work."""
        with self._pointer:
            served = self._served
        return 0.0 if served is None else served.models.queued_ms

    @property
    def outage(self) -> str:
        """Why the models of the bundle that answers cannot be asked now; empty when they can, and without a bundle."""
        with self._pointer:
            served = self._served or self._words
        return "" if served is None else served.outage

    @property
    def max_tokens(self) -> int:
        """Tokens that the models of the bundle that serves read of query and text together; 0 without a bundle."""
        with self._pointer:
            served = self._served
        return 0 if served is None else served.max_tokens

    @property
    def served(self) -> Release | None:
        """The release that serves, None before the first is loaded."""
        with self._pointer:
            return None if self._served is None else self._served.release

    def start(self, *, in_background: bool = False) -> None:
        """Load the current release and begin to watch; `in_background` does not wait for the load.

        A ledger or release that fails is logged and tried again.
        """
        if not in_background:
            self.look()
            self._looked.set()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, let the queued jobs finish, close the bundle."""
        self._stopped.set()
        with self._loading, self._pointer:
            served, self._served = self._served, None
            if served is not None:
                self._retire(served)
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)
        if served is not None:
            wait([served.closed], _CLOSE_S)

    async def run(self, work: Work[T], deadline: Deadline, gone: Awaitable[None] | None = None) -> T:
        """Answer a request by the bundle that serves now, or the words of the one that is being loaded, off the event
        loop, before its deadline under any load.

        Raises `NothingServed` at once, and `CallerLeft` when `gone` is done first.
        """
        with self._pointer:
            served = self._served or self._words
            if served is not None:
                served.users += 1
        if served is None:
            if asyncio.iscoroutine(gone):
                gone.close()
            raise self._nothing_served()
        try:
            return await served.answer(work, deadline, gone)
        finally:
            self._leave(served)

    def refresh(self, *, force: bool = True) -> Swap | None:
        """Load, warm and swap in the ledger's current release unless it serves already; None when there is none.

        Raises `ReleaseLoadFailed`; what served before goes on serving, and where nothing did, the newest earlier
        release that loads. Without `force` a release that failed before is left alone until its next try is due.
        """
        with self._loading:
            while True:
                release = self._ledger.current()
                self.ledger_reachable, self.remembered = True, False
                self._keep(release)
                if release is None or self._stopped.is_set():
                    return None
                if self._is_served(release):
                    self.fault = None
                    return Swap(release, swapped=False, seconds=0.0)
                fault = self.fault
                if fault and not force and fault.release_id == release.release_id and time.monotonic() < fault.retry_at:
                    return None
                try:
                    if (swap := self._swap_in(release)) is not None:
                        return swap
                except ReleaseLoadFailed:
                    if not self._is_superseded(release):
                        if self.served is None:
                            self._serve_first(self._ledger.earlier())
                        raise

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
            self._serve_last()

    def _watch(self) -> None:
        if not self._looked.is_set():
            self.look()
            served = self.served
            _LOG.info("started", extra={"facts": {"release_id": None if served is None else served.release_id}})
            self._looked.set()
        while not self._stopped.wait(self._settings.serving.poll_seconds):
            self.look()

    def _is_served(self, release: Release) -> bool:
        served = self.served
        return served is not None and served.release_id == release.release_id

    def _is_superseded(self, release: Release) -> bool:
        """Whether the ledger has another release by now, as after a rollback while this one was being loaded."""
        try:
            return self._ledger.current() != release
        except Exception:
            return False  # Nobody can have said otherwise that this could read.

    def _keep(self, release: Release | None) -> None:
        """Let a start without the ledger know what it says."""
        if self._last is not None and release is not None and release != self._kept:
            self._kept = self._last.keep(self._ledger)

    def _serve_last(self) -> None:
        """Serve the newest release that loads of those that the ledger named last, where nothing serves."""
        if self._last is None or self.served is not None or time.monotonic() < self._last_retry_at:
            return
        self._last_retry_at = time.monotonic() + _FIRST_RETRY_S
        with self._loading:
            if self.served is None and not self._stopped.is_set():
                self.remembered = self._serve_first(self._last.read())

    def _serve_first(self, releases: Iterable[Release]) -> bool:
        """Serve the first of the releases that loads; it is told as what may not be current."""
        for release in releases:
            try:
                started = time.monotonic()
                with self._by_words(release):
                    self._take(release, self._open(release), started)
            except Exception as error:
                facts = {"release_id": release.release_id} | error_facts(error)
                _LOG.error("earlier release does not load", extra={"facts": facts})
            else:
                facts = {"release_id": release.release_id, "ledger_reachable": self.ledger_reachable}
                _LOG.warning("an earlier release serves", extra={"facts": facts})
                return True
        return False

    def _open(self, release: Release, load: LoadRelease | None = None) -> ServedRelease:
        opened = ServedRelease(release, self._settings)
        opened.open(load or self._load)
        return opened

    def _swap_in(self, release: Release) -> Swap | None:
        """Serve a release; None if it was rolled back, or followed by another, while it was being loaded."""
        started = time.monotonic()
        with self._by_words(release):
            try:
                opened = self._open(release)
            except Exception as error:
                raise self._failed(release, error) from error
            if self._is_superseded(release):
                opened.close()
                _LOG.warning("release is no longer current", extra={"facts": {"release_id": release.release_id}})
                return None
            self.fault = None
            return self._take(release, opened, started)

    @contextmanager
    def _by_words(self, release: Release) -> Generator[None]:
        """Answer without the models while the block loads a release, where nothing serves."""
        words = None
        if self._load_words is not None and self.served is None:
            try:
                words = self._open(release, self._load_words)
            except Exception as error:
                # Nobody is answered until the release is loaded, which tells the same fault.
                facts = {"release_id": release.release_id} | error_facts(error)
                _LOG.warning("words of the release do not load", extra={"facts": facts})
            else:
                _LOG.info("words of the release answer", extra={"facts": {"release_id": release.release_id}})
        with self._pointer:
            self._words = words
        try:
            yield
        finally:
            with self._pointer:
                self._words = None
                if words is not None:
                    self._retire(words)

    def _take(self, release: Release, opened: ServedRelease, started: float) -> Swap:
        """Move the pointer to a loaded release."""
        seconds = time.monotonic() - started
        with self._pointer:
            before, self._served = self._served, opened
            if before is not None:
                self._retire(before)
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

    def _retire(self, served: ServedRelease) -> None:
        """Close a release that serves no more, now or behind its last request; `_pointer` is held."""
        served.retired = True
        if served.users == 0:
            served.close()

    def _leave(self, served: ServedRelease) -> None:
        with self._pointer:
            served.users -= 1
            if served.retired and served.users == 0:
                served.close()

    def _nothing_served(self) -> NothingServed:
        if self.fault is not None:
            return NothingServed("The current release does not load", "GET /health with the key says why")
        if not self._looked.is_set():
            return NothingServed("The release is being loaded", "GET /health/ready says when it is")
        if not self.ledger_reachable:
            return NothingServed("The release ledger cannot be reached", "Check that the records database is running")
        return NothingServed("No release is loaded", "Materialize the release assets; the service then loads it")
