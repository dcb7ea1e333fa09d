"""The command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def rerankops(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RERANKOPS_")}
    environment |= {"RERANKOPS_HOME": str(home), "RERANKOPS_PRESET": "tiny", "RERANKOPS_SERVING__PORT": "18317"}
    return subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def test_a_wrong_setting_stops_before_any_work(tmp_path: Path) -> None:
    found = rerankops(tmp_path, "run", "--set", "training.sed=1")
    assert found.returncode == 1
    assert "training.sed" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "artifacts").exists()
