"""Temporary folders: gone with the block, and after a kill with the next look; those of live processes stay."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from models.settings import ROOT
from models.store.workspace import Workspace

CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from models.store.workspace import Workspace

    with Workspace(Path(sys.argv[1])).folder("work") as folder:
        (folder / "half.txt").write_text("half")
        print(folder, flush=True)
        sys.stdin.readline()
    """
)


def start(root: Path) -> tuple[subprocess.Popen[str], Path]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def test_a_folder_is_gone_after_its_block_unless_it_was_moved(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "tmp")
    with workspace.folder("one") as folder:
        assert list(folder.iterdir()) == []
        (folder / "file").write_text("x")
    assert not folder.exists()
    with workspace.folder("two") as folder:
        folder.rename(tmp_path / "kept")
    assert (tmp_path / "kept").is_dir()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_live_one_stays(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.remove_abandoned() == []
    killed, left = start(tmp_path)
    alive, used = start(tmp_path)
    with killed, alive, workspace.folder("own") as own:
        killed.kill()
        killed.wait()
        assert workspace.abandoned() == [left]
        assert workspace.remove_abandoned() == [left]
        assert (left.exists(), (used / "half.txt").exists(), own.exists()) == (False, True, True)
        alive.communicate("go\n")
    assert workspace.abandoned() == []


def test_folders_of_another_machine_are_judged_by_their_age(tmp_path: Path) -> None:
    for name, age_hours in (("old", 25), ("fresh", 1)):
        folder = tmp_path / "another-machine" / name
        folder.mkdir(parents=True)
        then = time.time() - age_hours * 3600
        os.utime(folder, (then, then))
    assert [folder.name for folder in Workspace(tmp_path).abandoned()] == ["old"]
