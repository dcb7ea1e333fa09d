"""What the commands share: whose home it is, where it is, and who acts."""

from __future__ import annotations

import getpass
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from models.errors import SettingsError
from models.store.durable_files import write_atomically
from orchestration.options import open_home, settings_with, user_name


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """As most machines have it; what a command sets ends with the test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def written(home: Path) -> tuple[int, int]:
    """The modes of a folder and a file that are made in a home."""
    write_atomically(home / "folder" / "file", b"")
    return mode(home / "folder"), mode(home / "folder" / "file")


def test_a_home_and_what_is_in_it_is_its_owners_alone(tmp_path: Path) -> None:
    open_home(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o700
    assert written(tmp_path / "new") == (0o700, 0o600)


def test_a_home_of_an_earlier_version_is_closed(tmp_path: Path) -> None:
    (tmp_path / "home" / "artifacts").mkdir(parents=True)
    assert mode(tmp_path / "home") == 0o755
    open_home(tmp_path / "home")
    assert mode(tmp_path / "home") == 0o700


def test_a_home_that_is_shared_with_a_group_stays_so(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o2770)
    open_home(tmp_path / "home")
    assert mode(tmp_path / "home") & 0o777 == 0o770
    assert [bits & 0o777 for bits in written(tmp_path / "home")] == [0o770, 0o660]


def test_a_folder_that_is_no_home_is_left_open_and_nothing_in_it_is(tmp_path: Path) -> None:
    (tmp_path / "of-others").write_text("")
    tmp_path.chmod(0o1777)
    open_home(tmp_path)
    assert mode(tmp_path) == 0o1777
    assert written(tmp_path) == (0o700, 0o600)


def test_a_user_without_a_name_acts_under_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container that was given a uid; libraries, as great-expectations, find a home too."""

    def nobody(uid: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for variable in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    assert user_name() == f"uid {os.getuid()}"
    monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path / "home"))
    settings_with([])
    assert Path.home() == tmp_path / "home"
    monkeypatch.delenv("HOME")  # which the end of the test would not take away


def test_a_relative_home_is_one_folder_for_child_processes_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`rerankops dev` starts Dagster in the folder of the checkout."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text("")
    monkeypatch.setenv("RERANKOPS_HOME", "home")
    monkeypatch.setenv("RERANKOPS_SETTINGS", "own.toml")
    settings_with([])
    monkeypatch.chdir("/")
    assert settings_with([]).home == tmp_path / "home"
    assert os.environ["RERANKOPS_SETTINGS"] == str(tmp_path / "own.toml")


def test_a_home_that_cannot_be_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home, why in ((tmp_path / "file", "cannot be used"), ("~nobody-of-this-name/home", "RERANKOPS_HOME: ~nobody")):
        monkeypatch.setenv("RERANKOPS_HOME", str(home))
        with pytest.raises(SettingsError, match=why):
            settings_with([])
