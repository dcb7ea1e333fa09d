"""What is known of the ledger while its database is away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.records.ledger import Ledger
from models.serving.last_releases import LastReleases
from tests.releases import release_bundle


@pytest.fixture
def last(tmp_path: Path) -> LastReleases:
    return LastReleases(tmp_path / "home" / "last_releases.json")


def test_what_the_ledger_says_comes_back_newest_first_and_without_what_was_rolled_back(
    last: LastReleases, ledger: Ledger
) -> None:
    assert (last.keep(ledger), last.read()) == (None, [])
    releases = [release_bundle(ledger, f"b{number}", str(number)) for number in (1, 2, 3)]
    assert last.keep(ledger) == releases[2]
    assert last.read() == releases[::-1]
    restored = ledger.activate(ledger.begin_rollback(actor="ana", reason="bad").release_id)
    last.keep(ledger)
    assert last.read() == [restored, releases[0]]
    last.forget()
    assert last.read() == []


@pytest.mark.parametrize("content", [b"", b"[{}]", b"\xff", b'{"release_id": "r"}', b"[1]"])
def test_a_file_that_cannot_be_read_says_nothing(last: LastReleases, content: bytes) -> None:
    last.path.parent.mkdir()
    last.path.write_bytes(content)
    assert last.read() == []


def test_what_cannot_be_kept_anew_is_not_left_as_it_was(
    last: LastReleases, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not bring a release back that was rolled back."""
    release_bundle(ledger, "b1")
    last.keep(ledger)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    assert (last.keep(ledger), last.read()) == (None, [])
