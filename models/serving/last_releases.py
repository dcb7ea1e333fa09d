"""What the ledger said last, in a file of the home: what a service serves that starts while the database is away."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import TypeAdapter

from models.records.ledger import Release
from models.store.durable_files import write_atomically

if TYPE_CHECKING:
    from models.settings import Settings

_LOG = logging.getLogger(__name__)
_FILE = "last_releases.json"
_MOST = 20
_RELEASES = TypeAdapter(list[Release])


class ReleaseLedger(Protocol):
    """Where the current release is written down (`models.records.ledger.Ledger`)."""

    def current(self) -> Release | None:
        """The release that should serve, None before the first one."""
        ...

    def earlier(self) -> Sequence[Release]:
        """The releases that rollbacks would restore one after the other."""
        ...


@dataclass(frozen=True)
class LastReleases:
    """The current release and those that rollbacks would restore, newest first, as they were when this home last asked.

    None that was rolled back is among them, as far as this home knows. Processes may share the file; what cannot be
    read or written is logged, and nothing is known then.
    """

    path: Path

    @classmethod
    def of(cls, settings: Settings) -> LastReleases:
        """Those of a deployment's home."""
        return cls(settings.home / _FILE)

    def read(self) -> list[Release]:
        """What was kept; empty where that is nothing."""
        try:
            return _RELEASES.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            _LOG.warning("the last releases cannot be read: %s: %s", type(error).__name__, error)
            return []

    def keep(self, ledger: ReleaseLedger) -> Release | None:
        """Keep what the ledger says now; returns its current release, None where nothing is kept. Raises what reading
        the ledger raises."""
        with self._alone():  # Read behind the lock: of two processes the later one has read later.
            current = ledger.current()
            if current is None:
                return None
            releases = [current, *ledger.earlier()][:_MOST]
            try:
                write_atomically(self.path, _RELEASES.dump_json(releases), 0o600)
            except OSError as error:
                _LOG.warning("the last releases cannot be kept: %s", error)
                self.forget()
                return None
            return current

    def forget(self) -> None:
        """Know nothing, before what is known may become wrong."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("the last releases cannot be forgotten: %s", error)

    @contextmanager
    def _alone(self) -> Generator[None]:
        handle = None
        try:
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            _LOG.warning("the last releases cannot be locked: %s", error)
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)
