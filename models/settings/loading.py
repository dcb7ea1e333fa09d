"""Reading the settings: what wins over what, and errors that name the key, its place and what is allowed."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from models.errors import SettingsError
from models.settings.paths import SETTINGS_FILE, settings_file
from models.settings.sections import Settings

ENV_PREFIX = "RERANKOPS_"
RESERVED_ENV = {"RERANKOPS_HOME", "RERANKOPS_API_KEY", "RERANKOPS_DATA", "RERANKOPS_DEV_TOKEN", "RERANKOPS_SETTINGS"}


def load_settings(
    overrides: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read, overlay and validate the settings.

    `overrides` are `section.key=value` strings, `values` typed values by dotted key, laid over everything else. Raises
    `SettingsError` naming the key, its place and what is allowed.
    """
    from pydantic_settings import TomlConfigSettingsSource

    from models.settings.layers import DottedKeys, LayeredSettings

    path = file or settings_file()
    if not path.is_file() and path != SETTINGS_FILE:
        hint = "Set RERANKOPS_SETTINGS to an existing TOML file, or unset it."
        raise SettingsError(f"no settings file at {path}", hint)
    try:
        tables = TomlConfigSettingsSource(LayeredSettings, path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    presets = tables.init_kwargs.pop("presets", {})

    texts = {**_variables(os.environ if environ is None else environ), **dict(map(_assignment, overrides))}
    keyed = {**{key: _typed(key, text) for key, text in texts.items()}, **(values or {})}
    preset = str(keyed.get("preset", tables.init_kwargs.get("preset", _DEFAULT_PRESET)))
    keyed = {**_preset(presets, preset, path), **keyed}
    for key in keyed:
        _field(key)
    try:
        settings = Settings.model_validate(dict(LayeredSettings(DottedKeys(keyed), tables)))
    except ValidationError as error:
        # Its own text shows values that may be secret, and Dagster shows a cause in place of what it caused.
        raise _refusal(error) from None
    _check_together(settings)
    return settings


def setting_keys(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every (dotted key, pydantic field) of the settings, in file order."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from setting_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def values_of(settings: Settings, *names: str, without: Collection[str] = ()) -> dict[str, Any]:
    """The values of keys and whole sections, by dotted key: what a step that reads them depends on.

    `without` leaves keys out of a section. Raises `SettingsError` for a name that is no key and no section.
    """
    values: dict[str, Any] = {}
    missing = {*names, *without}
    for key in _FIELDS:
        names_of_key = {key, *(key[:end] for end, sign in enumerate(key) if sign == ".")}
        missing -= names_of_key
        if names_of_key & set(names) and key not in without:
            values[key] = reduce(getattr, key.split("."), settings)
    if missing:
        raise _unknown_key(min(missing))
    return values


def as_environment(overrides: Sequence[str]) -> dict[str, str]:
    """The environment variables that say the same as `overrides`, for child processes."""
    texts = dict(map(_assignment, overrides))
    return {ENV_PREFIX + key.upper().replace(".", "__"): text for key, text in texts.items()}


_FIELDS: Mapping[str, FieldInfo] = dict(setting_keys())
_DEFAULT_PRESET: str = Settings.model_fields["preset"].default


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(ENV_PREFIX).lower().replace("__", "."): text
        for name, text in environ.items()
        if name.startswith(ENV_PREFIX) and name not in RESERVED_ENV
    }


def _assignment(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise SettingsError(f"--set {text!r} has no value", "Write it as section.key=value, as in training.seed=1.")
    return key.strip(), value.strip()


def _typed(key: str, text: str) -> Any:
    """The TOML value that `text` writes, else `text`: for a key that holds a string, 2024 is a name, not a number."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = table["value"]
    plain = len(table) > 1 or (_field(key).annotation is str and not isinstance(value, str))
    return text if plain else value


def _preset(presets: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """The values of [presets.<name>] by dotted key; only the default preset may be missing."""
    table = presets.get(name, {} if name == _DEFAULT_PRESET else None)
    if not isinstance(table, dict):
        allowed = ", ".join(presets) or "none; the file has no [presets] table"
        raise SettingsError(f"preset: {name!r} is not a table of [presets] in {path}", f"Allowed: {allowed}.")
    return dict(_dotted(table))


def _dotted(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in _FIELDS:
            yield from _dotted(value, f"{key}.")
        else:
            yield key, value


def _field(key: str) -> FieldInfo:
    if key not in _FIELDS:
        raise _unknown_key(key)
    return _FIELDS[key]


def _unknown_key(key: str) -> SettingsError:
    section = key.rpartition(".")[0]
    allowed = (
        difflib.get_close_matches(key, _FIELDS, n=3, cutoff=0.5)
        or [name for name in _FIELDS if section and name.rpartition(".")[0] == section]
        or sorted({name.split(".")[0] for name in _FIELDS})
    )
    return SettingsError(
        f"{key}: no such setting", f"Did you mean: {', '.join(allowed)}? rerankops.toml lists every key."
    )


def _refusal(error: ValidationError) -> SettingsError:
    lines = []
    for problem in error.errors():
        # Of a key that takes values of two types, each type has something to say behind its name.
        parts = [".".join(map(str, problem["loc"][:count])) for count in range(1, len(problem["loc"]) + 1)]
        key = next((part for part in parts if part in _FIELDS), parts[-1])
        if problem["type"] == "extra_forbidden":
            return _unknown_key(key)
        may_be_secret = key.startswith("storage") or key.endswith("url") or problem["type"] == "model_type"
        got = "" if may_be_secret else f" (got {problem['input']!r})"
        lines.append(f"{key}: {problem['msg']}{got}")
    return SettingsError("\n".join(lines), "rerankops.toml states the allowed values of every key.")


def _check_together(settings: Settings) -> None:
    corpus, tiers = settings.corpus, settings.tiers
    if corpus.overlap_tokens >= corpus.passage_tokens:
        raise SettingsError("corpus.overlap_tokens: must be smaller than corpus.passage_tokens")
    if corpus.dev_share + corpus.test_share >= 1:
        raise SettingsError("corpus.dev_share: with corpus.test_share must leave a share for training (sum below 1)")
    if tiers.reserve_ms >= tiers.budget_ms:
        raise SettingsError("tiers.reserve_ms: must be smaller than tiers.budget_ms")
    if settings.training.logged_queries and "compact" not in tiers.models:
        raise SettingsError("training.logged_queries: a compact model learns from them, and tiers.models has none")
    if "written" in settings.training.pseudo_kinds and not (settings.query_writer.url and settings.query_writer.model):
        raise SettingsError(
            "query_writer.url: must be set, as query_writer.model, when training.pseudo_kinds has written"
        )
    if settings.generator.kind == "chat" and not (settings.generator.url and settings.generator.model):
        raise SettingsError("generator.url: must be set, as generator.model, when generator.kind is chat")
    if corpus.source in ("beir", "files", "folder") and not corpus.path:
        raise SettingsError(f"corpus.path: must name a folder when corpus.source is {corpus.source}")
