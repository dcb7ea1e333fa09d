"""Record decisions: first in a spool on disk, before their answers leave; then, in batches, in the database."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy.exc import SQLAlchemyError

from models.contracts.messages import Decision
from models.records.database import Database, DatabaseError
from models.records.decisions import decision_row, delete_decisions, insert_decisions, is_about_content

_LOG = logging.getLogger(__name__)
_REPLAY_BATCH = 500
_STORE_TURN_S = 1.0
"""Wait for the thread that stores, before a decision that the spool does not take goes nowhere."""
_PROBE_S = 1.0
"""Pause between looks whether a spool that failed takes anything again."""

_CLEAN_S = 3600.0
"""Pause between looks for decisions past their days."""

_Waiting = tuple[Decision, "Future[bool]"]


class DecisionWriter:
    """Records decisions durably: what `put` promises has survived a kill or a power failure by then.

    One thread appends decisions to `spool` (JSON lines) and syncs it, all that wait in one write; decisions that come
    meanwhile share the next. Another takes the file every `flush_s` seconds and stores it in one transaction; while the
    database is away or locked the files stay, and are stored oldest first when it is back or at the next start. A
    decision is stored once, however often it is replayed. What the database refuses for its content is kept in
    `<spool>.rejected`. What the spool does not take, as on a full disk, goes straight to the database. Processes may
    share a spool. Decisions older than `keep_days` days are deleted, a few at a time; 0 keeps all.
    """

    def __init__(
        self,
        database: Database,
        spool: Path,
        *,
        capacity: int = 10_000,
        batch: int = 200,
        flush_s: float = 0.2,
        retry_s: tuple[float, float] = (0.5, 30.0),
        keep_days: int = 0,
    ) -> None:
        self._database = database
        self._spool = _Spool(spool)
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(capacity)
        self._batch, self._flush_s = batch, flush_s
        self._first_retry_s, self._longest_retry_s = retry_s
        self._retry_s, self._retry_at = 0.0, 0.0
        self._keep_days, self._cleaned_at = keep_days, -_CLEAN_S
        self._storing = threading.Lock()
        self._done = threading.Condition()
        self._accepted = self._settled = self._delivered = self._flushing = 0
        self._written = self._rejected = self._lost = 0
        self._failure = ""
        self._closing, self._wake, self._recorded_all = threading.Event(), threading.Event(), threading.Event()
        self._recorder = threading.Thread(target=self._record_all, name="decision-recorder", daemon=True)
        self._storer = threading.Thread(target=self._store_all, name="decision-storer", daemon=True)
        self._recorder.start()
        self._storer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def written(self) -> int:
        """Decisions that this writer stored in the database, replayed ones included."""
        return self._written

    @property
    def spooled(self) -> int:
        """Decisions on disk that wait for the database."""
        return self._spool.count

    @property
    def pending(self) -> int:
        """Decisions in memory that are not on disk yet."""
        with self._done:
            return self._accepted - self._settled

    @property
    def rejected(self) -> int:
        """Decisions that the database refused for their content; they are in `<spool>.rejected`."""
        return self._rejected

    @property
    def lost(self) -> int:
        """Decisions that neither disk nor database took; no caller holds their ids."""
        return self._lost

    @property
    def failure(self) -> str:
        """Why decisions cannot be recorded now; empty when they can."""
        return self._failure

    def put(self, decision: Decision) -> Future[bool]:
        """Hand over a decision, which must not be changed afterwards. The result says whether it is recorded, and comes
        when it is on disk."""
        recorded: Future[bool] = Future()
        recorded.set_running_or_notify_cancel()  # Whoever waits may leave; the decision is recorded all the same.
        with self._done:
            self._accepted += 1
            open_ = self._recorder.is_alive() and not self._closing.is_set()
            if open_:
                try:
                    self._queue.put_nowait((decision, recorded))
                except queue.Full:
                    self._failure = "the disk is too slow"
                    _LOG.error("decision %s is not recorded: the queue is full", decision.decision_id)
                else:
                    return recorded
        if open_:
            self._settle([recorded], recorded_all=False)
        else:
            self._record([(decision, recorded)])
        return recorded

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until every decision put so far is stored or rejected, or on disk while the database is away. False when
        that took longer."""
        with self._done:
            target = self._accepted
            self._flushing += 1
            self._wake.set()
            try:
                return self._done.wait_for(
                    lambda: self._settled >= target and (self._delivered >= target or self._retry_s > 0), timeout_s
                )
            finally:
                self._flushing -= 1

    def close(self, timeout_s: float = 10.0) -> None:
        """Record everything, store what the database takes within `timeout_s`, and stop."""
        until = time.monotonic() + timeout_s
        with self._done:
            if not self._closing.is_set():
                self._closing.set()
                with suppress(queue.Full):
                    self._queue.put_nowait(None)
        self._recorder.join(timeout_s)
        self._recorded_all.set()
        self._wake.set()
        self._storer.join(max(0.0, until - time.monotonic()))

    def _record_all(self) -> None:
        """The recorder's thread."""
        while True:
            waiting = self._collect()
            if waiting:
                self._record(waiting)
            elif self._closing.is_set():
                return
            elif self._failure:
                self._probe()

    def _collect(self) -> list[_Waiting]:
        """All that waits, at most a batch; empty when nothing came for a while, or at the end."""
        waiting: list[_Waiting] = []
        with suppress(queue.Empty):
            first = self._queue.get_nowait() if self._closing.is_set() else self._queue.get(timeout=_PROBE_S)
            while first is not None:
                waiting.append(first)
                if len(waiting) >= self._batch:
                    break
                first = self._queue.get_nowait()
        return waiting

    def _record(self, waiting: Sequence[_Waiting]) -> None:
        """Write decisions to the spool, or where it fails to the database, and tell whoever waits."""
        lines: list[bytes] = []
        spooled: list[_Waiting] = []
        for decision, recorded in waiting:
            try:
                lines.append(_line(decision))
            except PydanticSerializationError as error:
                line = json.dumps(decision.model_dump(mode="json", fallback=str)).encode()
                self._settle([recorded], recorded_all=self._reject([line], type(error).__name__))
            else:
                spooled.append((decision, recorded))
        if not spooled:
            return
        try:
            self._spool.append(lines)
            self._failure, is_recorded = "", True
        except OSError as error:
            is_recorded = self._store_at_once([decision for decision, _ in spooled])
            if not self._failure:
                _LOG.error("the spool failed, the database %s: %s", "takes over" if is_recorded else "too", error)
            # Without the path, which is nobody's business who asks for the service's health.
            self._failure = "" if is_recorded else error.strerror or type(error).__name__
            for decision, _ in () if is_recorded else spooled:
                _LOG.error("decision %s is lost: neither the spool nor the database took it", decision.decision_id)
        self._settle([recorded for _, recorded in spooled], recorded_all=is_recorded)

    def _store_at_once(self, decisions: Sequence[Decision]) -> bool:
        """Whether the database took decisions now; False while it is away or another thread waits for it."""
        if not self._storing.acquire(timeout=_STORE_TURN_S):
            return False
        try:
            return time.monotonic() >= self._retry_at and self._store(decisions)
        except OSError:  # Refused, and no room to keep that.
            return False
        finally:
            self._storing.release()

    def _probe(self) -> None:
        """Look whether the disk has room again, so that the failure ends without a request to tell of it."""
        try:
            self._spool.probe()
        except OSError:
            return
        self._failure = ""
        _LOG.info("decisions are recorded again")

    def _store_all(self) -> None:
        """The storer's thread."""
        while True:
            is_last = self._recorded_all.is_set()
            with self._done:
                recorded = self._settled
            with self._storing:
                if time.monotonic() >= self._retry_at or is_last:
                    self._replay(recorded)
                    self._clean()
            if is_last:
                return
            self._wake.wait(self._flush_s)
            self._wake.clear()

    def _clean(self) -> None:
        """Delete decisions past their days, once in a while, and no more at a time than lets a batch wait shortly."""
        if not self._keep_days or self._retry_s or time.monotonic() < self._cleaned_at + _CLEAN_S:
            return
        try:
            if delete_decisions(self._database, self._keep_days):
                return  # There may be more.
        except (SQLAlchemyError, DatabaseError) as error:
            _LOG.warning("old decisions stay for now: %s", error)
        self._cleaned_at = time.monotonic()

    def _store(self, decisions: Sequence[Decision]) -> bool:
        """Whether the database took the decisions, or refused some for good; False when it is away."""
        try:
            self._written += insert_decisions(self._database, [decision_row(decision) for decision in decisions])
        except (SQLAlchemyError, DatabaseError, OSError, PydanticSerializationError, ValueError) as error:
            if not is_about_content(error):
                self._retry_s = min(max(self._first_retry_s, 2 * self._retry_s), self._longest_retry_s)
                self._retry_at = time.monotonic() + self._retry_s
                _LOG.warning("decisions wait on disk for %.1f s: %s", self._retry_s, error)
                return False
            if len(decisions) > 1:
                return all(self._store([decision]) for decision in decisions)
            if not self._reject([_line(decisions[0])], type(error).__name__):
                return False
        self._retry_s = self._retry_at = 0.0
        return True

    def _replay(self, recorded: int) -> None:
        """Store what waits in the spool, the first `recorded` decisions among it; stops at the first batch that the
        database does not take."""
        try:
            for file in self._spool.claim():
                # Another process that shares the spool may have replayed it in the meantime.
                with suppress(FileNotFoundError):
                    if not self._replay_file(file):
                        break
                self._spool.remove(file)
            else:
                self._delivered = recorded
        except OSError as error:
            _LOG.error("the spool cannot be replayed: %s", error)
        with self._done:
            self._done.notify_all()

    def _replay_file(self, file: Path) -> bool:
        decisions, unreadable = [], []
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    decisions.append(Decision.model_validate_json(line))
                except ValidationError as error:
                    unreadable.append(line.rstrip(b"\n"))
                    # The error's own text quotes the line, with the query in it.
                    kinds = ", ".join(sorted({problem["type"] for problem in error.errors(include_input=False)}))
                    _LOG.error("%s, line %s is no decision: %s", file, number, kinds)
                if len(decisions) >= _REPLAY_BATCH:
                    if not self._store(decisions):
                        return False
                    decisions = []
        if decisions and not self._store(decisions):
            return False
        return not unreadable or self._reject(unreadable, "not a decision")

    def _reject(self, lines: Sequence[bytes], cause: str) -> bool:
        """Keep lines that no database takes; False if that cannot be done."""
        try:
            _append(self._spool.rejected, lines)
        except OSError as error:
            _LOG.error("%s decisions were refused (%s) and cannot be kept: %s", len(lines), cause, error)
            return False
        self._rejected += len(lines)
        _LOG.error("%s decisions were refused and are kept in %s: %s", len(lines), self._spool.rejected, cause)
        return True

    def _settle(self, waiting: Sequence[Future[bool]], *, recorded_all: bool) -> None:
        for recorded in waiting:
            recorded.set_result(recorded_all)
        with self._done:
            self._settled += len(waiting)
            if not recorded_all:
                self._lost += len(waiting)
            if self._flushing:
                self._wake.set()
            self._done.notify_all()


