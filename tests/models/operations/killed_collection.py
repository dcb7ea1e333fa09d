"""A garbage collection that is killed, as a program: `root cache function calls`, in the first call beyond so many."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.operations import garbage_collection
from models.store.artifacts import ArtifactStore
from models.store.filesystem import StoreFiles


def main(root: str, cache: str, function: str, calls: str) -> None:
    """Collect all that is older than thirty days, a day after these, until the kill."""
    owner: Any = StoreFiles if function == "delete" else garbage_collection
    before, left = getattr(owner, function), [int(calls)]

    def die(*arguments: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return before(*arguments)

    setattr(owner, function, die)
    later = datetime.now(UTC) + timedelta(days=31)
    nothing = garbage_collection.References({}, {})
    garbage_collection.collect(ArtifactStore(root, Path(cache)), lambda: nothing, 30, later)


if __name__ == "__main__":
    main(*sys.argv[1:])
