"""What settings are made of: the base of a section, and annotated types that say what a value may be."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.errors import SettingsError
from models.text.scripts import CODES

MAX_DECOMPRESSED_BYTES = 5_000_000_000
"""Above what a legitimate text file expands to, far below what fills a disk."""

SEARCHABLE = ("learning_rate", "head_learning_rate", "warmup_share", "batch_queries", "frozen_layers", "loss")
"""Keys of [training] that `rerankops search` may try values of."""

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
AUTO = "auto"
_Value = TypeVar("_Value", bound=int | str)
AutoPositiveInt = PositiveInt | Literal["auto"]
AutoCount = Annotated[int, Field(ge=0)] | Literal["auto"]
"""A number, or `auto`: the one that `models.training.corpus_defaults` chooses for the corpus."""


def chosen(value: _Value | Literal["auto"]) -> _Value:
    """The value of a setting that may be `auto`, where it is another: as `corpus_defaults` has left it.

    Raises `SettingsError` for `auto`.
    """
    if value == AUTO:
        raise SettingsError(
            "a setting is auto where its value is needed",
            "Materialize index/corpus_defaults, which chooses it, or set a value.",
        )
    return value


def _check_cron(text: str) -> str:
    if not re.fullmatch(r"(\S+\s+){4}\S+", text.strip()):
        raise ValueError("a cron string has five fields: minute hour day month weekday")
    return text


Cron = Annotated[str, AfterValidator(_check_cron)]


def _check_timezone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError("not a time zone of the IANA database, as UTC or Europe/Berlin are") from error
    return text


TimeZone = Annotated[str, AfterValidator(_check_timezone)]


_SECRET_PARAMETER = re.compile(r"[?&][^=&]*(pass|pwd|secret|token)[^=&]*=", re.I)


def _check_passwordless(text: str) -> str:
    _, _, location = text.partition("://")
    if ":" in location.rpartition("@")[0] or _SECRET_PARAMETER.search(location):
        raise ValueError("holds a password; settings are stored with every artifact, so put it into the environment")
    return text


PasswordlessUrl = Annotated[str, AfterValidator(_check_passwordless)]


def _check_layers(layers: list[int]) -> list[int]:
    if not layers or min(layers) < 0 or any(low >= high for low, high in pairwise(layers)):
        raise ValueError("names layers of the large model in rising order, counted from 0, as [0, 2, 5]")
    return layers


Layers = Annotated[list[int], AfterValidator(_check_layers)]


def _each_once_of(*allowed: str) -> Callable[[list[str]], list[str]]:
    def check(names: list[str]) -> list[str]:
        if not names or len(set(names)) < len(names) or not set(names) <= set(allowed):
            raise ValueError(f"names one or more of {', '.join(allowed)}, each once")
        return names

    return check


Sources = Annotated[list[str], AfterValidator(_each_once_of("hybrid", "dense", "bm25"))]


def _check_models(names: list[str]) -> list[str]:
    if names not in (["large"], ["compact", "large"]):
        raise ValueError('is ["large"] or ["compact", "large"], in the order in which they are asked')
    return names


ModelNames = Annotated[list[str], AfterValidator(_check_models)]


PseudoKinds = Annotated[
    list[str], AfterValidator(_each_once_of("title", "heading", "sentence", "cloze", "keywords", "written"))
]


def _check_languages(codes: list[str]) -> list[str]:
    return _each_once_of(*CODES)(codes) if codes else codes


LanguageCodes = Annotated[list[str], AfterValidator(_check_languages)]
SearchKeys = Annotated[list[str], AfterValidator(_each_once_of(*SEARCHABLE))]


class Section(BaseModel):
    """A table of the settings file."""

    # pydantic's own text would show the password of a URL; `load_settings` says what was got.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )
