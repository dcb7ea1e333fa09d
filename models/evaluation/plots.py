"""Figures of the evaluation report, drawn with matplotlib's object interface: no display, no global state."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.evaluation.report import EvaluationReport
from models.measures.metrics import MAIN_MEASURE
from models.store.durable_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_INCHES = (9.0, 6.0)
_DPI = 100
_INK, _MUTED, _GRID = "#1f2933", "#66727f", "#e4e7eb"
_FIRST_STAGE, _RERANKER = "#0072b2", "#d55e00"
_FASTEST_MS = 1e-3
"""Left end of the logarithmic axis, where a time of 0 is drawn."""

_OFFSETS = (
    (9, 0),
    (-9, 0),
    (9, 9),
    (-9, 9),
    (9, -9),
    (-9, -9),
    (0, 12),
    (0, -12),
    (9, 20),
    (-9, 20),
    (9, -20),
    (-9, -20),
)
"""Places of a label around its point, in points, best first."""


def quality_cost_plot(report: EvaluationReport, path: Path) -> None:
    """Draw mean nDCG@10 with its interval against milliseconds per query: 900 x 600 pixels, format by suffix.

    The line joins the systems that no other beats at the same or lower cost (the Pareto front). Systems whose time is
    not known are left out.
    """
    figure, axes = _figure()
    points = {
        name: (max(result.seconds_per_query * 1000, _FASTEST_MS), result.means[MAIN_MEASURE])
        for name, result in report.systems.items()
        if result.seconds_per_query is not None
    }
    front = sorted(points[name] for name in pareto_front(report))
    for kind, label, color, marker in (
        ("first_stage", "first stage", _FIRST_STAGE, "o"),
        ("reranker", "reranked", _RERANKER, "D"),
    ):
        names = [name for name in points if report.systems[name].kind == kind]
        if not names:
            continue
        means = [points[name][1] for name in names]
        below = [max(0.0, mean - report.systems[name].low) for name, mean in zip(names, means, strict=True)]
        above = [max(0.0, report.systems[name].high - mean) for name, mean in zip(names, means, strict=True)]
        axes.errorbar(
            [points[name][0] for name in names], means, yerr=[below, above],
            fmt=marker, markersize=7.5, color=color, ecolor=color, elinewidth=1.3, capsize=3.5, alpha=0.95,
            markeredgecolor="white", markeredgewidth=0.8, zorder=3, label=label,
        )  # fmt: skip
    axes.plot(
        [x for x, _ in front], [y for _, y in front],
        color=_MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label="none better at the same or lower cost",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.11, y=0.09)
    axes.set_xlabel("milliseconds per query (log scale)")
    axes.set_ylabel(MAIN_MEASURE)
    _plain_log_ticks(axes)
    subtitle = f"mean over {report.queries:,} queries; bars are {report.confidence:.0%} bootstrap intervals"
    _titles(axes, "Quality against cost", subtitle)
    _legend(axes, 3)
    intervals = {name: (report.systems[name].low, report.systems[name].high) for name in points}
    _place_labels(axes, points, intervals, front)
    _save(figure, path)


def pareto_front(report: EvaluationReport) -> list[str]:
    """Systems of known time that no other beats in both nDCG@10 and time per query, cheapest first."""
    seconds = {
        name: result.seconds_per_query
        for name, result in report.systems.items()
        if result.seconds_per_query is not None
    }
    order = sorted(seconds, key=lambda name: (seconds[name], -report.systems[name].means[MAIN_MEASURE]))
    front: list[str] = []
    for name in order:
        if not front or report.systems[name].means[MAIN_MEASURE] > report.systems[front[-1]].means[MAIN_MEASURE]:
            front.append(name)
    return front


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.185, 0.86, 0.675))
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=_GRID, linewidth=0.9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_MUTED)
    axes.tick_params(colors=_INK, labelsize=10.5, which="both")
    axes.xaxis.label.set(color=_INK, fontsize=11.5)
    axes.yaxis.label.set(color=_INK, fontsize=11.5)
    return figure, axes


def _titles(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(title, loc="left", fontsize=15, fontweight="bold", color=_INK, pad=30)
    axes.annotate(
        subtitle,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 12),
        textcoords="offset points",
        fontsize=10.5,
        color=_MUTED,
    )


def _legend(axes: Axes, columns: int) -> None:
    axes.figure.legend(
        *axes.get_legend_handles_labels(), loc="lower center", ncols=columns, frameon=False, fontsize=10,
        labelcolor=_INK, borderaxespad=1.2, columnspacing=1.8, handletextpad=0.6,
    )  # fmt: skip


def _plain_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    steps = (1.0, 2.0, 5.0) if high / low < 1e3 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _place_labels(
    axes: Axes,
    points: Mapping[str, tuple[float, float]],
    intervals: Mapping[str, tuple[float, float]],
    line: Sequence[tuple[float, float]],
) -> None:
    """Write each name beside its point, where it covers the least of the markers, bars, line and earlier names."""
    import numpy as np
    from matplotlib.transforms import Bbox

    taken = []
    for name, (x, y) in points.items():
        low, high = intervals[name]
        (px, py), (_, bottom), (_, top) = axes.transData.transform([(x, y), (x, min(low, y)), (x, max(high, y))])
        taken += [Bbox.from_extents(px - 7, py - 7, px + 7, py + 7), Bbox.from_extents(px - 4, bottom, px + 4, top)]
    corners = axes.transData.transform(line)
    for start, end in itertools.pairwise(corners):
        for x, y in np.linspace(start, end, num=int(np.hypot(*(end - start)) // 4) + 1):
            taken.append(Bbox.from_extents(x - 2, y - 2, x + 2, y + 2))
    for name in sorted(points, key=lambda name: points[name]):
        trials = [_label(axes, name, points[name], offset) for offset in _OFFSETS]
        boxes = [trial.get_window_extent() for trial in trials]
        costs = [_overlap(box, taken) + _overhang(box, axes.bbox) for box in boxes]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        for index, trial in enumerate(trials):
            if index != best:
                trial.remove()


def _label(axes: Axes, name: str, point: tuple[float, float], offset: tuple[int, int]) -> Any:
    from matplotlib.patheffects import withStroke

    horizontal = "center" if offset[0] == 0 else "left" if offset[0] > 0 else "right"
    return axes.annotate(
        name, point, xytext=offset, textcoords="offset points", ha=horizontal, va="center",
        fontsize=11, color=_INK, zorder=4, path_effects=[withStroke(linewidth=3, foreground="white")],
    )  # fmt: skip


def _overlap(box: Any, others: Sequence[Any]) -> float:
    area = 0.0
    for other in others:
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        area += max(0.0, width) * max(0.0, height)
    return area


def _overhang(box: Any, frame: Any) -> float:
    outside = max(0.0, frame.x0 - box.x0) + max(0.0, box.x1 - frame.x1)
    return 100 * (outside + max(0.0, frame.y0 - box.y0) + max(0.0, box.y1 - frame.y1))


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png")
    write_atomically(path, buffer.getvalue())
