"""What the commands share: options, settings and JSON output."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from models.errors import SettingsError
from models.settings import Settings, as_environment, load_settings
from orchestration.terminal import out

Set = Annotated[list[str] | None, typer.Option("--set", help="Override one setting: section.key=value. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]


def settings_with(overrides: list[str] | None) -> Settings:
    """The settings under `overrides`, which child processes get too; the home is made."""
    settings = load_settings(overrides or ())
    os.environ.update(as_environment(overrides or ()))
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"RERANKOPS_HOME: {settings.home} cannot be used: {error.strerror}"
        raise SettingsError(message, "Name a folder that can be written.") from error
    return settings


def print_json(value: Any) -> None:
    """Write one JSON value on standard output."""
    out.file.write(json.dumps(value) + "\n")
