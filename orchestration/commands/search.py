"""`rerankops search`: training settings tried on the development queries."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from models.settings import AUTO, Settings
from models.store.durable_files import digest_json
from orchestration.options import Json, Set, print_json, settings_with
from orchestration.terminal import err, libraries_write_to, new_log, out, watch


def search(overrides: Set = None, as_json: Json = False) -> None:
    """Try training settings for search.minutes; the best are printed, the settings file stays as it is."""
    settings = settings_with(overrides)
    with libraries_write_to(new_log(settings.home, "search")), watch(err) as lines:
        from models.records.mlflow_registry import Tracking
        from models.store.artifacts import ArtifactStore
        from models.training.corpus_defaults import settings_in_force
        from models.training.search import search as run_search

        store = ArtifactStore.of(settings)
        examples = store.require("training/training_examples")
        if settings.training.max_tokens == AUTO:
            settings = settings_in_force(store, settings)
        result = run_search(
            settings.training,
            settings.search,
            examples.read_table("training_examples.parquet"),
            examples.read_table("development_lists.parquet"),
            settings.home / "search" / f"{_study(settings, examples.data_version)}.journal",
            Tracking.of(settings),
            lines.said,
        )
    if as_json:
        print_json(result.to_dict())
        return
    names = list(result.best.values)
    table = Table("trial", "nDCG@10 (dev)", "seconds", *names, title="Search")
    for trial in result.trials:
        score = "-" if trial.ndcg_at_10 is None else f"{trial.ndcg_at_10:.4f}"
        shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.values.values()]
        table.add_row(str(trial.number), score, f"{trial.seconds:.0f}", *shown)
    out.print(table)
    out.print(f"best: trial {result.best.number}; put it into your settings file:")
    out.print("[training]", markup=False)
    for name, value in result.best.values.items():
        out.print(escape(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value:g}"))


def _study(settings: Settings, examples: str) -> str:
    """The name of a study: trials on the same examples and with the same settings but for those tried can be
    compared."""
    from models.weights import weights_digest

    facts = [
        examples,
        weights_digest(settings.training.base_model),
        settings.training.model_dump(),
        settings.search.model_dump(include={"pairs", "keys"}),
    ]
    return digest_json(facts)[:16]
