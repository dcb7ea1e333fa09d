"""Keeps the scoring process of one bundle running, and hands it the encoded pairs of the service.

The boundary is `logits_of`: texts, tokens, order, deadlines and admission stay in the service, which so can answer
without the models at any time; weights and the native code that runs them are in the other process
(docs/decisions/0012).
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.cross_encoder.engines import model_folders
from models.cross_encoder.pair_tokenizer import PairTokenizer
from models.errors import ScorerLost
from models.serving.engines import all_threads
from models.serving.model_files import ModelFiles
from services.scorer.wire import pack_pairs, receive, send, unpack_logits

if TYPE_CHECKING:
    from models.cross_encoder.pair_tokenizer import EncodedPair

_LOG = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parent.parent.parent
_CHILD = "services.scorer.child"
_START_S = 600.0
"""A process that ends is noticed at once. This is for one that hangs; a large model on a busy machine takes minutes."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_STEADY_S = 60.0
"""Running for so long makes the next start an immediate one again."""
_END_S = 5.0


class ScorerRestarts:
    """How often scoring processes were started in place of one that was lost, over all bundles of a service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self) -> None:
        """Count one."""
        with self._lock:
            self.count += 1


@dataclass(frozen=True, eq=False)
class _Child:
    process: subprocess.Popen[bytes]
    channel: socket.socket

    def end(self, grace_s: float = 0.0) -> None:
        """Hang up, which ends a healthy process and wakes who waits for its answer; kill one that does not end."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()


