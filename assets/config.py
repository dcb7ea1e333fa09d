"""Run configuration: the sections of the settings file as Dagster config, shown and editable in the launchpad.

The defaults are the settings in force when the code location was loaded. A value edited in the launchpad is
validated by the
same pydantic model, so what is allowed there is what is allowed in the file.
"""

from typing import Any, Literal, TypeVar, get_origin

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from models.errors import SettingsError
from models.settings import Settings, load_settings

SectionType = TypeVar("SectionType", bound=BaseModel)


class SectionConfig(dg.Config):
    """A section of the settings in the launchpad."""

    model_config = ConfigDict(extra="forbid")

    def section(self, kind: type[SectionType]) -> SectionType:
        """The values as the typed section. Raises `SettingsError` naming the key."""
        try:
            return kind.model_validate(self.model_dump())
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
            raise SettingsError("\n".join(lines), "Correct the run configuration in the launchpad.") from error


def launchpad(name: str, section: BaseModel) -> type[SectionConfig]:
    """A Dagster config class with the keys of `section` and its values as defaults."""
    fields: dict[str, Any] = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            nested = launchpad(f"{name}_{key}", value)
            fields[key] = (nested, nested())
        else:
            fields[key] = (_plain(field.annotation), Field(default=value, description=field.description))
    return create_model(name, __base__=SectionConfig, __doc__=type(section).__doc__, **fields)


def _plain(annotation: Any) -> Any:
    """Dagster has no literals in config: their type stands in, and the section's own validation narrows it."""
    return str if get_origin(annotation) is Literal else annotation


_SETTINGS: Settings = load_settings()


class CorpusConfig(launchpad("CorpusConfig", _SETTINGS.corpus)):
    """`[corpus]` of the settings."""


class EncoderConfig(launchpad("EncoderConfig", _SETTINGS.encoder)):
    """`[encoder]` of the settings."""


class IndexConfig(launchpad("IndexConfig", _SETTINGS.index)):
    """`[index]` of the settings."""


class TrainingConfig(launchpad("TrainingConfig", _SETTINGS.training)):
    """`[training]` of the settings."""


class EvaluationConfig(launchpad("EvaluationConfig", _SETTINGS.evaluation)):
    """`[evaluation]` of the settings."""


class GateConfig(launchpad("GateConfig", _SETTINGS.gate)):
    """`[gate]` of the settings."""


class MonitoringConfig(launchpad("MonitoringConfig", _SETTINGS.monitoring)):
    """`[monitoring]` of the settings."""
