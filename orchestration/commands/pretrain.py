"""`rerankops pretrain`: a general start, from several corpora at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from models.contracts.tiers import LAST
from orchestration.options import Json, Set, print_json, settings_with
from orchestration.terminal import err, libraries_write_to, new_log, out, reporter, watch

if TYPE_CHECKING:
    from models.training.pretraining import GeneralStart


def pretrain(overrides: Set = None, as_json: Json = False) -> None:
    """Train a general start on pretraining.corpora: models that training.base_model may name. A call that was ended is
    gone on with."""
    settings = settings_with(overrides)
    with libraries_write_to(new_log(settings.home, "pretrain")), watch(err) as lines:
        from models.training.pretraining import pretrain as run_pretraining

        start = run_pretraining(settings, reporter(lines))
    if as_json:
        print_json({"folder": str(start.folder), **start.facts})
    else:
        _show(start)


def _show(start: GeneralStart) -> None:
    table = Table("corpus", "lists mined", "lists taken", "pairs", "left out: asked by others", title="Corpora")
    for name, counts in start.facts["corpora"].items():
        shown = (counts[key] for key in ("lists_offered", "lists", "pairs", "queries_repeating_other_corpora"))
        table.add_row(escape(name), *(f"{count:,}" for count in shown))
    out.print(table)
    models = Table("model", "pairs", "steps", "loss at first", "at last", title="Models")
    for tier, model in start.facts["models"].items():
        losses = [value for _, value in model["loss"]]
        first, last = (f"{losses[place]:.3f}" if losses else "-" for place in (0, -1))
        models.add_row(tier, f"{model['pairs']:,}", f"{model['steps']:,}", first, last)
    out.print(models)
    out.print("Start from it in your settings file:")
    lines = [f'base_model = "{start.folder / LAST.name}"']
    lines += [f'{tier}_base_model = "{start.folder / tier}"' for tier in start.models if tier != LAST.name]
    for line in ("[training]", *lines):
        out.print(line, markup=False, soft_wrap=True)
    zero = [f"{tier}_pairs = 0" for tier in start.models]
    out.print(f"With {' and '.join(zero)} it is released as it is.")