class RemoteScorer:
    """One model of the scoring process: encodes here, scores there."""

    def __init__(self, owner: ScorerProcess, model: str, tokenizer: PairTokenizer) -> None:
        self._owner = owner
        self._model = model
        self._tokenizer = tokenizer
        self.padded = True

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Token ids of each pair."""
        return self._tokenizer.encode(pairs)

    def logits_of(self, encoded: Sequence[EncodedPair], batch_size: int = 32) -> np.ndarray:
        """float32 [n] logits; all pairs are one batch. Raises `ScorerLost`."""
        sizes, body = pack_pairs(encoded)
        return unpack_logits(self._owner.ask({"model": self._model, "sizes": sizes}, body))


class ScorerProcess:
    """The cross-encoders of a bundle in a process of their own (`models.serving.engines.Engines`).

    A process that ends, or takes longer than `timeout_s` for a batch, is replaced by one with the same files, whose
    digests are compared again: at once, then with pauses that double. The first one gets ready while its owner loads
    what else there is in the bundle; `scorers` waits for it.
    """

    def __init__(self, files: ModelFiles, timeout_s: float, restarts: ScorerRestarts) -> None:
        self._files = files
        self._timeout_s = timeout_s
        self._restarts = restarts
        self._talking = threading.Lock()
        self._changed = threading.Lock()
        self._closed = threading.Event()
        self._child: _Child | None = None
        self._latest: _Child | None = None
        self._first: Future[None] = Future()
        self._scorers: Mapping[str, RemoteScorer] = {
            tier: RemoteScorer(self, tier, PairTokenizer.load(folder, files.max_tokens))
            for tier, folder in model_folders(files.folder).items()
        }
        child = self._spawn()
        # Asked here, as it imports torch, which the caller imports too: two threads at once may get half a module.
        self._threads = files.threads or all_threads()
        threading.Thread(target=self._keep_running, args=(child,), name="scorer-watch", daemon=True).start()

    @property
    def scorers(self) -> Mapping[str, RemoteScorer]:
        """The models, once their process is ready. Raises `ScorerLost` if it does not become so."""
        self._first.result()
        return self._scorers

    @property
    def outage(self) -> str:
        """Why nothing can be scored now, empty when it can."""
        return "" if self._child is not None else "the process that runs the models is being replaced"

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process that is ready."""
        child = self._child
        return None if child is None else child.process.pid

    def ask(self, header: Mapping[str, Any], body: bytes) -> bytes:
        """Have one batch scored. Raises `ScorerLost`, and `RuntimeError` when the model fails and its process lives."""
        with self._talking:
            child = self._child
            if child is None:
                raise ScorerLost(self.outage)
            try:
                send(child.channel, header, body)
                answer, payload = receive(child.channel)
            except TimeoutError as error:
                self._lose(child)
                raise ScorerLost(f"the models did not answer for {self._timeout_s:.0f} s") from error
            except (OSError, EOFError) as error:
                self._lose(child)
                raise ScorerLost("the process that runs the models ended") from error
        if "error" in answer:
            raise RuntimeError(f"the scoring process raised {answer['error']}")
        return payload

    def close(self) -> None:
        """End the process; no `ask` may follow."""
        with self._changed:
            self._closed.set()
            latest, self._child = self._latest, None
        if latest is not None:
            latest.end(_END_S)

    def _keep_running(self, child: _Child) -> None:
        """Tell of the first process, and watch it and those that replace it."""
        try:
            self._make_ready(child)
        except Exception as error:
            self._first.set_exception(error)
        else:
            self._first.set_result(None)
            self._watch(child)

    def _make_ready(self, child: _Child) -> None:
        """Have a process load the models, and ask it from then on. Raises `ScorerLost`."""
        files = self._files
        facts = {
            "folder": str(files.folder),
            "tiers": list(self._scorers),
            "max_tokens": files.max_tokens,
            "threads": self._threads,
            "digests": dict(files.digests),
        }
        try:
            child.channel.settimeout(_START_S)
            send(child.channel, facts)
            answer, _ = receive(child.channel)
            child.channel.settimeout(self._timeout_s)
        except (OSError, EOFError) as error:
            self._discard(child)
            raise ScorerLost("the scoring process ended before it was ready") from error
        if "error" in answer:
            self._discard(child)
            raise ScorerLost(f"the scoring process does not start: {answer['error']}")
        for size, scorer in self._scorers.items():
            scorer.padded = answer["padded"][size]
        with self._changed:
            if not self._closed.is_set():
                self._child = child
        _LOG.info("scoring process runs", extra={"facts": {"pid": child.process.pid}})

    def _spawn(self) -> _Child:
        """A new process with one end of a socket pair. Raises `ScorerLost`."""
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        with self._changed:
            if self._closed.is_set():
                raise ScorerLost("the bundle is closed")
            try:
                ours, theirs = socket.socketpair()
                with theirs:
                    process = subprocess.Popen(
                        [sys.executable, "-m", _CHILD, str(theirs.fileno())],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        pass_fds=[theirs.fileno()],
                        env=os.environ | {"PYTHONPATH": path},
                    )
            except OSError as error:
                raise ScorerLost(f"no process can be started: {error.strerror}") from error
            self._latest = _Child(process, ours)
            return self._latest

    def _discard(self, child: _Child) -> None:
        """End a process and free its socket, which nobody reads any more behind `_talking`."""
        child.end()
        child.process.wait()
        with self._talking:
            child.channel.close()

    def _lose(self, child: _Child) -> None:
        """Ask a process no more, and end it."""
        with self._changed:
            if self._child is child:
                self._child = None
        child.end()

    def _watch(self, child: _Child) -> None:
        """Replace processes that end until `close`."""
        pause_s = 0.0
        began = time.monotonic()
        while True:
            code = child.process.wait()
            self._lose(child)
            self._discard(child)
            if self._closed.is_set():
                return
            _LOG.error("scoring process lost", extra={"facts": {"pid": child.process.pid, "code": code}})
            if time.monotonic() - began > _STEADY_S:
                pause_s = 0.0
            while True:
                if self._closed.wait(pause_s):
                    return
                pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * pause_s))
                self._restarts.add()
                began = time.monotonic()
                try:
                    child = self._spawn()
                    self._make_ready(child)
                    break
                except ScorerLost as error:
                    if self._closed.is_set():
                        return
                    _LOG.error("scoring process not started", extra={"facts": {"error_message": str(error)}})
