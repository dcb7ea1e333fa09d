"""Writes `rerankops.toml`: every key of `models.settings` with its description, bounds and default, then the presets.

`python -m models.settings_file` prints the file; a test holds that the one in the checkout says the same.
"""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from models.settings import Settings

WIDTH = 120

_HEADER = """\
# RerankOps: the settings of one deployment. Every key is here with its default; `make settings` writes this file.
#
# Later wins:
#   1. the defaults in models/settings.py
#   2. the tables of this file
#   3. the table [presets.<name>] at its end that `preset` names
#   4. the environment: RERANKOPS_<SECTION>__<KEY>, as in RERANKOPS_TRAINING__LEARNING_RATE=2e-5
#      or RERANKOPS_CORPUS__PYTHON_DOCS__MAX_DOCUMENTS=500; RERANKOPS_PRESET=tiny chooses the preset
#   5. the command line: --set section.key=value, as in --set training.seed=1
# A key that does not exist, or a value that is not allowed, stops the command and names the key.
#
# Your own settings go into a file of your own: RERANKOPS_SETTINGS=/path/to/mine.toml. It holds only what differs.
# Everything that is made lands in var/ of the checkout, or in RERANKOPS_HOME.
"""


@dataclass(frozen=True)
class Preset:
    """A named overlay: `values` maps dotted keys to values, `about` says what it is for."""

    about: str
    values: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "tiny": Preset(
            "A few minutes on two cores, for tests and for a first look. It proves the mechanism, not the ranking: "
            "with "
            "this little training no gain can be expected, so the gate lets any gain pass.",
            {
                "corpus.python_docs.packages": ["httpx", "typer", "pandera", "sentence-transformers"],
                "corpus.python_docs.max_documents": 300,
                "training.max_queries": 80,
                "training.large_pairs": 160,
                "training.compact_pairs": 160,
                "evaluation.max_test_queries": 40,
                "evaluation.max_dev_queries": 30,
                "evaluation.candidates": 10,
                "evaluation.resamples": 2000,
                "gate.min_gain": -1.0,
                "gate.max_p_value": 1.0,
                "serving.golden_queries": 4,
            },
        ),
        "demo": Preset("The defaults above.", {}),
        "full": Preset(
            "A larger corpus, all layers trained for seven times as long, more test queries. For a GPU: minutes there, "
            "hours without one.",
            {
                "corpus.python_docs.max_documents": 12000,
                "training.max_queries": 12000,
                "training.negatives": 7,
                "training.draws": 4,
                "training.frozen_layers": 0,
                "training.dropout": 0.1,
                "training.batch_queries": 16,
                "training.max_tokens": 96,
                "training.large_pairs": 190000,
                "training.compact_pairs": 190000,
                "training.teacher_weight": 0.9,
                "training.distillation": "margin_mse",
                "evaluation.max_test_queries": 800,
                "evaluation.max_dev_queries": 400,
            },
        ),
    }
)
"""The presets that are shipped."""


def render(presets: Mapping[str, Preset] = PRESETS) -> str:
    """The text of the settings file: every key at its default, then one table per preset."""
    lines = [_HEADER, *_section(Settings, "")]
    lines += ["", *_comment("Presets: laid over the tables above. Add your own; `preset` chooses one.")]
    for name, preset in presets.items():
        lines += ["", *_comment(preset.about), f"[presets.{name}]", *_overlay(name, preset.values)]
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The lines of a table and, behind its own keys as TOML wants it, of the tables inside."""
    tables = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            tables.append((f"{prefix}{name}", kind))
            continue
        yield from _comment(" ".join(part for part in (field.description, allowed(field)) if part))
        yield _assignment(name, field.get_default(call_default_factory=True))
    for path, kind in tables:
        yield ""
        yield from _comment(inspect.getdoc(kind) or path)
        yield f"[{path}]"
        yield from _section(kind, f"{path}.")


def _overlay(preset: str, values: Mapping[str, Any]) -> Iterator[str]:
    tables: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        tables.setdefault(section, {})[name] = value
    for section in sorted(tables, key=lambda path: path != ""):
        if section:
            yield f"[presets.{preset}.{section}]"
        for name, value in tables[section].items():
            yield _assignment(name, value)


def allowed(field: FieldInfo) -> str:
    """What a field accepts, in words; empty where its type says it all."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if len(choices) > 1:
        return f"One of {', '.join(map(json.dumps, choices))}."
    above, low, high = (_bound(field, name) for name in ("gt", "ge", "le"))
    if above is not None:
        return f"Above {above}."
    if low is not None:
        return f"At least {low}." if high is None else f"{low} to {high}."
    return ""


def _bound(field: FieldInfo, name: str) -> float | None:
    return next((getattr(item, name) for item in field.metadata if hasattr(item, name)), None)


def _assignment(name: str, value: Any) -> str:
    line = f"{name} = {_value(value)}"
    if len(line) <= WIDTH or not isinstance(value, Sequence) or isinstance(value, str):
        return line
    items = textwrap.fill(
        ", ".join(map(_value, value)) + ",", WIDTH - 2, break_long_words=False, break_on_hyphens=False
    )
    return f"{name} = [\n{textwrap.indent(items, '  ')}\n]"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_value(str(name))} = {_value(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    import tomlkit  # The code location loads this module for `allowed`, and would pay for it.

    return tomlkit.item(value).as_string()


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


if __name__ == "__main__":
    sys.stdout.write(render())