class _Spool:
    """An append-only file of JSON lines; `claim` takes it away for replay, and the next append starts a new one.

    Appenders hold a file lock and look again whether the path is still their file, so no line lands in a claimed file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rejected = path.with_name(f"{path.name}.rejected")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._counts = {file: _count_lines(file) for file in [path, *self._claimed()] if file.is_file()}

    @property
    def count(self) -> int:
        """Lines that this process knows to wait."""
        with self._lock:
            return sum(self._counts.values())

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines, all or none, and wait until they would survive a power failure."""
        with self._lock:
            _append(self._path, lines)
            self._counts[self._path] = self._counts.get(self._path, 0) + len(lines)

    def probe(self) -> None:
        """Write and delete as much as a decision needs. Raises `OSError` where the disk does not take it."""
        probe = self._path.with_name(f"{self._path.name}.probe")
        try:
            _append(probe, [b"." * 65_536])
        finally:
            probe.unlink(missing_ok=True)

    def claim(self) -> list[Path]:
        """Files to replay, oldest first: those that an earlier replay left, then the spool itself."""
        with self._lock:
            if self._path.is_file() and self._path.stat().st_size:
                claimed = self._path.with_name(f"{self._path.name}.{time.time_ns()}-{uuid4().hex[:6]}.replay")
                with suppress(FileNotFoundError), self._path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    if _is_still(file.fileno(), self._path):
                        os.rename(self._path, claimed)
                        self._counts[claimed] = self._counts.pop(self._path, 0)
            files = self._claimed()
            self._counts = {file: count for file, count in self._counts.items() if file in files}
            return files

    def remove(self, file: Path) -> None:
        """Forget a claimed file: the database has all of it."""
        with self._lock:
            file.unlink(missing_ok=True)
            self._counts.pop(file, None)

    def _claimed(self) -> list[Path]:
        return sorted(self._path.parent.glob(f"{self._path.name}.*.replay"))


def _append(path: Path, lines: Sequence[bytes]) -> None:
    while True:
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(file.fileno(), path):
                continue
            size = file.seek(0, os.SEEK_END)
            torn = b""
            if size:
                file.seek(size - 1)
                # A process killed in the middle of a line must not spoil the next one.
                torn = b"" if file.read(1) == b"\n" else b"\n"
            try:
                left = memoryview(torn + b"".join(line + b"\n" for line in lines))
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
                if not size:
                    _sync_folder(path.parent)
            except OSError:
                # Whoever waits is told that nothing is recorded: no part of it stays behind.
                with suppress(OSError):
                    file.truncate(size)
                raise
            return


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_still(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _line(decision: Decision) -> bytes:
    return json.dumps(decision.model_dump(mode="json")).encode()
