from __future__ import annotations

import pickle
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SettingsError
from models.serving.api_keys import KEY_VARIABLE, KeyCheck, caller_name, service_key
from tests.databases import RunPython, start_together

RACE = """
import sys
from pathlib import Path
from models.serving.api_keys import service_key
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    print(service_key(Path(sys.argv[1]) / str(number))[0])
"""


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_the_first_start_makes_a_private_key_and_the_next_finds_it(tmp_path: Path) -> None:
    home = tmp_path / "new"
    key, origin = service_key(home)
    assert re.fullmatch(r"rk_[A-Za-z0-9_-]{43}", key)
    assert origin == str(home / "api_key")
    assert stat.S_IMODE((home / "api_key").stat().st_mode) == 0o600
    assert service_key(home) == (key, origin)
    assert list(home.iterdir()) == [home / "api_key"]
    assert service_key(tmp_path / "other")[0] != key


def test_the_environment_comes_first_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "given-key\n")
    assert service_key(tmp_path / "home") == ("given-key", KEY_VARIABLE)
    assert not (tmp_path / "home").exists()


def test_an_empty_variable_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "  ")
    assert service_key(tmp_path)[1] == str(tmp_path / "api_key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_file_that_others_may_open_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    key, _ = service_key(tmp_path)
    path = tmp_path / "api_key"
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"chmod 600 {re.escape(str(path))}") as caught:
        service_key(tmp_path)
    assert key not in str(caught.value)
    path.chmod(0o600)
    assert service_key(tmp_path)[0] == key


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", "schlüssel".encode(), b"\xff\xfe", b"a\x00b"])
def test_a_key_that_no_header_can_carry_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "api_key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="api_key"):
        service_key(tmp_path)


def test_a_home_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match=KEY_VARIABLE):
        service_key(tmp_path / "file")


def test_processes_that_start_at_once_agree(tmp_path: Path, run_python: RunPython) -> None:
    processes = [run_python(RACE, str(tmp_path)) for _ in range(2)]
    printed = [keys.split() for keys in start_together(processes)]
    assert printed[0] == printed[1]
    assert len(set(printed[0])) == 20


@given(st.text(min_size=1), st.text())
def test_a_check_accepts_the_key_and_nothing_else(key: str, other: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in key):
        return
    check = KeyCheck(key)
    assert check(key)
    assert check(other) == (other == key)
    assert not check(None)
    assert not check(key + "\ud800")


def test_a_check_does_not_hold_the_key() -> None:
    check = KeyCheck("rk_very-secret")
    assert b"very-secret" not in pickle.dumps(check)
    assert "very-secret" not in repr(check)


def test_a_callers_name_is_stable_and_does_not_give_the_key_away() -> None:
    assert caller_name("rk_very-secret") == caller_name("rk_very-secret")
    assert re.fullmatch(r"key-[0-9a-f]{10}", caller_name("rk_very-secret"))
    assert len({caller_name(f"rk_{number}") for number in range(1000)}) == 1000
