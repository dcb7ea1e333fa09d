"""What the command line does with a home that is moved, copied, read-only, full, relative, oddly named or another
user's: the table of docs/faults.md. Needs root, which mounts and becomes other users.

    python -m bench.homes FOLDER
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.folders import ROOT

_UID = "54321"
"""A user without a name."""
_SHOWN = 300
_CLI = [sys.executable, "-m", "orchestration.cli"]
_RUN = ("run", "--json", "--select", 'key:"corpus/passages"')


def main() -> None:
    """Try every home and print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    _write_corpus(folder / "corpus")
    first = folder / "first"
    show("new", first, _RUN)
    copy, moved = folder / "copy", folder / "moved"
    shutil.copytree(first, copy, symlinks=True)
    before = _state(first)
    show("copied", copy, _RUN)
    print(json.dumps({"home": "copied", "the first one is as it was": _state(first) == before}), flush=True)
    first.rename(moved)
    show("moved", moved, _RUN)
    print(json.dumps({"home": "moved", "the old place is made again": first.exists()}), flush=True)
    for name in ("a?b", "a%20b", "a b#c"):
        shutil.copytree(copy, folder / "odd" / name, symlinks=True)
        show(name, folder / "odd" / name, _RUN)
    print(json.dumps({"beside": sorted(path.name for path in (folder / "odd").iterdir())}), flush=True)
    show("relative", Path("relative"), _RUN, cwd=folder)
    print(json.dumps({"home": "relative", "there": (folder / "relative").is_dir()}), flush=True)
    other = folder / "other"
    shutil.copytree(copy, other, symlinks=True)
    shutil.chown(other, int(_UID), int(_UID))
    for path in other.rglob("*"):
        shutil.chown(path, int(_UID), int(_UID))
    # It may read all, as this checkout and its Python may be in a folder of root's, and write what is its own.
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    as_other = ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups", *reading, "env", "-u", "HOME"]
    for command in (_RUN, ("status", "--json"), ("incidents", "close", "none", "--why", "bench")):
        show(f"uid {_UID}", other, command, as_other)
    show(f"another user's, as uid {_UID}", copy, ("status", "--json"), as_other)
    read_only = ["unshare", "--mount", "sh", "-c", f'mount --bind -o ro "{copy}" "{copy}" && exec "$@"', "sh"]
    for command in (_RUN, ("status", "--json"), ("quarantine", "list")):
        show("read-only", copy, command, read_only)
    full = folder / "full"
    full.mkdir()
    fill = f'mount -t tmpfs -o size=1m none "{full}" && cp -a "{copy}/." "{full}" 2>/dev/null; exec "$@"'
    for command in (_RUN, ("status", "--json"), ("incidents",)):
        show("full", full, command, ["unshare", "--mount", "sh", "-c", fill, "sh"])


def show(name: str, home: Path, command: Sequence[str], before: Sequence[str] = (), cwd: Path = ROOT) -> None:
    """Run a command on a home and print how it ended and its last words."""
    others = {key: value for key, value in os.environ.items() if not key.startswith(("RERANKOPS_", "DAGSTER_"))}
    settings = {"RERANKOPS_CORPUS__SOURCE": "files", "RERANKOPS_CORPUS__PATH": str(home.absolute().parent / "corpus")}
    for parent in (cwd, *home.parents):
        if (parent / "corpus" / "documents.jsonl").exists():
            settings["RERANKOPS_CORPUS__PATH"] = str(parent / "corpus")
    for table in ("documents", "queries", "judgments"):
        settings[f"RERANKOPS_CORPUS__FILES__{table.upper()}"] = f"{table}.jsonl"
    environment = {**others, **settings, "RERANKOPS_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*before, *_CLI, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    told = {
        "home": name,
        "command": " ".join(command[:1]),
        "exit": done.returncode,
        "traceback": "Traceback" in done.stderr + done.stdout,
        "said": "\n".join(lines[-2:])[:_SHOWN] if done.returncode else "",
    }
    print(json.dumps(told), flush=True)


def _write_corpus(folder: Path) -> None:
    """Forty documents, each with a query."""
    folder.mkdir()
    numbers = range(40)
    tables = {
        "documents": [{"document_id": f"d{n}", "text": f"The pump number {n} moves water uphill."} for n in numbers],
        "queries": [{"query_id": f"q{n}", "text": f"What does pump {n} move?"} for n in numbers],
        "judgments": [{"query_id": f"q{n}", "document_id": f"d{n}", "grade": 1} for n in numbers],
    }
    for name, rows in tables.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _state(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


if __name__ == "__main__":
    main()
