"""How a changed corpus flows through the graph by itself: the automation conditions of the real definitions.

The assets and checks here have the keys, dependencies, conditions and blocking marks of the code location; their bodies
only digest their inputs, so that a test may run all of them and choose what changes and what fails.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from assets import corpus, keys
from orchestration.definitions import defs
from tests import traffic
from tests.deployments import use_home

pytestmark = pytest.mark.heavy

READ = (keys.PASSAGES, keys.QUERIES, keys.JUDGMENTS, keys.QUARANTINED_ROWS)
INDEX = (
    keys.EVALUATION_SET, keys.PASSAGE_EMBEDDINGS, keys.DENSE_INDEX, keys.LEXICAL_INDEX, keys.FIRST_STAGE,
    keys.CORPUS_DEFAULTS, keys.CANDIDATES,
)  # fmt: skip
GRAPH = defs.resolve_asset_graph()
ALL = {key for key in GRAPH.get_all_asset_keys() if key.path[0] != keys.MONITORING}


class Automation:
    """The sensor `automation`: its ticks, one after the other."""

    def __init__(
        self,
        evaluated: dg.Definitions,
        instance: dg.DagsterInstance,
        last: dg.EvaluateAutomationConditionsResult | None = None,
    ) -> None:
        self._evaluated, self._instance, self._last = evaluated, instance, last

    def on(self, instance: dg.DagsterInstance) -> "Automation":
        """The sensor at its last tick, over an instance with the same contents."""
        return Automation(self._evaluated, instance, self._last)

    def tick(self) -> dict[dg.AssetKey, set[str | None]]:
        """What is requested now: assets with their partitions."""
        self._last = dg.evaluate_automation_conditions(
            self._evaluated,
            self._instance,
            asset_selection=dg.AssetSelection.all(),
            cursor=self._last.cursor if self._last else None,
        )
        requested = {key: set(self._last.get_requested_partitions(key)) for key in GRAPH.get_all_asset_keys()}
        return {key: partitions for key, partitions in requested.items() if partitions}


@dataclass
class World:
    """The graph with an instance of its own; `content` is what an asset has beside its inputs."""

    instance: dg.DagsterInstance
    content: dict[dg.AssetKey, str] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    _versions: dict[dg.AssetKey, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assets = [self._asset(built) for built in defs.assets or () if isinstance(built, dg.AssetsDefinition)]
        checks = [self._check(key) for key in sorted(GRAPH.asset_check_keys, key=str) if key.asset_key in ALL]
        self.defs = dg.Definitions(
            assets=[asset for asset in assets if asset.keys <= ALL],
            asset_checks=checks,
            executor=dg.in_process_executor,
        )
        self.automation = Automation(self.defs, self.instance)
        self.run(ALL)
        assert self.tick() == set(), "what is there when the automation is switched on is left as it is"

    @contextmanager
    def restored(self) -> Iterator["World"]:
        """As it was built: what happens until the end happens to a copy of its instance, and is forgotten then."""
        instance, automation, versions = self.instance, self.automation, dict(self._versions)
        with copy_of(instance) as copy:
            self.instance, self.automation = copy, automation.on(copy)
            yield self
        self.instance, self.automation, self._versions = instance, automation, versions
        self.content.clear()
        self.failing.clear()

    def run(self, selection: Iterable[dg.AssetKey]) -> set[dg.AssetKey]:
        """Materialize with checks, as a run that was requested for these assets; the keys that were made."""
        result = self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance, asset_selection=sorted(selection), raise_on_error=False
        )
        return {event.asset_key for event in result.get_asset_materialization_events() if event.asset_key}

    def tick(self) -> set[dg.AssetKey]:
        """What the automation requests now."""
        return set(self.automation.tick())

    def _asset(self, built: dg.AssetsDefinition) -> dg.AssetsDefinition:
        specs = list(built.specs)

        @dg.multi_asset(specs=specs, name=built.op.name, can_subset=len(specs) > 1)
        def body(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            for spec in specs:
                if spec.key in context.selected_asset_keys:
                    inputs = sorted(self._versions[dep.asset_key] for dep in spec.deps)
                    seen = repr([spec.key, self.content.get(spec.key), inputs])
                    self._versions[spec.key] = hashlib.sha256(seen.encode()).hexdigest()
                    version = dg.DataVersion(self._versions[spec.key])
                    yield dg.MaterializeResult(asset_key=spec.key, data_version=version)

        return body

    def _check(self, key: dg.AssetCheckKey) -> dg.AssetChecksDefinition:
        real = GRAPH.get(key)
        others = [parent for parent in real.parent_entity_keys if isinstance(parent, dg.AssetKey)]

        @dg.asset_check(
            asset=key.asset_key,
            name=key.name,
            blocking=real.blocking,
            additional_deps=[parent for parent in others if parent != key.asset_key],
        )
        def body() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=key.to_user_string() not in self.failing)

        return body


@contextmanager
def copy_of(instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance with the runs and events of another one."""
    with dg.DagsterInstance.ephemeral() as copy:
        for storage, connect in (("run_storage", "connect"), ("event_log_storage", "index_connection")):
            here, there = (getattr(getattr(one, storage), connect) for one in (instance, copy))
            with here() as source, there() as target:
                source.connection.driver_connection.backup(target.connection.driver_connection)
        yield copy


