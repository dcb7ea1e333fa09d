"""The scripts whose languages word search tells apart, and the script of a word."""

from __future__ import annotations

SCRIPTS: dict[str, tuple[str, ...]] = {
    "latin": (
        "en", "ca", "cs", "da", "de", "es", "et", "eu", "fi", "fr", "ga", "hr", "hu", "id", "it", "lt", "nl", "no",
        "pl", "pt", "ro", "sk", "sv", "tr", "vi",
    ),
    "cyrillic": ("ru", "bg", "sr", "uk"),
    "greek": ("el",),
    "armenian": ("hy",),
    "arabic": ("ar", "fa", "ur"),
    "devanagari": ("hi", "mr", "ne"),
    "tamil": ("ta",),
}  # fmt: skip
"""The languages of each script that are told apart. The first stands for texts too short to tell."""

SCRIPT_OF_LANGUAGE = {language: script for script, languages in SCRIPTS.items() for language in languages}

CODES = (*SCRIPT_OF_LANGUAGE, "ja", "km", "ko", "lo", "my", "th", "zh")
"""ISO 639-1 codes of the languages that word search knows; those without spaces need no telling apart."""

_BLOCKS = [
    ("\u024f", "latin"), ("\u036f", ""), ("\u03ff", "greek"), ("\u052f", "cyrillic"), ("\u058f", "armenian"),
    ("\u05ff", ""), ("\u077f", "arabic"), ("\u089f", ""), ("\u08ff", "arabic"), ("\u097f", "devanagari"),
    ("\u0b7f", ""), ("\u0bff", "tamil"), ("\u1dff", ""), ("\u1eff", "latin"), ("\u1fff", "greek"),
]  # fmt: skip
"""Last character of blocks of Unicode, and their script."""


def script_of(form: str) -> str:
    """Name of the script of a form's first letter, as in `SCRIPTS`; empty for others and for numbers."""
    for character in form:
        if character.isalpha():
            return next((script for last, script in _BLOCKS if character <= last), "")
    return ""
