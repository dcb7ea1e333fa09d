"""Known scores in memory and in a real Redis server, which may be slow or gone."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from models.errors import SettingsError
from models.serving.loaded_bundle import load_bundle
from models.serving.score_cache import (
    ENTRY_BYTES,
    KnownScore,
    MemoryCache,
    RedisCache,
    model_prefix,
    open_cache,
    pair_key,
)
from models.settings import CacheSettings
from tests.models.serving.test_tiered_reranker import CALIBRATION, Clock, Engine
from tests.patience import PATIENCE_S
from tests.service_process import free_port
from tests.small_bundle import BUDGET_MS, QUESTION, Small

ONE, OTHER = (
    model_prefix({"model.safetensors": "1" * 64}, 96, "code"),
    model_prefix({"model.safetensors": "2" * 64}, 96, "code"),
)
KNOWN = KnownScore(1.5, False)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the tests' own."""
    program = shutil.which("redis-server")
    assert program is not None, "redis-server is missing: run .ci/servers"
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    with Redis(port=port) as client:
        while True:
            try:
                client.ping()
                break
            except RedisConnectionError:
                assert server.poll() is None, "redis-server ended"
                time.sleep(0.01)
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait(PATIENCE_S)


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with Redis.from_url(redis_url) as result:
        result.flushall()
        yield result


def away() -> Redis:
    """A client as `open_cache` makes it, of a server that does not run: the library's own would ask for seconds."""
    return Redis(port=free_port(), retry=Retry(NoBackoff(), 0))


def cached(redis_url: str, timeout_ms: float = 60_000, key: str = "") -> RedisCache:
    result = open_cache(CacheSettings(url=redis_url, timeout_ms=timeout_ms), key=key)
    assert isinstance(result, RedisCache)
    return result


