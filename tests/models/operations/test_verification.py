"""What is damaged in a store is found, file by file."""

from __future__ import annotations

import os
from pathlib import Path

from models.operations.verification import Damage, verify_store
from models.records.ledger import Ledger
from models.store.artifacts import ArtifactStore
from tests.deployments import write_artifact
from tests.releases import release_bundle

BUNDLE = "release/release_candidate"


def test_a_sound_store_is_read_whole_and_links_once(tmp_path: Path, ledger: Ledger) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    first = write_artifact(store, BUNDLE, {}, {"model": b"weights", "first": b"1"})
    second = write_artifact(store, BUNDLE, {}, {"model": b"weights", "second": b"2"})
    (second.folder / "model").unlink()
    os.link(first.folder / "model", second.folder / "model")
    verification = verify_store(store, ledger)
    assert (verification.artifacts, verification.files, verification.bytes) == (2, 4, len(b"weights12"))
    assert verification.damaged == ()


def test_bit_rot_of_a_linked_file_is_told_for_every_bundle_and_its_release(tmp_path: Path, ledger: Ledger) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    first = write_artifact(store, BUNDLE, {}, {"model": b"weights", "first": b"1"})
    second = write_artifact(store, BUNDLE, {}, {"model": b"weights", "second": b"2"})
    lost = write_artifact(store, "index/dense_index", {}, {"vectors": b"3"})
    (second.folder / "model").unlink()
    os.link(first.folder / "model", second.folder / "model")
    served = release_bundle(ledger, first.data_version)
    (first.folder / "model").chmod(0o644)
    (first.folder / "model").write_bytes(b"Weights")
    (lost.folder / "vectors").unlink()
    damaged = verify_store(store, ledger).damaged
    assert set(damaged) == {
        Damage(BUNDLE, first.data_version, "model", "differs from its digest", served.release_id),
        Damage(BUNDLE, second.data_version, "model", "differs from its digest", None),
        Damage("index/dense_index", lost.data_version, "vectors", "is missing", None),
    }
