"""Plots of the service under load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.store.durable_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_levels(load: dict[str, Any], folder: Path) -> None:
    """Latency and share of degraded answers against offered load: load-latency.png and load-degraded.png."""
    levels = sorted((float(name), level) for name, level in load["levels"].items())
    offered = [level for level, _ in levels]
    figure, axes = _figure()
    for quantile in ("p50_ms", "p95_ms", "p99_ms", "max_ms"):
        axes.plot(
            offered, [measured[quantile] for _, measured in levels], marker="o", label=quantile.removesuffix("_ms")
        )
    axes.axhline(load["conditions"]["deadline_ms"], color="#66727f", linestyle="--", label="deadline")
    axes.set(ylabel="milliseconds from the time due", ylim=(0, None))
    _finish(figure, axes, folder / "load-latency.png")
    figure, axes = _figure()
    axes.plot(offered, [measured["degraded_share"] for _, measured in levels], marker="o", label="degraded")
    axes.plot(
        offered, [max(0.0, 1 - 1 / level) for level in offered], linestyle="--", label="more than fits: 1 - 1/load"
    )
    axes.set(ylabel="share of answers", ylim=(0, 1))
    _finish(figure, axes, folder / "load-degraded.png")


def draw_soak(soak: dict[str, Any], folder: Path) -> None:
    """Resident memory of both processes over time: load-memory.png."""
    figure, axes = _figure()
    minutes, service, scorer = zip(*soak["points"], strict=True)
    axes.plot(minutes, service, label="service")
    axes.plot(minutes, scorer, label="scoring process")
    axes.set(ylabel="resident memory, MiB", ylim=(0, None))
    _finish(figure, axes, folder / "load-memory.png", "minutes at 0.8 of capacity")


def _figure() -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    return figure, figure.subplots()


def _finish(figure: Figure, axes: Any, path: Path, below: str = "offered load, in capacities") -> None:
    import io

    axes.set_xlabel(below)
    axes.grid(color="#e4e7eb")
    axes.legend(frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_atomically(path, image.getvalue())
