"""What `make bench` says of figures that were measured before on the same kind of CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.machine import cpu_kind
from bench.results import merge_into, slower

BEFORE = {
    "threads": 2,
    "corpus": "python-docs",
    "speedup_vs_cross_encoder": 4.0,
    "large": {
        "tokens_per_pair": 64.0,
        "pairs_per_second": {"bf16": 800.0, "fp32": 200.0},
        "request_ms": {"10": {"ours": {"p50": 10.0, "p99": 12.0}}},
        "gflops": {"bf16": 2000.0},
    },
}


def test_what_fell_behind_the_last_figures_is_named() -> None:
    after = {
        "threads": 2,
        "corpus": "python-docs",
        "speedup_vs_cross_encoder": 3.0,
        "large": {
            "tokens_per_pair": 64.0,
            "pairs_per_second": {"bf16": 700.0, "fp32": 190.0, "int8": 1.0},
            "request_ms": {"10": {"ours": {"p50": 9.0, "p99": 15.0}}},
            "gflops": {"bf16": 1000.0},
        },
    }
    assert slower(BEFORE, after) == [
        "large.pairs_per_second.bf16: 800.0 -> 700.0",
        "large.request_ms.10.ours.p99: 12.0 -> 15.0",
        "speedup_vs_cross_encoder: 4.0 -> 3.0",
    ]
    assert slower(BEFORE, BEFORE) == []
    assert slower({}, after) == []


@pytest.mark.parametrize("change", [{"threads": 1}, {"corpus": "scifact"}])
def test_other_conditions_are_not_compared(change: dict[str, object]) -> None:
    assert slower(BEFORE, {**BEFORE, "speedup_vs_cross_encoder": 1.0, **change}) == []


@pytest.mark.heavy
def test_libraries_that_are_limited_are_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    kind = cpu_kind()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert cpu_kind() == f"{kind}-ONEDNN_MAX_CPU_ISA=AVX2"


def test_a_run_measured_again_keeps_nothing_of_the_run_before(tmp_path: Path) -> None:
    file = tmp_path / "quality.json"
    merge_into(file, {"scifact": {"seed 0": {"large": 0.7, "compact": 0.6}, "seed 1": {"large": 0.8}}}, depth=2)
    merge_into(file, {"scifact": {"seed 0": {"large": 0.75}}}, depth=2)
    assert json.loads(file.read_text()) == {"scifact": {"seed 0": {"large": 0.75}, "seed 1": {"large": 0.8}}}
    merge_into(file, {"scifact": {"seed 1": {"lean": 0.5}}})
    assert json.loads(file.read_text())["scifact"]["seed 1"] == {"large": 0.8, "lean": 0.5}
