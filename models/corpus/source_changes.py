"""Whether the corpus source has changed since the corpus was read, at the cost of a look when it has not.

A fingerprint of a source of files reads all of them. So their sizes and times are looked at first: the content is read
only when these differ from the last fingerprint's, and have rested for one look, which also keeps a corpus from being
read while it is still being copied.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from models.corpus.sources import open_source
from models.corpus.sources.corrections import NO_CORRECTIONS, Corrections
from models.settings import CorpusSettings
from models.store.durable_files import digest_json

_READS_FILES = ("beir", "files", "folder")
"""Sources whose fingerprint reads every file below `corpus.path`."""


@dataclass(frozen=True)
class Seen:
    """What the looks so far have seen: kept as JSON between two of them.

    `files` is the digest of settings, names, sizes and times at the last look, `fingerprint` the source's when they
    were at rest (empty before), `announced` the last fingerprint that was told as a change and `changes` how many were.
    """

    files: str = ""
    fingerprint: str = ""
    announced: str = ""
    changes: int = 0

    def to_json(self) -> str:
        """A string that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> Seen:
        """What `to_json` wrote; nothing seen yet for None or a string of another version."""
        try:
            return cls(**json.loads(text or "{}"))
        except (TypeError, ValueError):
            return cls()


@dataclass(frozen=True)
class Look:
    """The outcome of one look: what was seen, whether that is news, and in words why."""

    seen: Seen
    changed: bool
    message: str


def look(
    settings: CorpusSettings, folder: Path, read_from: str, seen: Seen, corrections: Corrections = NO_CORRECTIONS
) -> Look:
    """Compare the source, with its `corrections`, with `read_from`, the fingerprint that the corpus was read from.

    A change is told once; one that is taken back and comes again is told again. Raises `SourceError` when the source
    cannot be read.
    """
    files = _digest_of_files(settings, folder, corrections) if settings.source in _READS_FILES else ""
    if files != seen.files:
        return Look(replace(seen, files=files, fingerprint=""), False, "Files have changed; waiting until they rest.")
    # What no folder shows is asked at every look: versions of installed packages (a fifth of a second), or
    # corpus.sql.fingerprint, a statement that is there to be cheap.
    fingerprint = (seen.fingerprint if files else "") or open_source(settings, folder, corrections).fingerprint()
    seen = replace(seen, fingerprint=fingerprint)
    if fingerprint == read_from:
        return Look(replace(seen, announced=""), False, "The source is the one that the corpus was read from.")
    if fingerprint == seen.announced:
        return Look(seen, False, f"Reading the source {fingerprint[:12]} was requested already.")
    seen = replace(seen, announced=fingerprint, changes=seen.changes + 1)
    return Look(seen, True, f"The source has changed from {read_from[:12]} to {fingerprint[:12]}.")


def _digest_of_files(settings: CorpusSettings, folder: Path, corrections: Corrections) -> str:
    """Names, sizes and times of all files below `folder`, with settings and corrections that say how they are read.

    The change time is among them: copying tools can set the modification time back, and not that one.
    """
    entries = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                status = path.stat()
            except FileNotFoundError:  # deleted meanwhile, or a dangling link
                continue
            relative = path.relative_to(folder).as_posix()
            entries.append([relative, status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    read = {"settings": settings.model_dump(mode="json"), "corrections": corrections.digest}
    return digest_json({**read, "folder": str(folder), "files": sorted(entries)})