@pytest.fixture(scope="module")
def built_world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance)


@pytest.fixture
def world(built_world: World) -> Iterator[World]:
    with built_world.restored() as restored:
        yield restored


def without(keys_of: Iterable[dg.AssetKey]) -> set[dg.AssetKey]:
    return ALL - set(keys_of)


def test_an_unchanged_corpus_that_is_read_again_starts_nothing(world: World) -> None:
    assert world.run(READ) == set(READ)
    assert world.tick() == set()


def test_changed_passages_flow_through_the_whole_graph_in_one_run(world: World) -> None:
    world.content[keys.PASSAGES] = "changed"
    world.run(READ)
    requested = world.tick()
    assert requested == without(READ)
    assert world.tick() == set(), "it is requested once"
    assert world.run(requested) == requested
    assert world.tick() == set()


def test_changed_queries_leave_the_indexes_as_they_are(world: World) -> None:
    world.content[keys.QUERIES] = "changed"
    world.run(READ)
    # The dense index looks at them, to measure its recall where it is approximate; an exact one is found made.
    assert world.tick() == without(READ) - {keys.PASSAGE_EMBEDDINGS, keys.LEXICAL_INDEX}


def test_a_change_of_training_alone_compares_with_the_champion_of_now(world: World) -> None:
    """A release changes the champion without changing anything that its evaluation is made from."""
    world.content[keys.TRAINING_EXAMPLES] = "changed"
    world.run([keys.TRAINING_EXAMPLES])
    requested = world.tick()
    assert requested == without({*READ, *INDEX, keys.TRAINING_EXAMPLES, keys.LOGGED_LISTS})
    assert keys.CHAMPION_EVALUATION in requested
    assert world.run(requested) == requested
    assert world.tick() == set()


def test_after_refresh_index_the_rest_of_the_graph_follows(world: World) -> None:
    """What the sensor `corpus_changed` sets off."""
    world.content[keys.PASSAGES] = "changed"
    job = defs.resolve_job_def("refresh_index")
    assert job.asset_layer.executable_asset_keys == {*READ, *INDEX}
    world.run({*READ, *INDEX})
    assert world.tick() == without({*READ, *INDEX})


@pytest.mark.parametrize(
    "check",
    [
        "corpus/passages:contract",
        "corpus/passages:rejected_share",
        "corpus/queries:splits_are_disjoint",
        "corpus/judgments:references_resolve",
    ],
)
def test_a_failed_check_of_the_corpus_keeps_it_out_until_it_is_mended(world: World, check: str) -> None:
    world.content |= dict.fromkeys(READ, "broken")
    world.failing.add(check)
    world.run(READ)
    # Judgments are no part of the indexes, so passages that passed may be indexed; the dense one waits for the queries.
    expected = {keys.PASSAGE_EMBEDDINGS, keys.LEXICAL_INDEX}
    expected |= set() if check.startswith("corpus/queries") else {keys.DENSE_INDEX}
    expected = set() if check.startswith("corpus/passages") else expected
    assert world.tick() == expected
    world.run(expected)
    assert world.tick() == set(), "nothing is made of old and new halves"

    world.failing.clear()
    world.content |= dict.fromkeys(READ, "mended")
    world.run(READ)
    requested = world.tick()
    assert requested == without(READ)
    assert world.run(requested) == requested
    assert world.tick() == set()


def test_a_check_that_passes_at_a_second_look_lets_the_same_content_go_on(world: World) -> None:
    world.content[keys.PASSAGES] = "unusual"
    world.failing.add("corpus/passages:rejected_share")
    world.run(READ)
    assert world.tick() == set()
    world.failing.clear()
    world.run(READ)
    assert world.tick() == without(READ)


def test_a_failed_check_inside_the_run_stops_what_is_behind_it(world: World) -> None:
    world.content[keys.PASSAGES] = "changed"
    world.run(READ)
    requested = world.tick()
    world.failing.add("index/candidates:contract")
    assert world.run(requested) == set(INDEX)
    assert world.tick() == set()

    world.failing.clear()
    world.content[keys.CANDIDATES] = "mended"
    world.run([keys.CANDIDATES])
    requested = world.tick()
    assert requested == without({*READ, *INDEX}), "one run for all, so that one candidate has one origin"
    assert world.run(requested) == requested


