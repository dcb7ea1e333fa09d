"""The settings in Dagster's launchpad: their sections as config classes, for the resource `deployment`.

A run has one configuration for all of its assets and checks, so a value that several of them read cannot differ between
them. See docs/decisions/0005-one-run-configuration.md.
"""

from collections.abc import Collection
from types import UnionType
from typing import Any, Literal, Union, get_origin

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, create_model

from models.errors import SettingsError
from models.settings import Settings, load_settings
from models.settings.toml_file import describe


class SectionConfig(dg.Config):
    """A section of the settings in the launchpad."""

    # Without it a misspelt key of a config object in Python is dropped in silence.
    model_config = ConfigDict(extra="forbid")


def launchpad(name: str, section: BaseModel, leave_out: Collection[str] = ()) -> type[SectionConfig]:
    """A Dagster config class with the keys of `section` and its values as defaults."""
    fields: dict[str, Any] = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if key in leave_out:
            continue
        if isinstance(value, BaseModel):
            nested = launchpad(f"{name}_{key}", value)
            fields[key] = (nested, nested())
        else:
            fields[key] = (_plain(field.annotation), Field(default=value, description=describe(field)))
    return create_model(name, __base__=SectionConfig, __doc__=type(section).__doc__, **fields)


def edits(config: dg.Config, prefix: str = "") -> dict[str, Any]:
    """What a run's configuration changes, by dotted key: the values that differ from the defaults in the launchpad.

    Everything else follows the settings file and the environment of the process that runs the step.
    """
    changed: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, SectionConfig):
            changed |= edits(value, f"{prefix}{name}.")
        elif value != field.default:
            changed[f"{prefix}{name}"] = value
    return changed


def _plain(annotation: Any) -> Any:
    """Dagster has no literals in config, and no number or word: their type, or any, stands in, and the validation of
    the settings narrows it."""
    if get_origin(annotation) in (Union, UnionType):
        return Any
    return str if get_origin(annotation) is Literal else annotation


def settings_to_show() -> Settings:
    """The settings in force, or the defaults where they cannot be read.

    So a typo in the settings file does not take the code location down: it is told in the log and in each tick, and a
    run is refused for it before its first step, when `Deployment` reads the settings of the run.
    """
    try:
        return load_settings()
    except SettingsError as error:
        dg.get_dagster_logger("rerankops").error(f"The defaults are shown, as the settings cannot be read: {error}")
        return Settings()


_SETTINGS = settings_to_show()


class CorpusConfig(launchpad("CorpusConfig", _SETTINGS.corpus)):
    """Where documents, queries and judgments come from, and how documents become passages."""


class EncoderConfig(launchpad("EncoderConfig", _SETTINGS.encoder)):
    """The bi-encoder that embeds passages and queries."""


class IndexConfig(launchpad("IndexConfig", _SETTINGS.index)):
    """First-stage retrieval."""


class TrainingConfig(launchpad("TrainingConfig", _SETTINGS.training)):
    """Fine-tuning of the cross-encoders."""


class QueryWriterConfig(launchpad("QueryWriterConfig", _SETTINGS.query_writer)):
    """The language model that writes queries."""


class EngineConfig(launchpad("EngineConfig", _SETTINGS.engine)):
    """What computes the logits of the cross-encoders."""


class EvaluationConfig(launchpad("EvaluationConfig", _SETTINGS.evaluation)):
    """Offline evaluation."""


class GateConfig(launchpad("GateConfig", _SETTINGS.gate)):
    """What a candidate must show before it is released."""


class TiersConfig(launchpad("TiersConfig", _SETTINGS.tiers)):
    """How many candidates each tier may score, and in what time."""


class ObjectivesConfig(launchpad("ObjectivesConfig", _SETTINGS.objectives)):
    """What the gate asks of the latency of a rerank request."""


class ServingConfig(
    # What is left out is read by the service when it starts, and by no run.
    launchpad(
        "ServingConfig",
        _SETTINGS.serving,
        ("max_documents", "model_aliases", "max_request_bytes", "poll_seconds"),
    )
):
    """The service that a release is rolled out to, and the requests that the latency profile times."""


class MonitoringConfig(launchpad("MonitoringConfig", _SETTINGS.monitoring)):
    """Decision log and drift."""
