"""Scores that are known already: by model, query and passage text, in this process and, by setting, in Redis.

A key is `<prefix of the model><hash of query and passage>`. The prefix is made of the model's files, its length in
tokens and the version of the code that reads pairs, so that the same weights in another bundle find their scores
again, and a release that goes drops its own only.
Reading and writing never raises: what a cache does not give is computed.

Whoever writes to Redis could decide rankings, so each value there carries a MAC of its key and score (RFC 7693, keyed
BLAKE2b) by the key of the service: replicas that share Redis share that key, and believe nobody else.
"""

from __future__ import annotations

import hmac
import logging
import math
import queue
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cachetools import LRUCache

from models.errors import SettingsError

if TYPE_CHECKING:
    from models.settings import CacheSettings

_LOG = logging.getLogger(__name__)
_VALUE = struct.Struct("<d?")
_PREFIX_BYTES = 12
_KEY_BYTES = 20
ENTRY_BYTES = 432
"""Most memory of an entry of `MemoryCache` in CPython: key, value, and its places in the dictionaries of `LRUCache`
just after these have grown (427 measured)."""
_PENDING_WRITES = 256
_BREAK_AFTER = 3
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_NAMESPACE = b"rerankops:score:"
_SCANNED = 1000
_MAC_BYTES = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KnownScore:
    """The logit of a pair, and whether its passage was cut to the model's length."""

    logit: float
    cut: bool

    def pack(self) -> bytes:
        """As it is remembered."""
        return _VALUE.pack(self.logit, self.cut)

    @classmethod
    def unpack(cls, value: bytes) -> KnownScore:
        """What `pack` packed."""
        return cls(*_VALUE.unpack(value))


class ScoreCache(Protocol):
    """What the tiers ask. `model` is a `model_prefix`, a key a `pair_key`."""

    def get(self, model: bytes, keys: Sequence[bytes], *, at_once: bool = False) -> list[KnownScore | None]:
        """The known scores, None for the others; `at_once` asks nothing outside this process."""
        ...

    def put(self, model: bytes, scores: Mapping[bytes, KnownScore]) -> None:
        """Remember scores; does not wait."""
        ...

    def use(self, model: bytes) -> None:
        """A bundle with this model was opened."""
        ...

    def release(self, model: bytes) -> None:
        """A bundle with this model was closed; the last one drops its scores."""
        ...


def model_prefix(digests: Mapping[str, str], max_tokens: int, reader: str) -> bytes:
    """The name of a model in keys, from the SHA-256 of each of its files by name and the version of the code that reads
    pairs with it: services that share scores need not be of one version."""
    prefix = blake2b(digest_size=_PREFIX_BYTES)
    for name, digest in sorted(digests.items()):
        prefix.update(f"{name}\0{digest}\0".encode())
    prefix.update(f"{max_tokens}\0{reader}".encode())
    return prefix.digest()


def pair_key(query: str, passage: str) -> bytes:
    """The name of a pair in keys."""
    query_text = query.encode("utf-8", "surrogatepass")
    key = blake2b(len(query_text).to_bytes(8, "little"), digest_size=_KEY_BYTES)
    key.update(query_text)
    key.update(passage.encode("utf-8", "surrogatepass"))
    return key.digest()


