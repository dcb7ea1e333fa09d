"""What the commands share: options, settings and JSON output."""

from __future__ import annotations

import getpass
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from models.errors import SettingsError
from models.settings import Settings, as_environment, load_settings, settings_file
from orchestration.terminal import out

_OF_A_HOME = {"api_key", "artifacts", "dagster", "logs", "mlflow", "rerankops.db"}
Set = Annotated[list[str] | None, typer.Option("--set", help="Override one setting: section.key=value. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]


def settings_with(overrides: list[str] | None) -> Settings:
    """The settings under `overrides`, which child processes get too; the home is made, private to its owner."""
    settings = load_settings(overrides or ())
    os.environ.update(as_environment(overrides or ()))
    # Child processes, as those of `dev`, work in other folders: what is relative is so to this one.
    for variable, path in (("RERANKOPS_HOME", settings.home), ("RERANKOPS_SETTINGS", settings_file())):
        if os.environ.get(variable):
            os.environ[variable] = str(path)
    try:
        Path.home()
    except RuntimeError:  # of a user without a name: libraries look for their settings there
        os.environ["HOME"] = str(settings.home)
    try:
        open_home(settings.home)
    except OSError as error:
        message = f"RERANKOPS_HOME: {settings.home} cannot be used: {error.strerror}"
        raise SettingsError(message, "Name a folder that can be written.") from error
    return settings


def open_home(home: Path) -> None:
    """Make the home if there is none, for its owner alone, and let what this process writes be as private as it.

    A home that others may look into is closed to them, as those of earlier versions; what is no home is left as it is.
    A home that its owner has opened to a group alone (`chmod 750`) stays so.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(home.stat().st_mode)
    names = {entry.name for entry in home.iterdir()} if os.access(home, os.R_OK) else set()
    if mode & 0o007:
        mode &= ~0o077
        if not names or names & _OF_A_HOME:
            with suppress(PermissionError):  # another user's, who has let this one in
                home.chmod(mode)
    os.umask(0o077 & ~mode)


def user_name() -> str:
    """Who does this, for the record: the name of the user, or the number of one without a name, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python 3.13 raises OSError
        return f"uid {os.getuid()}"


def print_json(value: Any) -> None:
    """Write one JSON value on standard output."""
    out.file.write(json.dumps(value) + "\n")
