"""The artifact store: content names, reuse, crashes, races, tampering, remote roots."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from models.errors import ArtifactError
from models.settings import ROOT
from models.store.artifacts import MANIFEST, Artifact, ArtifactStore, Manifest
from models.store.filesystem import StoreFiles
from tests.object_storage import SECRET
from tests.patience import PATIENCE_S

ASSET = "corpus/passages"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "root"), tmp_path / "cache")


@pytest.fixture(params=["memory", "s3"])
def remote_root(request: pytest.FixtureRequest) -> Iterator[str]:
    """A root that is no folder: in memory, and on a real S3 server."""
    if request.param == "s3":
        yield request.getfixturevalue("s3_root")()
        return
    root = f"memory://store-{uuid.uuid4().hex}"
    yield root
    fsspec.filesystem("memory").rm(root, recursive=True)


@pytest.fixture
def memory_root() -> Iterator[str]:
    root = f"memory://store-{uuid.uuid4().hex}"
    yield root
    fsspec.filesystem("memory").rm(root, recursive=True)


def writing(text: str, **summary: Any) -> Callable[[Path], dict[str, Any]]:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "deep").mkdir()
        (folder / "deep" / "words.txt").write_text(text)
        (folder / "size.json").write_text(str(len(text)))
        return summary

    return build


def never(folder: Path) -> dict[str, Any]:
    raise AssertionError("the stored artifact should have been reused")


def create(store: ArtifactStore, build: Callable[[Path], Any] = writing("words", rows=1), **changes: Any) -> Artifact:  # noqa: B008
    arguments: dict[str, Any] = {"code_version": "c1", "inputs": {"up": "v1"}, "settings": {"k": 1}}
    return store.get_or_create(ASSET, build=build, **(arguments | changes))


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_artifact_has_its_files_its_summary_and_its_lineage(store: ArtifactStore) -> None:
    artifact = create(store)
    assert (artifact.asset, artifact.reused, artifact.summary) == (ASSET, False, {"rows": 1})
    assert artifact.path("deep/words.txt").read_text() == "words"
    assert artifact.read_json("size.json") == 5
    assert artifact.manifest.inputs == {"up": "v1"}
    assert artifact.manifest.settings == {"k": 1}
    assert artifact.manifest.files["deep/words.txt"].bytes == 5
    assert Manifest.from_json((artifact.folder / MANIFEST).read_bytes()) == artifact.manifest
    artifact.verify()


def test_the_same_computation_is_not_run_again(store: ArtifactStore, tmp_path: Path) -> None:
    first = create(store)
    second = create(store, never)
    assert (second.reused, second.data_version) == (True, first.data_version)
    elsewhere = ArtifactStore(str(tmp_path / "root"), tmp_path / "other-cache")
    assert create(elsewhere, never).data_version == first.data_version


@pytest.mark.parametrize("change", [{"code_version": "c2"}, {"inputs": {"up": "v2"}}, {"settings": {"k": 2}}])
def test_other_code_inputs_or_settings_run_it_again(store: ArtifactStore, change: dict[str, Any]) -> None:
    create(store)
    with pytest.raises(AssertionError, match="should have been reused"):
        create(store, never, **change)


def test_the_name_is_the_content_whatever_made_it(store: ArtifactStore) -> None:
    first = create(store)
    same = create(store, code_version="c2")
    other = create(store, writing("other words"), code_version="c3")
    assert same.data_version == first.data_version != other.data_version
    assert not same.reused


def test_reports_are_kept_but_do_not_name_it(store: ArtifactStore) -> None:
    def with_report(title: str) -> Callable[[Path], dict[str, Any]]:
        def build(folder: Path) -> dict[str, Any]:
            (folder / "report").mkdir()
            (folder / "report" / "plot.html").write_text(title)
            return writing("words")(folder)

        return build

    first = create(store, with_report("monday"))
    second = create(store, with_report("tuesday"), code_version="c2")
    assert first.data_version == second.data_version
    assert first.path("report/plot.html").read_text() == "monday"


def test_two_computations_of_one_content_share_its_files_and_keep_their_lineage(store: ArtifactStore) -> None:
    first = create(store)
    second = create(store, settings={"k": 2}, inputs={"up": "v2"})
    assert (first.data_version, first.folder) == (second.data_version, second.folder)
    assert (second.manifest.settings, second.manifest.inputs) == ({"k": 2}, {"up": "v2"})
    store.point(second)
    assert store.current(ASSET) == second
    again = create(store, never)
    assert (again.manifest, again.reused) == (first.manifest, True)


def test_a_deleted_content_is_made_again(store: ArtifactStore) -> None:
    first = create(store)
    store.point(first)
    shutil.rmtree(first.folder)
    with pytest.raises(ArtifactError, match="no artifact corpus/passages"):
        store.current(ASSET)
    again = create(store)
    assert (again.data_version, again.reused) == (first.data_version, False)
    assert store.current(ASSET) == again


def test_tables_are_read_with_the_columns_asked_for(store: ArtifactStore) -> None:
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})

    def build(folder: Path) -> dict[str, Any]:
        table.to_parquet(folder / "table.parquet")
        return {}

    artifact = create(store, build)
    pd.testing.assert_frame_equal(artifact.read_table("table.parquet"), table)
    assert list(artifact.read_table("table.parquet", ["b"]).columns) == ["b"]


def test_a_file_that_the_manifest_does_not_list_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"has no file 'words\.txt'"):
        create(store).path("words.txt")


def test_a_failed_build_leaves_nothing_and_can_be_repeated(store: ArtifactStore, tmp_path: Path) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        create(store, fails)
    assert files_below(tmp_path / "root") == []
    assert create(store).summary == {"rows": 1}


def test_a_tampered_or_missing_file_is_named(store: ArtifactStore) -> None:
    artifact = create(store)
    path = artifact.path("deep/words.txt")
    path.chmod(0o644)
    path.write_text("wordz")
    with pytest.raises(ArtifactError, match=r"deep/words\.txt differs from its digest"):
        artifact.verify()
    path.unlink()
    with pytest.raises(ArtifactError, match=r"deep/words\.txt is missing"):
        artifact.verify()


def test_files_of_an_artifact_are_read_only(store: ArtifactStore) -> None:
    assert {path.stat().st_mode & 0o222 for path in create(store).folder.rglob("*") if path.is_file()} == {0}


def test_a_deleted_artifact_is_made_anew(store: ArtifactStore) -> None:
    artifact = create(store)
    for path in sorted(artifact.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    artifact.folder.rmdir()
    again = create(store)
    assert (again.reused, again.data_version) == (False, artifact.data_version)


def test_current_follows_the_pointer_per_partition(store: ArtifactStore) -> None:
    assert store.current(ASSET) is None
    with pytest.raises(ArtifactError, match="has not been made yet"):
        store.require(ASSET)
    first, second = create(store), create(store, writing("later"), code_version="c2")
    store.point(first)
    store.point(second, "2026-01-02")
    assert store.require(ASSET) == first
    assert store.require(ASSET, "2026-01-02") == second
    assert store.current(ASSET, "2026-01-03") is None
    store.point(second)
    assert store.require(ASSET) == second


def test_a_version_that_does_not_exist_is_an_error(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=f"no artifact {ASSET} 0123"):
        store.open(ASSET, "0123")


def test_a_result_is_remembered_per_key(store: ArtifactStore) -> None:
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"count": len(calls)}

    assert store.remember("contracts", {"v": 1}, compute) == {"count": 1}
    assert store.remember("contracts", {"v": 1}, compute) == {"count": 1}
    assert store.remember("contracts", {"v": 2}, compute) == {"count": 2}


def test_scratch_of_dead_processes_is_removed_a_day_after_its_last_use(store: ArtifactStore) -> None:
    for name, age_hours in (("old", 25), ("fresh", 1)):
        folder = store.scratch(name)
        folder.mkdir(parents=True)
        (folder / "half.txt").write_text("half")
        then = time.time() - age_hours * 3600
        os.utime(folder, (then, then))
    create(store)
    assert [path.name for path in store.scratch("fresh").parent.iterdir()] == ["fresh"]


CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from models.store.artifacts import ArtifactStore

    root = sys.argv[1]

    def build(folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "words.txt").write_text("words")
        print("building", flush=True)
        sys.stdin.readline()
        (folder / "size.json").write_text("5")
        return {"rows": 1}

    store = ArtifactStore(root, Path(root).parent / "cache")
    artifact = store.get_or_create(
        "corpus/passages", code_version="c1", inputs={"up": "v1"}, settings={"k": 1}, build=build
    )
    store.point(artifact)
    artifact.verify()
    print(artifact.data_version, flush=True)
    """
)


