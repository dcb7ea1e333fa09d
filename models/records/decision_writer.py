"""Write decision records in batches: to the database, or to a spool on disk while that cannot be reached."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
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
from models.records.decisions import decision_row, insert_decisions, is_about_content

_LOG = logging.getLogger(__name__)
_REPLAY_BATCH = 500


class DecisionWriter:
    """Stores decisions from a thread of its own: `put` neither waits for the database nor raises.

    Batches are written in one transaction, at the latest `flush_s` seconds after their first decision. While the
    database is away they go to `spool` (JSON lines, also used by a full queue) and are replayed, oldest first, when it
    is back or at the next start. A decision is stored once, however often it is replayed. What the database refuses for
    its content is kept in `<spool>.rejected`. Processes may share a spool.
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
    ) -> None:
        self._database = database
        self._spool = _Spool(spool)
        self._queue: queue.Queue[Decision] = queue.Queue(capacity)
        self._batch, self._flush_s = batch, flush_s
        self._first_retry_s, self._longest_retry_s = retry_s
        self._retry_s, self._retry_at = 0.0, 0.0
        self._in_hand: list[Decision] = []
        self._done = threading.Condition()
        self._accepted = self._settled = 0
        self._written = self._rejected = self._lost = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="decision-writer", daemon=True)
        self._thread.start()

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
        """Decisions that wait in the spool for the database."""
        return self._spool.count

    @property
    def pending(self) -> int:
        """Decisions in memory, neither stored nor spooled yet."""
        with self._done:
            return self._accepted - self._settled

    @property
    def rejected(self) -> int:
        """Decisions that the database refused for their content; they are in `<spool>.rejected`."""
        return self._rejected

    @property
    def lost(self) -> int:
        """Decisions that fitted neither the queue nor the disk."""
        return self._lost

    def put(self, decision: Decision) -> None:
        """Hand over a decision; it must not be changed afterwards."""
        with self._done:
            self._accepted += 1
            if self._thread.is_alive() and not self._closing.is_set():
                with suppress(queue.Full):
                    self._queue.put_nowait(decision)
                    return
        try:
            self._spool.append([_line(decision)])
        except OSError as error:
            self._lost += 1
            _LOG.error("decision %s is lost: the queue is full and the spool failed: %s", decision.decision_id, error)
        self._settle(1)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until every decision put so far is stored, spooled or rejected. False when that took longer."""
        with self._done:
            target = self._accepted
            return self._done.wait_for(lambda: self._settled >= target, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Store or spool everything and stop. What the database has not taken after `timeout_s` goes to the spool."""
        with self._done:
            self._closing.set()
        self._thread.join(timeout_s)
        rest = list(self._in_hand)
        with suppress(queue.Empty):
            while True:
                rest.append(self._queue.get_nowait())
        if rest:
            self._spool.append([_line(decision) for decision in rest], durable=True)
            self._settle(len(rest))

    def _work(self) -> None:
        while True:
            if not self._in_hand:
                self._in_hand = self._collect()
            if self._in_hand:
                self._save()
            elif self._closing.is_set():
                return
            if self._spool.count and time.monotonic() >= self._retry_at:
                self._replay()

    def _collect(self) -> list[Decision]:
        """The next batch: waits for its first decision, then at most `flush_s` for more."""
        decisions: list[Decision] = []
        deadline = time.monotonic() + self._flush_s
        while len(decisions) < self._batch:
            left = 0.0 if self._closing.is_set() else max(0.0, deadline - time.monotonic())
            try:
                decisions.append(self._queue.get(timeout=left) if left else self._queue.get_nowait())
            except queue.Empty:
                break
        return decisions

    def _save(self) -> None:
        count = len(self._in_hand)
        if time.monotonic() < self._retry_at or not self._store(self._in_hand):
            try:
                self._spool.append([_line(decision) for decision in self._in_hand], durable=True)
            except OSError as error:
                # Kept in hand: neither place takes them now, so the next round tries both again.
                _LOG.error("%s decisions wait in memory: the spool failed: %s", count, error)
                self._closing.wait(self._flush_s)
                if not self._closing.is_set():
                    return
                self._lost += count
        self._in_hand = []
        self._settle(count)

    def _store(self, decisions: Sequence[Decision]) -> bool:
        """Whether the database took the decisions, or refused some for good; False when it is away."""
        try:
            self._written += insert_decisions(self._database, [decision_row(decision) for decision in decisions])
        except (SQLAlchemyError, DatabaseError, OSError, PydanticSerializationError, ValueError) as error:
            if not is_about_content(error):
                self._retry_s = min(max(self._first_retry_s, 2 * self._retry_s), self._longest_retry_s)
                self._retry_at = time.monotonic() + self._retry_s
                _LOG.warning("decisions go to the spool for %.1f s: %s", self._retry_s, error)
                return False
            if len(decisions) > 1:
                return all(self._store([decision]) for decision in decisions)
            self._reject([_line(decisions[0])], type(error).__name__)
        self._retry_s = self._retry_at = 0.0
        return True

    def _replay(self) -> None:
        """Store what waits in the spool; stops at the first batch that the database does not take."""
        for file in self._spool.claim():
            # Another process that shares the spool may have replayed it in the meantime.
            with suppress(FileNotFoundError):
                if not self._replay_file(file):
                    return
            self._spool.remove(file)

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
        if unreadable:
            self._reject(unreadable, "not a decision")
        return True

    def _reject(self, lines: Sequence[bytes], cause: str) -> None:
        self._rejected += len(lines)
        _LOG.error("%s decisions were refused and are kept in %s: %s", len(lines), self._spool.rejected, cause)
        _append(self._spool.rejected, lines, durable=True)

    def _settle(self, count: int) -> None:
        with self._done:
            self._settled += count
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
        self._counts = {file: _count_lines(file) for file in [path, *self._claimed()] if file.exists()}

    @property
    def count(self) -> int:
        """Lines that this process knows to wait."""
        with self._lock:
            return sum(self._counts.values())

    def append(self, lines: Sequence[bytes], durable: bool = False) -> None:
        """Add lines; `durable` waits until they would survive a power failure."""
        with self._lock:
            _append(self._path, lines, durable)
            self._counts[self._path] = self._counts.get(self._path, 0) + len(lines)

    def claim(self) -> list[Path]:
        """Files to replay, oldest first: those that an earlier replay left, then the spool itself."""
        with self._lock:
            if self._path.exists() and self._path.stat().st_size:
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


def _append(path: Path, lines: Sequence[bytes], durable: bool) -> None:
    while True:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(file.fileno(), path):
                continue
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                # A process killed in the middle of a line must not spoil the next one.
                torn = file.read(1) != b"\n"
            else:
                torn = False
            file.write((b"\n" if torn else b"") + b"".join(line + b"\n" for line in lines))
            file.flush()
            if durable:
                os.fsync(file.fileno())
            return


def _is_still(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _line(decision: Decision) -> bytes:
    return json.dumps(decision.model_dump(mode="json", fallback=str)).encode()
