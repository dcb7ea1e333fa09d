"""Durable writes and canonical digests."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.store.durable_files import canonical_json, digest_file, digest_json, write_atomically

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_write_makes_folders_sets_the_mode_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert [child.name for child in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    path = tmp_path / "block-and-a-bit"
    path.write_bytes(data)
    assert digest_file(path) == hashlib.sha256(data).hexdigest()


@given(st.dictionaries(st.text(), JSON, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_matter(table: dict[str, object]) -> None:
    turned = dict(reversed(table.items()))
    assert canonical_json(table) == canonical_json(turned)
    assert digest_json(table) == digest_json(turned)


def test_different_values_have_different_digests() -> None:
    values = [0, 1, "1", 1.5, None, [], {}, [1], {"a": 1}, {"a": [1]}, "é", "e"]
    assert len({digest_json(value) for value in values}) == len(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"score": value})
