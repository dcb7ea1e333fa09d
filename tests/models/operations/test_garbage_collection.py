"""What is deleted and what is kept, on folders, in memory and on a real S3 server; runs that work meanwhile; kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError, ReleaseError
from models.operations.garbage_collection import Plan, References, collect, plan, references
from models.records.ledger import Ledger, Release
from models.records.mlflow_registry import CHALLENGER, Tracking
from models.release.releaser import Releaser
from models.settings import ROOT, RetentionSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from models.store.catalog import Catalog, Ref
from tests.commands import run_command
from tests.releases import release_bundle

DAYS = 30
NOTHING = References({}, {})
LATER = timedelta(days=DAYS + 1)
"""So much later, nothing is recent."""


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    """An empty store, once on each kind of root."""
    if request.param == "memory":
        built = ArtifactStore(f"memory://store-{uuid.uuid4().hex}", tmp_path / "cache")
        yield built
        for location in built.files.find(""):
            built.files.delete(location)
        return
    root = str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("s3_root")()
    yield ArtifactStore(root, tmp_path / "cache")


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "root"), tmp_path / "cache")


def make(store: ArtifactStore, asset: str, text: str, *inputs: Artifact, **outside: str) -> Artifact:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "words.txt").write_text(f"{asset} {text}")
        return {}

    versions = {**{item.asset: item.data_version for item in inputs}, **outside}
    return store.get_or_create(asset, code_version="c", inputs=versions, settings={"text": text}, build=build)


def generation(store: ArtifactStore, text: str) -> tuple[Artifact, Artifact, Artifact]:
    """Passages, an index and a bundle, each made from the one before."""
    passages = make(store, "corpus/passages", text, source=f"source of {text}")
    index = make(store, "index/dense_index", text, passages)
    store.remember("contracts", {"asset": passages.asset, "data_version": passages.data_version}, lambda: {"count": 0})
    return passages, index, make(store, RELEASE_CANDIDATE, text, passages, index)


def point(store: ArtifactStore, *artifacts: Artifact) -> None:
    for artifact in artifacts:
        store.point(artifact)


def age(store: ArtifactStore, artifact: Artifact, days: float) -> None:
    """Let the last use of an artifact of a local root be so long ago."""
    then = time.time() - days * 86400
    os.utime(store.files.path(f"steps/{artifact.asset}/{artifact.manifest.step}.json"), (then, then))


def refs(artifacts: tuple[Artifact, ...]) -> set[Ref]:
    return {Ref(item.asset, item.data_version) for item in artifacts}


def gone(result: Plan) -> set[Ref]:
    return {item.ref for item in result.artifacts}


def release(ledger: Ledger, bundle: str, *, gate: bool = True) -> Release:
    decision = None
    if gate:
        decision = ledger.record_gate_decision(
            candidate_version=bundle, champion_version=None, verdict="released", checks={}
        ).decision_id
    return release_bundle(ledger, bundle, gate_decision_id=decision)


def test_what_nothing_refers_to_goes_and_the_rest_stays_with_what_it_was_made_from(store: ArtifactStore) -> None:
    old, served, new = (generation(store, text) for text in ("old", "served", "new"))
    point(store, *new)
    refers = References({Ref(RELEASE_CANDIDATE, served[2].data_version): "champion"}, {})
    then = datetime.now(UTC) + LATER
    listed = store.files.find("")
    told = plan(store, refers, DAYS, then)
    assert store.files.find("") == listed, "a plan changes nothing"
    assert gone(told) == refs(old)
    assert told.kept.keys() == refs(served) | refs(new)
    assert told.kept[Ref(RELEASE_CANDIDATE, served[2].data_version)] == "champion"
    assert told.kept[Ref(new[0].asset, new[0].data_version)] == "current"
    assert told.kept[Ref(served[0].asset, served[0].data_version)].startswith("made into ")
    assert told.freed_bytes == sum(item.bytes for item in told.artifacts) > 0
    assert (len(told.steps), len(told.results)) == (3, 1)

    assert gone(collect(store, lambda: refers, DAYS, then)) == refs(old)
    for first in (*served, *new):
        store.open(first.asset, first.data_version).verify()
    for first in old:
        with pytest.raises(ArtifactError, match="no artifact"):
            store.open(first.asset, first.data_version)
    left = "\n".join(store.files.find(""))
    assert not any(item.data_version in left or item.manifest.step in left for item in old), left
    assert len(store.files.find("memo")) == 2
    assert [store.require(item.asset).data_version for item in new] == [item.data_version for item in new]
    again = generation(store, "old")
    assert [item.data_version for item in again] == [item.data_version for item in old]
    assert not any(item.reused for item in again)


def test_what_a_recent_run_made_or_reused_stays(local: ArtifactStore) -> None:
    built, reused, read, unused = (generation(local, text) for text in ("made", "reused", "read", "unused"))
    for first in (*reused, *read, *unused):
        age(local, first, DAYS + 1)
    assert make(local, RELEASE_CANDIDATE, "reused", *reused[:2]).reused
    local.use(read[1])
    told = plan(local, NOTHING, DAYS)
    assert gone(told) == refs(unused) | {Ref(RELEASE_CANDIDATE, read[2].data_version)}
    assert told.kept.keys() == refs(built) | refs(reused) | refs(read[:2])


def test_one_content_of_two_computations_holds_only_the_inputs_of_the_one_in_use(local: ArtifactStore) -> None:
    """An evaluation set that comes out the same for two corpora does not keep the older corpus."""
    first, second = (make(local, "corpus/passages", text) for text in ("first", "second"))

    def same(folder: Path) -> dict[str, Any]:
        (folder / "queries.txt").write_text("the same queries")
        return {}

    sets = [
        local.get_or_create(
            "corpus/evaluation_set", code_version="c", inputs={item.asset: item.data_version}, settings={}, build=same
        )
        for item in (first, second)
    ]
    assert sets[0].data_version == sets[1].data_version
    bundle = make(local, RELEASE_CANDIDATE, "new", second, sets[1])
    point(local, bundle)
    told = plan(local, NOTHING, DAYS, datetime.now(UTC) + LATER)
    assert gone(told) == refs((first,))
    assert set(told.steps) == {f"steps/{item.asset}/{item.manifest.step}.json" for item in (first, sets[0])}


def test_releases_of_the_rollback_stack_keep_their_bundles(ledger: Ledger, tracking: Tracking) -> None:
    rows = [release(ledger, f"b{number}") for number in range(4)]
    now = datetime.now(UTC) + LATER
    kept = references(ledger, tracking, RetentionSettings(days=DAYS), now).artifacts
    assert {ref.data_version: reason for ref, reason in kept.items()} == {
        "b3": f"champion {rows[3].release_id}",
        **{f"b{number}": f"rollback to {rows[number].release_id}" for number in range(3)},
    }
    kept = references(ledger, tracking, RetentionSettings(days=DAYS, releases=1), now).artifacts
    assert {ref.data_version for ref in kept} == {"b3", "b2"}
    kept = references(ledger, tracking, RetentionSettings(days=DAYS, releases=1), datetime.now(UTC)).artifacts
    assert {ref.data_version for ref in kept} == {"b0", "b1", "b2", "b3"}, "all have served lately"


def test_a_release_that_was_rolled_back_goes_when_it_is_old(ledger: Ledger, tracking: Tracking) -> None:
    for number in range(2):
        release(ledger, f"b{number}")
    ledger.activate(ledger.begin_rollback(actor="test", reason="test").release_id)
    refers = references(ledger, tracking, RetentionSettings(days=DAYS), datetime.now(UTC) + LATER)
    assert {ref.data_version for ref in refers.artifacts} == {"b0"}
    begun = ledger.begin_rollback(actor="test", reason="test", to=ledger.history()[1].release_id)
    refers = references(ledger, tracking, RetentionSettings(days=DAYS), datetime.now(UTC) + LATER)
    assert refers.artifacts[Ref(RELEASE_CANDIDATE, "b1")] == f"pending {begun.release_id}"


def test_gate_decisions_keep_what_they_judged_while_they_are_recent(
    local: ArtifactStore, ledger: Ledger, tracking: Tracking
) -> None:
    _, _, refused = generation(local, "refused")
    row = ledger.record_gate_decision(
        candidate_version=refused.data_version, champion_version="b0", verdict="refused", checks={}
    )
    decided = make(local, "release/gate_decision", "no", refused, record=row.decision_id)
    now = datetime.now(UTC)
    recent = references(ledger, tracking, RetentionSettings(days=DAYS), now)
    assert {ref.data_version for ref in recent.artifacts} == {refused.data_version, "b0"}
    assert recent.decisions == {row.decision_id: f"gate decision of the last {DAYS} days"}
    kept = plan(local, recent, DAYS, now + LATER).kept
    assert kept[Ref(decided.asset, decided.data_version)] == f"gate decision of the last {DAYS} days"
    old = references(ledger, tracking, RetentionSettings(days=DAYS), now + LATER)
    assert old == NOTHING
    served = release(ledger, refused.data_version, gate=False)
    assert served.gate_decision_id is None
    again = release(ledger, "b2")
    assert again.gate_decision_id in references(ledger, tracking, RetentionSettings(days=DAYS), now + LATER).decisions


def test_the_candidate_that_mlflow_calls_challenger_stays(
    local: ArtifactStore, ledger: Ledger, tracking: Tracking
) -> None:
    candidate = make(local, RELEASE_CANDIDATE, "candidate")
    assert references(ledger, tracking, RetentionSettings(days=DAYS), datetime.now(UTC)) == NOTHING
    tracking.set_alias(CHALLENGER, tracking.ensure_version("reranker", candidate))
    refers = references(ledger, tracking, RetentionSettings(days=DAYS), datetime.now(UTC) + LATER)
    assert refers.artifacts == {Ref(RELEASE_CANDIDATE, candidate.data_version): "challenger in MLflow"}


def test_what_a_run_reuses_while_it_is_deleted_is_there_for_the_run(store: ArtifactStore) -> None:
    """The run asks in the middle: when the content has been taken away, and not been looked for again."""
    bundle = generation(store, "old")[2]
    asked: list[Artifact] = []
    now = datetime.now(UTC) + timedelta(days=DAYS)

    def refers() -> References:
        if asked or not store.has(RELEASE_CANDIDATE, bundle.data_version):
            time.sleep(1.1)  # S3 tells times in whole seconds.
            asked.append(generation(store, "old")[2])
            asked[-1].verify()
        return NOTHING

    time.sleep(1.1)
    result = collect(store, refers, DAYS, now + timedelta(seconds=0.5))
    assert len(asked) == 1
    assert gone(result) == set()
    store.open(RELEASE_CANDIDATE, bundle.data_version).verify()
    assert generation(store, "old")[2].reused


RUN = textwrap.dedent(
    """
    import random, sys, time
    from pathlib import Path
    from models.errors import ArtifactError
    from models.store.artifacts import ArtifactStore

    store = ArtifactStore(sys.argv[1], Path(sys.argv[2]))
    chance = random.Random(int(sys.argv[3]))
    due = {number: chance.uniform(0, 2) for number in range(40)}
    begun, made = time.monotonic(), 0
    while time.monotonic() - begun < 5 or made < 25:
        number = min(due, key=due.get)
        time.sleep(max(0, begun + due[number] - time.monotonic()))

        def build(folder):
            (folder / "words.txt").write_text(str(number))
            return {}

        asset, used = "corpus/passages", time.monotonic()
        artifact = store.get_or_create(asset, code_version="c", inputs={}, settings={"n": number}, build=build)
        try:
            assert artifact.path("words.txt").read_text() == str(number)
            artifact.verify()
        except (ArtifactError, FileNotFoundError):
            # What was used two seconds ago may go: on a busy machine this process can be stopped for so long.
            if time.monotonic() - used < 1.5:
                raise
        made += not artifact.reused
        due[number] = time.monotonic() - begun + chance.choice([2, 2, 2, 3.5]) + chance.uniform(-0.1, 0.1)
    print(made, flush=True)
    """
)


def test_runs_that_work_beside_it_find_everything_that_they_use(local: ArtifactStore, tmp_path: Path) -> None:
    """Two processes use forty artifacts, each again about when it is old enough to be deleted, or well after."""
    root = str(tmp_path / "root")
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, root, str(tmp_path / "cache"), str(seed)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(2)
    ]
    deleted = 0
    while any(run.poll() is None for run in runs):
        now = datetime.now(UTC) + timedelta(days=1) - timedelta(seconds=2)
        deleted += len(collect(local, lambda: NOTHING, 1, now).artifacts)
        time.sleep(0.02)  # else it takes a core for itself, and the runs have less of theirs
    said = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert sum(int(output) for output, _ in said) > 40, "some were made again"
    assert deleted > 0


@pytest.mark.parametrize("root", ["local", "s3"])
@pytest.mark.parametrize(
    ("killed_in", "count"), [("_move_to_trash", 1), ("_delete_for_good", 0), ("_delete_for_good", 1), ("delete", 1)]
)
def test_a_kill_in_the_middle_is_finished_by_the_next_call(
    request: pytest.FixtureRequest, tmp_path: Path, root: str, killed_in: str, count: int
) -> None:
    where = str(tmp_path / "root") if root == "local" else request.getfixturevalue("s3_root")()
    store = ArtifactStore(where, tmp_path / "cache")
    old, new = generation(store, "old"), generation(store, "new")
    point(store, *new)
    arguments = (where, str(tmp_path / "cache-2"), killed_in, str(count))
    killed = run_command(*arguments, env=os.environ, module="tests.models.operations.killed_collection")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for first in new:
        store.require(first.asset).verify()
    if count:
        again = generation(store, "old")
        assert [item.data_version for item in again] == [item.data_version for item in old]
        for first in again:
            first.verify()
    collect(store, lambda: NOTHING, DAYS, datetime.now(UTC) + LATER)
    assert Catalog.read(store).objects.keys() == refs(new)
    assert store.files.find("trash") == {}
    assert len(store.files.find("steps")) == len(new)
    for first in new:
        store.require(first.asset).verify()


def test_what_an_upload_left_half_way_goes_when_it_is_old(store: ArtifactStore) -> None:
    store.files.write("objects/corpus/passages/0123456789abcdef01234567/words.txt", b"half")
    left = Ref("corpus/passages", "0123456789abcdef01234567")
    now = datetime.now(UTC)
    assert gone(plan(store, NOTHING, DAYS, now)) == set(), "it may be going on"
    result = collect(store, lambda: NOTHING, DAYS, now + LATER)
    assert gone(result) == {left}
    assert not result.artifacts[0].whole
    assert store.files.find("objects") == {}


def test_hard_links_of_what_stays_free_nothing(local: ArtifactStore) -> None:
    kept = make(local, "corpus/passages", "kept")

    def linking(folder: Path) -> dict[str, Any]:
        os.link(kept.path("words.txt"), folder / "linked.txt")
        (folder / "own.txt").write_text("1234567")
        return {}

    unused = local.get_or_create(RELEASE_CANDIDATE, code_version="c", inputs={}, settings={}, build=linking)
    point(local, kept)
    told = plan(local, NOTHING, DAYS, datetime.now(UTC) + LATER)
    manifest = (unused.folder / "manifest.json").stat().st_size
    assert told.freed_bytes == 7 + manifest
    assert told.artifacts[0].bytes == 7 + manifest + kept.path("words.txt").stat().st_size


def test_folders_and_files_of_dead_processes_go(local: ArtifactStore, tmp_path: Path) -> None:
    dead = tmp_path / "root" / "tmp" / os.uname().nodename / "corpus-passages-dead"
    dead.mkdir(parents=True)
    scratch = local.scratch("embeddings-dead")
    scratch.mkdir(parents=True)
    torn = tmp_path / "root" / "current" / "corpus" / ".passages.json.torn"
    torn.parent.mkdir(parents=True)
    torn.write_text("{")
    for path in (scratch, torn):
        then = time.time() - 90_000
        os.utime(path, (then, then))
    with local.workspace.folder("alive") as alive:
        result = collect(local, lambda: NOTHING, DAYS)
        assert {*result.folders} == {dead, scratch}
        assert result.leftovers == ("current/corpus/.passages.json.torn",)
        assert (dead.exists(), scratch.exists(), torn.exists(), alive.exists()) == (False, False, False, True)


def test_copies_on_this_machine_go_with_what_they_are_copies_of(s3_root: Callable[[], str], tmp_path: Path) -> None:
    root, cache = s3_root(), tmp_path / "cache"
    old, new = (generation(ArtifactStore(root, tmp_path / "elsewhere"), text) for text in ("old", "new"))
    store = ArtifactStore(root, cache)
    for first in (*old, *new):
        store.open(first.asset, first.data_version)
    point(store, *new)
    now = datetime.now(UTC) + LATER
    assert len(plan(store, NOTHING, DAYS, now).folders) == len(old)
    collect(store, lambda: NOTHING, DAYS, now)
    assert {path.name for path in cache.glob("objects/*/*/*")} == {item.data_version for item in new}


def test_a_rollback_to_a_bundle_that_was_deleted_is_refused(
    local: ArtifactStore, ledger: Ledger, tracking: Tracking
) -> None:
    bundles = [make(local, RELEASE_CANDIDATE, text) for text in ("first", "second")]
    for first in bundles:
        tracking.ensure_version("reranker", first)
        release(ledger, first.data_version)
    retention = RetentionSettings(days=DAYS, releases=0)
    now = datetime.now(UTC) + LATER
    collect(
        local,
        lambda: References({Ref(RELEASE_CANDIDATE, bundles[1].data_version): "champion"}, {}),
        retention.days,
        now,
    )
    releaser = Releaser(ledger, tracking, local)
    with pytest.raises(ReleaseError, match=f"bundle {bundles[0].data_version}.*no longer in the artifact store"):
        releaser.rollback(actor="test", reason="test")
    assert ledger.pending() == []
    current = ledger.current()
    assert current is not None
    assert current.bundle_version == bundles[1].data_version