class MemoryCache:
    """The least recently used entries go first, above `max_bytes`. Threads may share it."""

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[bytes, bytes] = LRUCache(max_bytes // ENTRY_BYTES)
        self._users: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def entries(self) -> int:
        """Scores that are remembered."""
        return len(self._entries)

    @property
    def hit_share(self) -> float:
        """Share of the scores asked for that were known, 0 before the first."""
        return self.hits / max(self.hits + self.misses, 1)

    def get(self, model: bytes, keys: Sequence[bytes], *, at_once: bool = False) -> list[KnownScore | None]:
        """The known scores, None for the others."""
        with self._lock:
            values = [self._entries.get(model + key) for key in keys]
            hits = sum(value is not None for value in values)
            self.hits += hits
            self.misses += len(keys) - hits
        return [None if value is None else KnownScore.unpack(value) for value in values]

    def put(self, model: bytes, scores: Mapping[bytes, KnownScore]) -> None:
        """Remember scores."""
        with self._lock:
            for key, score in scores.items():
                self._entries[model + key] = score.pack()

    def use(self, model: bytes) -> None:
        """A bundle with this model was opened."""
        with self._lock:
            self._users[model] += 1

    def release(self, model: bytes) -> None:
        """A bundle with this model was closed; the last one drops its scores."""
        with self._lock:
            self._users[model] -= 1
            if self._users[model] == 0:
                del self._users[model]
                for key in [key for key in self._entries if key.startswith(model)]:
                    del self._entries[key]

    def used(self, model: bytes) -> bool:
        """Whether an open bundle has this model."""
        with self._lock:
            return model in self._users


class CircuitBreaker:
    """Leaves a server alone that fails: for a second after three failures in a row, then twice as long after each
    failed try, at most half a minute. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._open_until = 0.0
        self.failures = 0

    @property
    def open(self) -> bool:
        """Whether the server is left alone now."""
        return self._clock() < self._open_until

    def call(self, ask: Callable[[], T]) -> T | None:
        """What the server answers; None when it fails or is left alone."""
        if self.open:
            return None
        try:
            answer = ask()
        except Exception as error:
            # Whatever a client library raises: a cache must not cost a request.
            self._fail(error)
            return None
        with self._lock:
            self._failures_in_a_row = 0
        return answer

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self.failures += 1
            self._failures_in_a_row += 1
            tries = self._failures_in_a_row - _BREAK_AFTER
            if tries < 0:
                return
            pause = min(_PAUSE_S * 2.0 ** min(tries, 10), _LONGEST_PAUSE_S)
            self._open_until = self._clock() + pause
        _LOG.warning("the score cache is left alone for %.0f s: %s", pause, type(error).__name__)


class BackgroundWriter:
    """Runs writes one after another on a thread of its own; those that find `_PENDING_WRITES` waiting are dropped."""

    def __init__(self, run: Callable[[Callable[[], object]], object]) -> None:
        self._run = run
        self._writes: queue.Queue[Callable[[], object] | None] = queue.Queue(_PENDING_WRITES)
        self._thread = threading.Thread(target=self._work, name="score-cache", daemon=True)
        self._thread.start()
        self.dropped = 0

    def submit(self, write: Callable[[], object]) -> None:
        """Queue a write; never waits."""
        try:
            self._writes.put_nowait(write)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits and end the thread; no `submit` may follow."""
        self._writes.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (write := self._writes.get()) is not None:
            self._run(write)


class RedisCache:
    """Scores that several services share, behind a `MemoryCache` that is asked first.

    Reads wait at most as long as the client's timeout; writes are made by a thread, and dropped when it falls behind.
    Both leave a Redis alone that fails (`CircuitBreaker`).
    """

    def __init__(
        self,
        client: Any,
        memory: MemoryCache,
        ttl_s: int,
        clock: Callable[[], float] = time.monotonic,
        key: str = "",
    ) -> None:
        self._client = client
        self.memory = memory
        self._ttl_s = ttl_s
        self._key = blake2b(key.encode()).digest()
        self.refused = 0
        self._breaker = CircuitBreaker(clock)
        self._writer = BackgroundWriter(self._breaker.call)
        self.hits = 0

    @property
    def hit_share(self) -> float:
        """Share of the scores asked for that were known here or in Redis, 0 before the first."""
        return (self.memory.hits + self.hits) / max(self.memory.hits + self.memory.misses, 1)

    @property
    def failures(self) -> int:
        """Calls of Redis that failed."""
        return self._breaker.failures

    @property
    def dropped(self) -> int:
        """Writes dropped since Redis was too slow."""
        return self._writer.dropped

    @property
    def breaker_open(self) -> bool:
        """Whether Redis is left alone now."""
        return self._breaker.open

    def get(self, model: bytes, keys: Sequence[bytes], *, at_once: bool = False) -> list[KnownScore | None]:
        """The known scores, None for the others; `at_once` asks the memory only."""
        scores = self.memory.get(model, keys)
        missing = [row for row, score in enumerate(scores) if score is None]
        if at_once or not missing:
            return scores
        values = self._breaker.call(lambda: self._client.mget([_NAMESPACE + model + keys[row] for row in missing]))
        if values is None:
            return scores
        fresh: dict[bytes, KnownScore] = {}
        for row, value in zip(missing, values, strict=True):
            if value is None:
                continue
            if (score := self._opened(model + keys[row], value)) is None:
                self.refused += 1
            else:
                scores[row] = fresh[keys[row]] = score
        self.memory.put(model, fresh)
        self.hits += len(fresh)
        return scores

    def put(self, model: bytes, scores: Mapping[bytes, KnownScore]) -> None:
        """Remember scores, in Redis a little later."""
        self.memory.put(model, scores)
        packed = {_NAMESPACE + model + key: self._sealed(model + key, score.pack()) for key, score in scores.items()}

        def write() -> object:
            pipeline = self._client.pipeline(transaction=False)
            for key, value in packed.items():
                pipeline.set(key, value, ex=self._ttl_s)
            return pipeline.execute()

        self._writer.submit(write)

    def use(self, model: bytes) -> None:
        """A bundle with this model was opened."""
        self.memory.use(model)

    def release(self, model: bytes) -> None:
        """A bundle with this model was closed; the last one of this process drops its scores for all."""
        self.memory.release(model)
        if self.memory.used(model):
            return

        def drop() -> object:
            for keys in self._keys_of(model):
                self._client.unlink(*keys)
            return True

        self._writer.submit(drop)

    def close(self) -> None:
        """Write what waits and end the thread; no `put` may follow."""
        self._writer.close()
        self._client.close()

    def _sealed(self, key: bytes, value: bytes) -> bytes:
        """A score as Redis has it."""
        return value + blake2b(key + value, digest_size=_MAC_BYTES, key=self._key).digest()

    def _opened(self, key: bytes, stored: bytes) -> KnownScore | None:
        """The score of `key`; None where this service's key did not seal it, or it is no finite number."""
        value = stored[:-_MAC_BYTES]
        if len(value) != _VALUE.size or not hmac.compare_digest(stored, self._sealed(key, value)):
            return None
        score = KnownScore.unpack(value)
        return score if math.isfinite(score.logit) else None

    def _keys_of(self, model: bytes) -> Iterator[list[bytes]]:
        pattern = b"".join(b"\\" + bytes([sign]) for sign in _NAMESPACE + model) + b"*"
        cursor = 0
        while True:
            cursor, keys = self._client.scan(cursor, match=pattern, count=_SCANNED)
            if keys:
                yield keys
            if cursor == 0:
                return


def open_cache(settings: CacheSettings, password: str | None = None, key: str = "") -> MemoryCache | RedisCache | None:
    """The cache of the settings; None when it is switched off. Raises `SettingsError` where Redis' client is missing.

    Services share scores in Redis where they have the same `key`. A Redis that is away is no error: the breaker tries
    it again.
    """
    if not settings.max_mb:
        return None
    memory = MemoryCache(settings.max_mb * 2**20)
    if not settings.url:
        return memory
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise SettingsError(
            "cache.url: the Redis client is not installed", "Install the extra `redis`, or empty the setting."
        ) from error
    timeout_s = settings.timeout_ms / 1000
    try:
        client = Redis.from_url(
            settings.url,
            password=password,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise SettingsError(f"cache.url: {error}", "Write it as redis://host:6379/0.") from error
    return RedisCache(client, memory, settings.ttl_s, key=key)