def test_a_pair_is_known_by_its_query_its_text_and_its_model() -> None:
    keys = {pair_key(query, text) for query, text in (("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("a", "b c"))}
    assert len(keys) == 5
    assert pair_key("q\ud800", "t") != pair_key("q", "t")
    files = {"a": "1", "b": "2"}
    assert model_prefix(files, 96, "code") == model_prefix(dict(reversed(files.items())), 96, "code")
    others = [model_prefix({"a": "1", "b": "3"}, 96, "code"), model_prefix(files, 96, "other code")]
    assert len({model_prefix(files, 96, "code"), model_prefix(files, 128, "code"), *others}) == 4


def test_the_code_that_reads_a_pair_is_part_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services of two versions share a Redis while they are rolled out."""
    from models.serving import engines
    from models.store.code_version import closure

    code = closure("models.cross_encoder.engines:load_engine")
    assert {"models.cross_encoder.pair_tokenizer", "models.cross_encoder.passage_cut"} <= set(code)
    versions = {engines.reader_version.__wrapped__()}
    monkeypatch.setattr(engines, "version", lambda name: f"{name} 0.1")
    versions.add(engines.reader_version.__wrapped__())
    monkeypatch.setattr(engines, "code_version", lambda entry: f"edited {entry}")
    versions.add(engines.reader_version.__wrapped__())
    assert len(versions) == 3


def test_memory_forgets_what_was_used_least_recently_above_its_bound() -> None:
    cache = MemoryCache(3 * ENTRY_BYTES)
    keys = [pair_key("q", str(n)) for n in range(4)]
    for key in keys[:3]:
        cache.put(ONE, {key: KNOWN})
    assert cache.get(ONE, keys[:1]) == [KNOWN]
    cache.put(ONE, {keys[3]: KnownScore(-2.0, True)})
    assert cache.get(ONE, keys) == [KNOWN, None, KNOWN, KnownScore(-2.0, True)]
    assert (cache.entries, cache.hits, cache.misses, cache.hit_share) == (3, 4, 1, 0.8)


@pytest.mark.parametrize("entries", [2**15 // 3 + 30, 2**15 // 2])
def test_the_bound_in_bytes_holds(entries: int) -> None:
    """Also where the dictionaries, which grow at a third of a power of two entries, are at their emptiest."""
    import tracemalloc

    max_bytes = entries * ENTRY_BYTES
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    cache = MemoryCache(max_bytes)
    for start in range(0, 2 * entries, 100):
        cache.put(ONE, {pair_key("q", str(n)): KnownScore(float(n), False) for n in range(start, start + 100)})
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cache.entries == entries
    assert after - before <= max_bytes


def test_the_last_bundle_of_a_model_takes_its_scores_along_and_no_others() -> None:
    cache, key = MemoryCache(2**20), pair_key("q", "t")
    for model in (ONE, ONE, OTHER):
        cache.use(model)
        cache.put(model, {key: KNOWN})
    cache.release(ONE)
    assert cache.get(ONE, [key]) == [KNOWN]
    cache.release(ONE)
    assert (cache.get(ONE, [key]), cache.get(OTHER, [key])) == ([None], [KNOWN])


def test_another_service_finds_the_scores_in_redis(redis_url: str, client: Any) -> None:
    key, away = pair_key("q", "t"), pair_key("q", "u")
    first = cached(redis_url)
    first.put(ONE, {key: KnownScore(0.1 + 0.2, True)})
    first.close()
    second = cached(redis_url)
    assert second.get(ONE, [key, away], at_once=True) == [None, None]
    assert second.get(ONE, [away, key]) == [None, KnownScore(0.1 + 0.2, True)]
    assert second.get(OTHER, [key]) == [None]
    assert second.hits == 1
    assert second.get(ONE, [key], at_once=True) == [KnownScore(0.1 + 0.2, True)], "it is in memory now"
    (stored,) = client.keys()
    assert 0 < client.ttl(stored) <= CacheSettings().ttl_s
    second.close()


def test_a_release_drops_its_own_scores_from_redis(redis_url: str, client: Any) -> None:
    cache = cached(redis_url)
    for model in (ONE, OTHER):
        cache.use(model)
        cache.put(model, {pair_key("q", str(n)): KNOWN for n in range(1500)})
    client.set("somebody else's", 1)
    cache.release(ONE)
    cache.close()
    assert client.dbsize() == 1501
    after = cached(redis_url)
    assert after.get(ONE, [pair_key("q", "7")]) == [None]
    assert after.get(OTHER, [pair_key("q", "7")]) == [KNOWN]
    after.close()


def test_a_value_that_is_none_of_ours_is_not_believed(redis_url: str, client: Any) -> None:
    cache, key = cached(redis_url), pair_key("q", "t")
    name = b"rerankops:score:" + ONE + key
    other = pair_key("q", "u")
    for value in (b"nonsense", KnownScore(9.0, False).pack(), KnownScore(9.0, False).pack() + bytes(16)):
        client.set(name, value)
        assert cache.get(ONE, [key]) == [None]
    cache.put(ONE, {other: KNOWN, key: KnownScore(float("nan"), False)})
    cache.close()
    reader, stranger = cached(redis_url), cached(redis_url, key="of another service")
    assert reader.get(ONE, [other, key]) == [KNOWN, None], "one is no number"
    assert stranger.get(ONE, [other]) == [None], "written by whom it has no key of"
    client.set(name, client.get(b"rerankops:score:" + ONE + other))
    assert cached(redis_url).get(ONE, [key]) == [None], "it is the score of another pair"
    assert (cache.refused, reader.refused, stranger.refused) == (3, 1, 1)
    reader.close()
    stranger.close()


def test_a_redis_that_is_gone_costs_nothing_and_is_tried_again_later() -> None:
    with away() as client:
        clock, memory, key = Clock(), MemoryCache(2**20), pair_key("q", "t")
        cache = RedisCache(client, memory, 60, clock)
        for _ in range(3):
            assert cache.get(ONE, [key]) == [None]
        assert (cache.failures, cache.breaker_open) == (3, True)
        cache.get(ONE, [key])
        assert cache.failures == 3, "it is left alone"
        clock.now += 1.01
        assert not cache.breaker_open
        cache.get(ONE, [key])
        assert (cache.failures, cache.breaker_open) == (4, True)
        clock.now += 1.01
        assert cache.breaker_open, "the pause doubles"
        cache.put(ONE, {key: KNOWN})
        assert cache.get(ONE, [key]) == [KNOWN]
        cache.close()


def test_a_redis_that_came_back_is_used_again(redis_url: str, client: Any) -> None:
    clock = Clock()
    port = int(redis_url.split(":")[2].split("/")[0])
    cache = RedisCache(away(), MemoryCache(2**20), 60, clock)
    for n in range(3):
        cache.get(ONE, [pair_key("q", str(n))])
    assert cache.breaker_open
    cache._client = Redis(port=port)
    clock.now += 1.01
    cache.put(ONE, {pair_key("q", "t"): KNOWN})
    cache.close()
    assert client.dbsize() == 1


def test_a_redis_that_hangs_is_waited_for_no_longer_than_the_setting_says() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        cache = cached(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", timeout_ms=30)
        started = time.perf_counter()
        assert cache.get(ONE, [pair_key("q", "t")]) == [None]
        assert time.perf_counter() - started < 30.0
        assert cache.failures == 1
        cache.close()


def test_writes_are_dropped_when_redis_falls_behind() -> None:
    go_on = threading.Event()

    class Slow:
        def pipeline(self, transaction: bool) -> Any:
            go_on.wait(PATIENCE_S)
            raise OSError("slow")

        def close(self) -> None: ...

    cache = RedisCache(Slow(), MemoryCache(2**20), 60)
    for n in range(300):
        cache.put(ONE, {pair_key("q", str(n)): KNOWN})
    assert cache.dropped >= 300 - 256 - 1
    go_on.set()
    cache.close()


def test_settings_open_the_cache_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_cache(CacheSettings(max_mb=0)) is None
    assert isinstance(open_cache(CacheSettings()), MemoryCache)
    with pytest.raises(SettingsError, match=r"cache\.url"):
        open_cache(CacheSettings(url="http://host/0"))
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(SettingsError, match="not installed"):
        open_cache(CacheSettings(url="redis://host/0"))


def test_known_scores_take_the_place_of_the_models_and_change_no_score() -> None:
    from models.serving.batching import Batcher, CostModel
    from models.serving.tiered_reranker import TieredReranker
    from models.settings import TiersSettings

    clock = Clock()
    engines = {"compact": Engine(clock, 1.0), "large": Engine(clock, 2.0)}
    costs = {"compact": CostModel(1.0), "large": CostModel(2.0)}
    cache = MemoryCache(2**20)
    settings = TiersSettings(budget_ms=1e9, reserve_ms=0.001, compact_candidates=3, large_candidates=1)
    batcher = Batcher(engines, costs, batch_tokens=100, clock=clock)
    reranker = TieredReranker(batcher, CALIBRATION, settings, cache, {"compact": ONE, "large": OTHER})

    def rank(texts: list[str], budget_ms: float = 1e9) -> list[tuple[int, float, str, str | None]]:
        ids = [str(index) for index in range(len(texts))]
        nothing = np.zeros(len(texts))
        ranking = reranker.rank("q", texts, ids, nothing, nothing, nothing, budget_ms)
        return [(item.index, item.logit, item.tier, item.scored_by) for item in ranking.items]

    first = rank(["1 a", "9 b", "5 c", "0 d"])
    assert [tier for *_, tier, _ in first] == ["large", "compact", "compact", "lean"]
    runs = len(engines["compact"].batches), len(engines["large"].batches)
    second = rank(["1 a", "9 b", "5 c", "0 d"])
    assert [(index, logit, by) for index, logit, _, by in second] == [(i, logit, by) for i, logit, _, by in first]
    assert [tier for *_, tier, _ in second] == ["cached", "cached", "cached", "lean"]
    assert (len(engines["compact"].batches), len(engines["large"].batches)) == runs
    assert rank(["1 a", "9 b", "5 c", "0 d"], budget_ms=0.0) == second, "also without time for a model"
    third = rank(["7 x", "9 b", "5 c"])
    assert [(index, tier) for index, _, tier, _ in third] == [(1, "cached"), (0, "compact"), (2, "cached")]
    batcher.close()


def test_bundles_of_the_same_models_share_scores_and_a_closed_one_leaves_none(small: Small) -> None:
    cache = MemoryCache(2**20)
    first, alike = (load_bundle(item.bundle, cache=cache) for item in (small.first, small.alike(3)))
    result = [bundle.rank_candidates(QUESTION, bundle.retrieve(QUESTION, 8), BUDGET_MS) for bundle in (first, alike)]
    assert result[0].tier_counts == {"large": 4, "compact": 4}
    assert result[1].tier_counts == {"cached": 8}
    assert [(i.index, i.score) for i in result[0].items] == [(i.index, i.score) for i in result[1].items]
    assert (result[1].tokens, result[1].degraded) == (0, False)
    other = load_bundle(small.shuffled().bundle, cache=cache)
    assert "cached" not in other.rank_candidates(QUESTION, other.retrieve(QUESTION, 8), BUDGET_MS).tier_counts
    for bundle in (first, alike):
        bundle.close()
    assert cache.entries == 12
    other.close()
    assert cache.entries == 0
