"""What pydantic-settings fills: the settings as a class of its own, and values by dotted key as a source for it.

Apart from `models.settings.loading`, which imports it when settings are read: it takes a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from models.settings.sections import Settings


class LayeredSettings(Settings, BaseSettings):
    """`Settings` of `sources`, the strongest first; `Settings` itself never looks at the environment."""

    def __init__(self, *sources: PydanticBaseSettingsSource) -> None:
        BaseSettings.__init__(self, _build_sources=(sources, {}))


class DottedKeys(EnvSettingsSource):
    """Typed values by dotted key, as `training.seed`: of a preset, the environment, `--set` and a run's configuration.

    They are laid over the settings file. A table that is one value, as `corpus.files.columns`, replaces the one of the
    file: pydantic-settings merges two `dict`s, and nothing else.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(LayeredSettings, case_sensitive=True, env_nested_delimiter=".")
        self.env_vars = {
            key: MappingProxyType(value) if isinstance(value, dict) else value for key, value in values.items()
        }

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        """The value as it is: it is typed already, where a variable would hold JSON."""
        return value
