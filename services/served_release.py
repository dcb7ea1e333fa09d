"""One loaded release and the requests that it answers: with its models in time, or without them.

Each bundle has queues and threads of its own, so one can finish its requests while the next one serves.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from models.errors import ReleaseError, ScorerLost
from models.serving.batching import Claim
from models.serving.protocol import ServedBundle
from services.deadline import Deadline
from services.errors import CallerLeft
from services.lanes import Bypass, FallbackLane, ModelLane, TooLateError
from services.log_lines import error_facts
from services.usage import Usage
from services.warm_up import warm_up

if TYPE_CHECKING:
    from models.records.ledger import Release
    from models.settings import Settings

    LoadRelease = Callable[[Settings, Release], ServedBundle]
    """Fetches, verifies and loads the bundle of a release; raises a `RerankOpsError` that says why it cannot."""

_LOG = logging.getLogger(__name__)
_FALLBACK_SHARE = 0.5
"""Part of `tiers.reserve_ms` that is kept for an answer without them when the models have not ended in time."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """A request as the bundle's threads see it.

    `cost_ms` predicts the models' time and is cheap; `full` answers with the models; `fallback` answers without them in
    a few milliseconds and says why, in less when it is told to hurry. Where that is more than a millisecond or two it
    `may_drop`: when more is asked than the service can answer, it raises `Overloaded` instead.
    """

    cost_ms: Callable[[ServedBundle], float]
    full: Callable[[ServedBundle, Claim], T]
    fallback: Callable[[ServedBundle, Bypass, bool], T]
    may_drop: bool = False


class _Bypassed(Exception):
    """The models do not answer a request; `bypass` says why."""

    def __init__(self, bypass: Bypass) -> None:
        super().__init__(bypass.degraded_reason)
        self.bypass = bypass


class ServedRelease:
    """A loaded bundle behind its two queues. `users` counts the requests that were given to it and are not answered."""

    def __init__(self, release: Release, settings: Settings) -> None:
        self.release = release
        self.warm_up_ms: Mapping[str, float] = {}
        self.users = 0
        self.retired = False
        self.closed: Future[None] = Future()
        self._settings = settings
        self._reserve_s = settings.tiers.reserve_ms / 1000
        self._bundle: ServedBundle | None = None
        self._usage = Usage()
        name = f"release-{release.release_id}"
        self.models = ModelLane(name, settings.serving.workers, settings.serving.max_queue_ms)
        self._fallback = FallbackLane(f"{name}-fallback")

    def open(self, load: LoadRelease) -> None:
        """Load and warm; blocks. What fails leaves nothing open."""
        try:
            self._bundle = self._load(load)
        except BaseException:
            self.models.close()
            self._fallback.close()
            raise

    async def answer(self, work: Work[T], deadline: Deadline, gone: Awaitable[None] | None = None) -> T:
        """Answer with the models if they can in time, else without them. Raises `CallerLeft` once `gone` is done."""
        bundle = self._bundle
        assert bundle is not None
        left = None if gone is None else asyncio.ensure_future(gone)
        try:
            try:
                return await self._by_models(bundle, work, deadline, left)
            except _Bypassed as bypassed:
                bypass = bypassed.bypass
            future = self._fallback.submit(
                lambda hurry: work.fallback(bundle, bypass, hurry), deadline.at, may_drop=work.may_drop
            )
            return await _result(future, left, None)
        finally:
            if left is not None:
                left.cancel()

    async def _by_models(
        self, bundle: ServedBundle, work: Work[T], deadline: Deadline, left: asyncio.Future[None] | None
    ) -> T:
        """The models' answer. Raises `_Bypassed`."""

        def run(claim: Claim) -> T:
            # Those that waited when the models were lost need not prepare what nobody scores.
            if bundle.outage:
                raise ScorerLost(bundle.outage)
            answer = work.full(bundle, claim)
            self._usage.observe(predicted_ms, claim)
            return answer

        if outage := bundle.outage:
            raise _Bypassed(Bypass("scorer", outage))
        predicted_ms = work.cost_ms(bundle)
        admitted = self.models.enter(run, self._usage.share * predicted_ms, deadline.at - self._reserve_s)
        if isinstance(admitted, Bypass):
            raise _Bypassed(admitted)
        try:
            timeout = deadline.at - _FALLBACK_SHARE * self._reserve_s - time.monotonic()
            return await _result(admitted.future, left, timeout)
        except TooLateError as late:
            raise _Bypassed(Bypass("late", str(late))) from late
        except TimeoutError as late:
            raise _Bypassed(Bypass("late", "the models had not ended when its time ran out")) from late
        except ScorerLost as lost:
            raise _Bypassed(Bypass("scorer", lost.message)) from lost
        finally:
            admitted.claim.withdraw()

    @property
    def max_tokens(self) -> int:
        """Tokens that the models read of query and text together; 0 before it is open."""
        return 0 if self._bundle is None else self._bundle.max_tokens

    @property
    def outage(self) -> str:
        """Why the models cannot be asked now; empty when they can."""
        return "" if self._bundle is None else self._bundle.outage

    def close(self) -> None:
        """Close the bundle behind the last job, which `closed` tells; no `answer` may follow."""
        self.models.close()
        self._fallback.close()
        threading.Thread(target=self._close, name="release-closing", daemon=True).start()

    def _load(self, load: LoadRelease) -> ServedBundle:
        bundle = load(self._settings, self.release)
        try:
            loaded = bundle.versions
            if (loaded.release_id, loaded.bundle_version) != (self.release.release_id, self.release.bundle_version):
                raise ReleaseError(
                    f"release {self.release.release_id} (bundle {self.release.bundle_version}) loaded as "
                    f"{loaded.release_id} (bundle {loaded.bundle_version})"
                )
            self.warm_up_ms = warm_up(bundle, self._settings)
            # A full collection stops every thread, for .3 s of CPU with the libraries and 7,000 passages, and finds
            # nothing in them: what is loaded stays out of it until the bundle is closed.
            gc.freeze()
        except BaseException:
            bundle.close()
            raise
        return bundle

    def _close(self) -> None:
        assert self._bundle is not None
        self.models.join()
        self._fallback.join()
        try:
            self._bundle.close()
            _LOG.info("release closed", extra={"facts": {"release_id": self.release.release_id}})
        except Exception as error:
            _LOG.error("release did not close", extra={"facts": error_facts(error)})
        self._bundle = None
        gc.unfreeze()
        gc.collect()  # An encoder refers to itself.
        gc.freeze()
        self.closed.set_result(None)


async def _result(future: Future[T], left: asyncio.Future[None] | None, timeout_s: float | None) -> T:
    """Await a job; its exception is raised. Raises `TimeoutError` and leaves the job alone, or `CallerLeft`."""
    wrapped = asyncio.wrap_future(future)
    # What it raises after everybody has left is nobody's.
    wrapped.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    awaited = {wrapped} if left is None else {wrapped, left}
    timeout = None if timeout_s is None else max(0.0, timeout_s)
    done, _ = await asyncio.wait(awaited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if wrapped in done:
        return wrapped.result()
    if done:
        future.cancel()
        raise CallerLeft("The caller closed the connection")
    raise TimeoutError
