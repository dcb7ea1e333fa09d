from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from models.evaluation import plots
from models.evaluation.plots import pareto_front, quality_cost_plot
from models.evaluation.report import EvaluationReport, SystemResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def system(kind: str, quality: float, seconds: float) -> SystemResult:
    return SystemResult(kind, 300, {"nDCG@10": quality}, quality - 0.03, quality + 0.02, seconds)


REPORT = EvaluationReport(
    systems={
        "bm25": system("first_stage", 0.50, 0.0),
        "dense": system("first_stage", 0.55, 0.0100),
        "hybrid": system("first_stage", 0.58, 0.0110),
        "lean": system("reranker", 0.581, 0.0112),
        "compact": system("reranker", 0.66, 0.2),
        "large": system("reranker", 0.69, 0.9),
        "tiered": system("reranker", 0.69, 0.4),
    },
    best_first_stage="hybrid",
    best_without_model="lean",
    gains={},
    gains_over_first_stage={},
    confidence=0.95,
)


def share_of(path: Path, color: str) -> float:
    """Share of the pixels that have this colour."""
    pixels = imread(path)[..., :3]
    return float((abs(pixels - to_rgb(color)).max(axis=2) < 0.06).mean())


def test_the_quality_plot_shows_both_kinds_at_its_stated_size(tmp_path: Path) -> None:
    path = tmp_path / "report" / "quality_cost.png"
    quality_cost_plot(REPORT, path)

    assert imread(path).shape[:2] == (600, 900)
    assert share_of(path, plots._FIRST_STAGE) > 2e-4
    assert share_of(path, plots._RERANKER) > 2e-4


def test_a_report_without_rerankers_is_drawn_without_them(tmp_path: Path) -> None:
    only = EvaluationReport({"bm25": REPORT.systems["bm25"]}, "bm25", "bm25", {}, {}, 0.95)
    quality_cost_plot(only, tmp_path / "plot.png")

    assert share_of(tmp_path / "plot.png", plots._FIRST_STAGE) > 1e-4
    assert share_of(tmp_path / "plot.png", plots._RERANKER) == 0


def test_every_system_is_named_once_and_no_name_covers_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    quality_cost_plot(REPORT, tmp_path / "plot.png")

    axes = drawn[0].axes[0]
    labels = [text for text in axes.texts if text.get_text() in REPORT.systems]
    assert sorted(text.get_text() for text in labels) == sorted(REPORT.systems)
    boxes = [text.get_window_extent() for text in labels]
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


def test_the_front_leaves_out_what_is_dearer_and_no_better() -> None:
    assert pareto_front(REPORT) == ["bm25", "dense", "hybrid", "lean", "compact", "tiered"]


def test_the_suffix_decides_the_format(tmp_path: Path) -> None:
    quality_cost_plot(REPORT, tmp_path / "quality_cost.svg")

    assert b"<svg" in (tmp_path / "quality_cost.svg").read_bytes()