def test_a_refused_candidate_is_not_released_and_the_next_one_may_be(world: World) -> None:
    world.content[keys.PASSAGES] = "worse"
    world.run(READ)
    world.failing.add("release/gate_decision:significant_gain")
    assert world.run(world.tick()) == without({*READ, keys.RELEASE, keys.ONLINE_SCORING})
    assert world.tick() == set()

    world.failing.clear()
    world.content[keys.PASSAGES] = "better"
    world.run(READ)
    requested = world.tick()
    assert requested == without(READ)
    assert keys.RELEASE in world.run(requested)


def test_what_only_warns_stops_nothing(world: World) -> None:
    world.content[keys.PASSAGES] = "changed"
    world.failing.add("serving/online_scoring:service_serves_release")
    world.run(READ)
    assert world.run(world.tick()) == without(READ)


def corpus_files(folder: Path, changes: Mapping[int, str] | None = None, rejected: int = 0) -> None:
    """A BEIR data set of 60 documents with a query each; `changes` are other texts of documents."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    documents, queries, judgments = [], [], []
    for number in range(60):
        text = (changes or {}).get(number, f"Document {number} tells at some length how part {number} is mounted.")
        documents.append({"_id": f"d{number}", "title": f"Part {number}", "text": text})
        queries.append({"_id": f"q{number}", "text": f"how is part number {number} mounted"})
        judgments.append(f"q{number}\td{number}\t1")
    lines = [json.dumps(document) for document in documents] + ["not JSON"] * rejected
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    for split, part in (("train", judgments[:30]), ("dev", judgments[30:40]), ("test", judgments[40:])):
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(part) + "\n")


def test_reading_the_corpus_is_one_step_whose_tables_change_on_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real multi-asset `read` with its real checks, over files that change."""
    data = tmp_path / "data"
    corpus_files(data)
    use_home(tmp_path, monkeypatch, CORPUS__SOURCE="beir", CORPUS__PATH=str(data))
    checks = [key for key in GRAPH.asset_check_keys if key.asset_key in READ]
    with dg.DagsterInstance.ephemeral() as instance:
        automation = Automation(defs, instance)

        def read() -> tuple[dg.ExecuteInProcessResult, dict[str, str]]:
            job = defs.resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(instance=instance, asset_selection=list(READ), raise_on_error=False)
            events = [event.materialization for event in result.get_asset_materialization_events()]
            return result, {event.asset_key.path[-1]: (event.tags or {})["dagster/data_version"] for event in events}

        result, first = read()
        assert result.success
        assert {observed.asset_check_key for observed in result.get_asset_check_evaluations()} == set(checks)
        assert automation.tick() == {}
        assert read()[1] == first
        assert automation.tick() == {}

        corpus_files(data, {3: "Document 3 was written anew and now tells something else about its part."})
        _, second = read()
        assert {name for name in first if first[name] != second[name]} == {"passages"}
        assert keys.PASSAGE_EMBEDDINGS in automation.tick()

        corpus_files(data, {4: "Document 4 was written anew as well, and many of the other lines broke."}, rejected=40)
        result, third = read()
        assert not result.success
        failed = {item.check_name for item in result.get_asset_check_evaluations() if not item.passed}
        assert failed == {"rejected_share"}
        assert third["passages"] != second["passages"], "the data is there to be looked at"
        assert automation.tick() == {}


def test_the_drift_report_follows_the_log_of_the_running_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real log over a real database; only the conditions of the report are asked."""
    deployment = use_home(tmp_path, monkeypatch)
    now = datetime.now(UTC)
    day = now.date().isoformat()
    with dg.DagsterInstance.ephemeral() as instance:
        automation = Automation(defs, instance)

        def log(**changes: object) -> None:
            if changes:
                traffic.record(deployment.database(), traffic.decision(uuid4().hex, now, **changes))
            defs.resolve_job_def("monitor").execute_in_process(
                instance=instance, asset_selection=[keys.DECISION_LOG], partition_key=day, raise_on_error=False
            )

        automation.tick()
        log(query="first")
        assert automation.tick() == {keys.DRIFT_REPORT: {day}}
        log()
        assert automation.tick() == {}, "no new decisions"
        log(query="second")
        assert automation.tick() == {keys.DRIFT_REPORT: {day}}
        log(endpoint="broken")
        assert automation.tick() == {}, "the contract of the log is broken"


def test_a_part_of_the_corpus_can_be_read_alone() -> None:
    (read,) = [built for built in corpus.ASSETS if built.keys == set(READ)]
    assert read.can_subset
    assert read.subset_for({keys.QUERIES}, None).keys == {keys.QUERIES}