def start_child(root: Path | str, code: str = CHILD, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    if not line and child.wait() and child.stderr is not None:
        pytest.fail(child.stderr.read())
    return line


def test_a_process_killed_while_building_leaves_no_half_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with start_child(root) as child:
        assert read_line(child) == "building"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert files_below(root), "the killed process leaves its temporary folder"
    assert all(name.startswith("tmp/") for name in files_below(root)), "only the temporary folder has files"
    assert store.current(ASSET) is None
    artifact = create(store)
    artifact.verify()
    assert not artifact.reused
    assert [name for name in files_below(root) if name.startswith("tmp/")] == []


WRITER = textwrap.dedent(
    """
    import os
    import signal
    import sys
    from pathlib import Path
    from models.store.artifacts import ArtifactStore

    store = ArtifactStore(sys.argv[1], Path(sys.argv[1]).parent / "cache")
    store.remember("check", {"rows": 1}, lambda: {"passed": True})
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
    store.remember("check", {"rows": 2}, lambda: {"passed": True})
    """
)


@pytest.mark.parametrize("then", ["made", "reused and promoted"])
def test_a_process_killed_while_writing_a_small_file_leaves_none_after_the_next_run(
    store: ArtifactStore, tmp_path: Path, then: str
) -> None:
    if then != "made":
        create(store)
    with start_child(tmp_path / "root", WRITER) as child:
        child.wait()
    assert child.returncode == -signal.SIGKILL
    left = [name for name in files_below(tmp_path / "root") if name.rpartition("/")[2].startswith(".")]
    assert left, "the killed process leaves its temporary file"
    assert all(name.startswith("tmp/") for name in left)
    if then == "made":
        create(store)
    else:
        run = ArtifactStore(str(tmp_path / "root"), tmp_path / "cache", "r1")
        run.point(create(run, never))
        run.promote()
    assert not [*(tmp_path / "root").rglob(".*")]
    assert [name for name in files_below(tmp_path / "root") if name.startswith("tmp/")] == []
    assert store.remember("check", {"rows": 2}, lambda: {"passed": False}) == {"passed": False}


def test_two_processes_making_the_same_artifact_agree(store: ArtifactStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with start_child(root) as first, start_child(root) as second:
        assert [read_line(child) for child in (first, second)] == ["building", "building"]
        for child in (first, second):
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        versions = {read_line(child) for child in (first, second)}
    assert (first.returncode, second.returncode) == (0, 0)
    artifact = store.require(ASSET)
    artifact.verify()
    assert versions == {artifact.data_version}
    assert [name for name in files_below(root) if name.startswith("tmp/")] == []
    assert create(store, never).reused


def test_a_remote_root_gives_the_same_names_as_a_local_one(
    store: ArtifactStore, remote_root: str, tmp_path: Path
) -> None:
    remote = ArtifactStore(remote_root, tmp_path / "cache-1")
    assert not remote.is_local
    built = create(remote)
    assert built.data_version == create(store).data_version
    remote.point(built)
    assert create(remote, never).reused


def test_a_remote_artifact_is_fetched_to_another_machine_and_verified(remote_root: str, tmp_path: Path) -> None:
    writer = ArtifactStore(remote_root, tmp_path / "cache-1")
    writer.point(create(writer))
    fetched = ArtifactStore(remote_root, tmp_path / "cache-2").require(ASSET)
    assert fetched.folder.is_relative_to(tmp_path / "cache-2")
    assert fetched.path("deep/words.txt").read_text() == "words"
    fetched.verify()
    assert files_below(fetched.folder) == ["deep/words.txt", MANIFEST, "size.json"]


def test_a_remote_file_that_was_altered_is_never_used(remote_root: str, tmp_path: Path) -> None:
    artifact = create(ArtifactStore(remote_root, tmp_path / "cache-1"))
    StoreFiles(remote_root).write(f"objects/{ASSET}/{artifact.data_version}/deep/words.txt", b"wordz")
    reader = ArtifactStore(remote_root, tmp_path / "cache-2")
    with pytest.raises(ArtifactError, match=r"deep/words\.txt differs from its digest"):
        reader.open(ASSET, artifact.data_version)
    assert files_below(tmp_path / "cache-2") == []


def test_an_upload_cut_short_is_not_an_artifact(
    memory_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    remote = ArtifactStore(memory_root, tmp_path / "cache-1")
    upload = MemoryFileSystem.put_file

    def breaks(self: MemoryFileSystem, local: str, index: str, **options: Any) -> None:
        if index.endswith("size.json"):
            raise ConnectionError("connection reset")
        upload(self, local, index, **options)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put_file", breaks)
        with pytest.raises(ArtifactError, match="connection reset"):
            create(remote)
    assert [name for name in memory.find(memory_root) if name.endswith(MANIFEST)] == []
    create(remote).verify()


def test_the_pointer_of_a_remote_root_flips_for_other_machines(remote_root: str, tmp_path: Path) -> None:
    writer = ArtifactStore(remote_root, tmp_path / "cache-1")
    reader = ArtifactStore(remote_root, tmp_path / "cache-2")
    assert reader.current(ASSET) is None
    first, second = create(writer), create(writer, writing("later"), code_version="c2")
    for artifact in (first, second, first):
        writer.point(artifact)
        assert reader.require(ASSET).data_version == artifact.data_version


FETCH = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from models.store.artifacts import ArtifactStore

    root, cache, version = sys.argv[1:]
    store = ArtifactStore(root, Path(cache))
    print("ready", flush=True)
    sys.stdin.readline()
    artifact = store.open("corpus/passages", version)
    artifact.verify()
    print(artifact.folder, flush=True)
    """
)


def test_processes_that_fetch_the_same_artifact_at_once_agree(s3_root: Callable[[], str], tmp_path: Path) -> None:
    root, cache = s3_root(), tmp_path / "cache"
    artifact = create(ArtifactStore(root, tmp_path / "elsewhere"), writing("words" * 200_000))
    children = [start_child(root, FETCH, str(cache), artifact.data_version) for _ in range(4)]
    assert {read_line(child) for child in children} == {"ready"}
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=PATIENCE_S) for child in children]
    assert [child.returncode for child in children] == [0] * 4, said
    folder = cache / "objects" / ASSET / artifact.data_version
    assert {output.strip() for output, _ in said} == {str(folder)}
    assert files_below(cache) == [f"objects/{ASSET}/{artifact.data_version}/{name}" for name in files_below(folder)]


def test_a_fetch_that_finds_it_fetched_meanwhile_takes_that(
    memory_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = create(ArtifactStore(memory_root, tmp_path / "elsewhere"))
    cache = tmp_path / "cache"
    download = StoreFiles.download

    def slow(self: StoreFiles, index: str, path: Path) -> None:
        download(self, index, path)
        if index.endswith("words.txt") and not (cache / "objects").exists():
            monkeypatch.setattr(StoreFiles, "download", download)
            ArtifactStore(memory_root, cache).open(ASSET, artifact.data_version)

    monkeypatch.setattr(StoreFiles, "download", slow)
    ArtifactStore(memory_root, cache).open(ASSET, artifact.data_version).verify()


def test_what_a_deletion_left_half_way_is_replaced(remote_root: str, store: ArtifactStore, tmp_path: Path) -> None:
    for first in (store, ArtifactStore(remote_root, tmp_path / "cache-2")):
        artifact = create(first)
        (artifact.folder / MANIFEST).unlink()
        again = create(first) if first.is_local else first.open(ASSET, artifact.data_version)
        again.verify()


def test_an_s3_upload_that_is_killed_leaves_no_artifact_and_is_repeated(
    s3_root: Callable[[], str], tmp_path: Path
) -> None:
    root = s3_root()
    stops_at_the_second_file = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from models.store.artifacts import ArtifactStore
        from models.store.filesystem import StoreFiles

        upload = StoreFiles.upload

        def stop(self, path, place):
            if place.endswith("size.json"):
                print("uploading", flush=True)
                sys.stdin.readline()
            upload(self, path, place)

        StoreFiles.upload = stop

        def build(folder):
            (folder / "deep").mkdir()
            (folder / "deep" / "words.txt").write_text("words")
            (folder / "size.json").write_text("5")
            return {"rows": 1}

        store = ArtifactStore(sys.argv[1], Path(sys.argv[2]))
        store.get_or_create("corpus/passages", code_version="c1", inputs={"up": "v1"}, settings={"k": 1}, build=build)
        """
    )
    with start_child(root, stops_at_the_second_file, str(tmp_path / "cache")) as child:
        assert read_line(child) == "uploading"
        child.send_signal(signal.SIGKILL)
    remote = ArtifactStore(root, tmp_path / "cache")
    left = [location for location in remote.files.find("objects") if location.endswith("words.txt")]
    assert len(left) == 1, "the first file was uploaded"
    version = left[0].split("/")[3]
    assert not remote.has(ASSET, version)
    artifact = create(remote)
    assert (artifact.data_version, artifact.reused) == (version, False)
    ArtifactStore(root, tmp_path / "cache-2").open(ASSET, version).verify()
    assert files_below(tmp_path / "cache" / "tmp") == []


def test_a_bucket_that_is_not_there_is_told_without_credentials(s3_environment: dict[str, str], tmp_path: Path) -> None:
    remote = ArtifactStore("s3://no-such-bucket/artifacts", tmp_path / "cache")
    assert remote.current(ASSET) is None
    with pytest.raises(ArtifactError, match="s3://no-such-bucket/artifacts") as told:
        create(remote)
    assert "AWS_ENDPOINT_URL" in told.value.hint
    assert SECRET not in str(told.value)
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] == SECRET


def test_a_server_that_does_not_answer_is_told(s3_environment: dict[str, str], tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from models.store.artifacts import ArtifactStore
        from models.errors import ArtifactError

        try:
            ArtifactStore(sys.argv[1], Path(sys.argv[2])).current("corpus/passages")
        except ArtifactError as error:
            print(error)
        """
    )
    nobody = {**s3_environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}
    program = [sys.executable, "-c", code, "s3://bucket/artifacts", str(tmp_path)]
    told = subprocess.run(program, cwd=ROOT, env=nobody, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert told.stdout.startswith("s3://bucket/artifacts: EndpointConnectionError"), told
    assert SECRET not in told.stdout + told.stderr


def test_a_file_system_that_is_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be opened"):
        ArtifactStore("nosuchprotocol://bucket", tmp_path)
