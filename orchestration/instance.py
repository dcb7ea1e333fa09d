"""The Dagster instance of a deployment: its folder in the home, with the configuration of the checkout."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from models.errors import SettingsError
from models.settings import ROOT, Settings
from models.store.durable_files import write_atomically

_CONFIGURATION = Path(__file__).with_name("dagster.yaml")
_CHARACTERS_OF_URLS = {"?", "%"}
WORKSPACE = ROOT / "workspace.yaml"


def prepare_instance(settings: Settings) -> Path:
    """Make `<home>/dagster`, set DAGSTER_HOME to it and return it."""
    folder = settings.home / "dagster"
    target = folder / "dagster.yaml"
    wanted = _CONFIGURATION.read_bytes()
    if not target.exists() or target.read_bytes() != wanted:
        write_atomically(target, wanted)
    os.environ["DAGSTER_HOME"] = str(_by_a_plain_name(folder))
    return folder


def _by_a_plain_name(folder: Path) -> Path:
    """`folder`, or a link to it where its path has characters that are others in a URL.

    Dagster glues the URLs of its SQLite files, so that `a?b` would be `a` and `a%20b` be `a b`. The link is in a folder
    of this user alone. Raises `SettingsError` where another user has that folder.
    """
    if not _CHARACTERS_OF_URLS & set(str(folder)):
        return folder
    links = Path(tempfile.gettempdir()) / f"rerankops-{os.getuid()}"
    links.mkdir(mode=0o700, exist_ok=True)
    state = links.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
        message = f"RERANKOPS_HOME: {folder.parent} has a ? or % in its name, and {links} is not this user's"
        raise SettingsError(message, f"Give the home another name, or delete {links}.")
    link = links / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink() or link.readlink() != folder:
        fresh = link.with_name(f"{link.name}.{os.getpid()}")
        fresh.symlink_to(folder)
        fresh.replace(link)
    return link
