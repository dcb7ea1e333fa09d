"""The Dagster instance of a deployment: its folder in the home, with the configuration of the checkout."""

import os
from pathlib import Path

from models.settings import ROOT, Settings
from models.store.durable_files import write_atomically

_CONFIGURATION = Path(__file__).with_name("dagster.yaml")
WORKSPACE = ROOT / "workspace.yaml"


def prepare_instance(settings: Settings) -> Path:
    """Make `<home>/dagster`, set DAGSTER_HOME to it and return it."""
    folder = settings.home / "dagster"
    target = folder / "dagster.yaml"
    wanted = _CONFIGURATION.read_bytes()
    if not target.exists() or target.read_bytes() != wanted:
        write_atomically(target, wanted)
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder
