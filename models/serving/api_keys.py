"""The key that callers of the service present: made on first start, kept private, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from models.errors import SettingsError

KEY_VARIABLE = "RERANKOPS_API_KEY"
_PREFIX = "rk_"  # Lets secret scanners find a key that was committed by mistake.


def service_key(home: Path) -> tuple[str, str]:
    """The service's key and where it came from: the environment, or `<home>/api_key`, which is made if missing.

    Raises `SettingsError` for a key that no HTTP header can carry, or a key file that others may read.
    """
    if from_environment := os.environ.get(KEY_VARIABLE, "").strip():
        return _checked(from_environment, KEY_VARIABLE), KEY_VARIABLE
    path = home / "api_key"
    if not path.exists():
        _create(path)
    return _read(path), str(path)


def probe_key(home: Path) -> str:
    """What the deployment's own probes present beside the key: `<home>/probe_key`, which is made if missing.

    Callers do not have it, since probes count neither against objectives nor as traffic. Empty where the home cannot
    keep it: a probe is a caller like others then.
    """
    path = home / "probe_key"
    try:
        if not path.exists():
            _create(path)
        return _read(path)
    except SettingsError:
        return ""


def caller_name(key: str) -> str:
    """A short name for logs and decisions that does not give the key away: the same key, the same name."""
    return "key-" + hashlib.sha256(b"rerankops caller\x00" + key.encode()).hexdigest()[:10]


class KeyCheck:
    """Whether a presented key is the service's. Holds the key's SHA-256, never the key."""

    def __init__(self, key: str) -> None:
        self._digest = hashlib.sha256(key.encode()).digest()

    def __call__(self, presented: str | None) -> bool:
        """Compare in a time that does not depend on where the two differ."""
        if presented is None:
            return False
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(digest, self._digest)


def _create(path: Path) -> None:
    """Write a new key unless another process has; the file appears whole and private, or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The folder is private and on the same file system, so that the key is never readable and can be linked.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            whole = Path(folder) / path.name
            handle = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(_PREFIX + secrets.token_urlsafe(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(whole, path)
    except OSError as error:
        raise SettingsError(
            f"cannot make {path}: {error.strerror}", f"Set {KEY_VARIABLE}, or make {path.parent} writable."
        ) from error


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            key = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read {path}: {error}", f"Set {KEY_VARIABLE}, or delete the file to get a new key."
        ) from error
    if mode & 0o077:
        raise SettingsError(f"{path} may be read by others (mode {mode:04o})", f"Run: chmod 600 {path}")
    return _checked(key, str(path))


def _checked(key: str, origin: str) -> str:
    if not key or not all("!" <= character <= "~" for character in key):
        raise SettingsError(
            f"the key in {origin} is empty or has characters that an HTTP header cannot carry",
            "Use ASCII letters, digits and punctuation without spaces, or delete the file to get a new key.",
        )
    return key
