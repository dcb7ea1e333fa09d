"""How much of a caller's documents is read, where the caller says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import RerankOpsError
from models.text.passage_text import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TOGETHER = 64
"""Texts behind which the time is looked at."""


class TextTooLong(RerankOpsError):
    """A text is longer than the model reads, and must not be cut; `index` is its position in the request."""

    def __init__(self, message: str, hint: str, index: int) -> None:
        super().__init__(message, hint)
        self.index = index


@dataclass(frozen=True, slots=True)
class DocumentReading:
    """What a caller asks of the reading of its documents.

    Attributes:
        tokens: Tokens of a document that are read, from its beginning; None leaves it to the model's length.
        pair_tokens: Tokens of query and document that are read together, what stands around them included.
        truncate: False refuses a document that is longer than the model reads.
        every_pair: Let a model score every document, also where its score cannot change the order: for callers who use
            the scores themselves.
    """

    tokens: int | None = None
    pair_tokens: int | None = None
    truncate: bool = True
    every_pair: bool = False


READ_ALL = DocumentReading()


class TokenCut:
    """Cuts texts behind a number of the tokens that a cross-encoder reads. Its tokenizer is loaded when it is asked
    first; any number of threads may call it."""

    def __init__(self, tokenizer_folder: Path) -> None:
        self._file = tokenizer_folder / "tokenizer.json"
        self._lock = threading.Lock()
        self._tokenizer: Tokenizer | None = None

    def cut(
        self,
        texts: Sequence[str],
        tokens: int,
        until: float,
        beginning: Callable[[str], str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> list[str]:
        """The first `tokens` of each text; `beginning` says what is read of those that are left at `until`."""
        tokenizer = self._loaded()
        cut: list[str] = []
        for start in range(0, len(texts), _TOGETHER):
            if clock() >= until:
                return [*cut, *map(beginning, texts[start:])]
            looked_at = [text[: tokens * CHARACTERS_PER_TOKEN] for text in texts[start : start + _TOGETHER]]
            for text, encoding in zip(
                looked_at, tokenizer.encode_batch(looked_at, add_special_tokens=False), strict=True
            ):
                cut.append(text if len(encoding.ids) <= tokens else text[: encoding.offsets[tokens - 1][1]])
        return cut

    def _loaded(self) -> Tokenizer:
        from tokenizers import Tokenizer

        with self._lock:
            if self._tokenizer is None:
                tokenizer = Tokenizer.from_file(str(self._file))
                tokenizer.no_truncation()
                tokenizer.no_padding()
                self._tokenizer = tokenizer
            return self._tokenizer
