"""`rerankops.toml` against the settings: what the file must say of each key, and what it leaves out.

`python -m models.settings.toml_file` prints a block for every key and table that the file lacks, to be put in its place
by hand.
"""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from models.settings.paths import SETTINGS_FILE
from models.settings.sections import Settings

WIDTH = 120


def missing(text: str) -> Iterator[str]:
    """Yield the block of each key that the settings file `text` lacks, under the head of its table."""
    yield from _missing(tomllib.loads(text), Settings, "")


def describe(field: FieldInfo) -> str:
    """What the settings file says of a key: its description, and what it may be."""
    return " ".join(part for part in (field.description, allowed(field)) if part)


def allowed(field: FieldInfo) -> str:
    """What a field accepts, in words; empty where its type says it all."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if len(choices) > 1:
        return f"One of {', '.join(map(json.dumps, choices))}."
    parts = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else ()
    if parts and get_origin(parts[-1]) is Literal:  # a number, or a word
        bounds = _bounds(get_args(parts[0])[1].metadata)
        return f"{json.dumps(get_args(parts[-1])[0])}, or {bounds[0].lower()}{bounds[1:]}"
    return _bounds(field.metadata)


def _bounds(metadata: Sequence[Any]) -> str:
    above, low, high = (_bound(metadata, name) for name in ("gt", "ge", "le"))
    if above is not None:
        return f"Above {above}."
    if low is not None:
        return f"At least {low}." if high is None else f"{low} to {high}."
    return ""


def _missing(table: dict[str, Any], section: type[BaseModel], path: str) -> Iterator[str]:
    keys, tables = [], []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            tables.append((name, kind))
        elif name not in table:
            keys.append(f"{_comment(describe(field))}\n{_assignment(name, field.get_default())}")
    if keys:
        head = f"{_comment(inspect.getdoc(section) or '')}\n[{path}]\n" if path else ""
        yield head + "\n".join(keys) + "\n"
    for name, kind in tables:
        yield from _missing(table.get(name, {}), kind, f"{path}.{name}" if path else name)


def _bound(metadata: Sequence[Any], name: str) -> float | None:
    return next((getattr(item, name) for item in metadata if hasattr(item, name)), None)


def _assignment(name: str, value: Any) -> str:
    line = f"{name} = {_value(value)}"
    if len(line) <= WIDTH or not isinstance(value, Sequence) or isinstance(value, str):
        return line
    items = textwrap.fill(
        ", ".join(map(_value, value)) + ",", WIDTH - 2, break_long_words=False, break_on_hyphens=False
    )
    return f"{name} = [\n{textwrap.indent(items, '  ')}\n]"


def _value(value: Any) -> str:
    import tomlkit  # The code location loads this module for `describe`, and would pay for it.

    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        table.update(value)
        return table.as_string()
    return tomlkit.item(value).as_string()


def _comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


if __name__ == "__main__":
    sys.stdout.writelines(f"{block}\n" for block in missing(SETTINGS_FILE.read_text(encoding="utf-8")))
