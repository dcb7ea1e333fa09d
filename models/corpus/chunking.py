"""Documents cut into passages of a bounded number of tokens, each with its place in the document."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.contracts.rows import Document, Passage
from models.errors import ModelFileError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_WINDOW_CHARACTERS_PER_TOKEN = 8
"""Bounds the text that is tokenized per piece, and with it the length of pieces of text that has few tokens."""

_BOUNDARY = re.compile(r"\n|[.!?؟۔։]['\")\]]*(?=\s)|[。！？｡।॥။។።]")
_SPACE = re.compile(r"\s")


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer.json (or the one in a folder) without truncation and padding, which would hide text.

    Raises `ModelFileError` when it is missing or not a tokenizer.
    """
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(f"no tokenizer at {file}", "A model folder must hold a tokenizer.json.") from error
    except Exception as error:  # tokenizers raises bare Exception for malformed files
        raise ModelFileError(f"{file} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def split_documents(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    max_tokens: int,
    overlap_tokens: int,
    known: Sequence[list[tuple[int, int]] | None] | None = None,
) -> list[list[Passage]]:
    """Cut documents into passages of at most `max_tokens` tokens (special tokens not counted), in order.

    Passages begin and end with visible characters and together cover all of them. A cut falls on the end of a line or
    sentence if there is one in the last quarter, else between words, else between tokens. Neighbours share up to
    `overlap_tokens` tokens, at most half a passage. A document without visible text has no passages.

    `known` has (start, end) of each passage of the documents that were cut in the same way before, None for the others.
    """
    known = known or [None] * len(documents)
    spans: list[list[tuple[int, int]]] = [before or [] for before in known]
    pending = [(index, 0) for index, before in enumerate(known) if before is None]
    while pending:
        pending = [(index, _skip_space(documents[index].text, start)) for index, start in pending]
        pending = [(index, start) for index, start in pending if start < len(documents[index].text)]
        reach = max_tokens * _WINDOW_CHARACTERS_PER_TOKEN
        windows = [documents[index].text[start : start + reach] for index, start in pending]
        encodings = tokenizer.encode_batch(windows, add_special_tokens=False)
        rests = [len(documents[index].text) - start for index, start in pending]
        cuts = [
            rest if rest == len(window) and len(encoding) <= max_tokens else _find_cut(window, encoding, max_tokens)
            for rest, window, encoding in zip(rests, windows, encodings, strict=True)
        ]
        following = []
        for (index, start), window, encoding, cut in zip(
            pending, windows, encodings, _fit(windows, cuts, tokenizer, max_tokens), strict=True
        ):
            text, covered = documents[index].text, spans[index][-1][1] if spans[index] else 0
            end = start + len(window[:cut].rstrip())
            if end <= covered:
                following.append((index, covered))
                continue
            spans[index].append((start, end))
            if _skip_space(text, start + cut) < len(text):
                following.append((index, start + _find_resume(window, encoding, cut, overlap_tokens)))
        pending = following
    return [_passages(document, pieces) for document, pieces in zip(documents, spans, strict=True)]


def _find_cut(window: str, encoding: Encoding, max_tokens: int) -> int:
    """Where to end the piece that starts with `window`: characters, at least 1."""
    starts = [start for start, _ in encoding.offsets]
    taken = min(len(starts), max_tokens)
    high = starts[max_tokens] if len(starts) > max_tokens else len(window)
    low = starts[taken * 3 // 4] if taken else len(window) * 3 // 4
    ends = [match.end() for match in _BOUNDARY.finditer(window, low, min(high + 1, len(window)))]
    ends = [end for end in ends if low < end <= high]
    if not ends and not (high < len(window) and window[high].isspace()):
        ends = [match.start() for match in _SPACE.finditer(window, low, high) if match.start() > low]
    return max(ends[-1] if ends else high, 1)


def _fit(windows: Sequence[str], cuts: Sequence[int], tokenizer: Tokenizer, max_tokens: int) -> list[int]:
    """Shorten the pieces that have more tokens alone than they had in their window, as parts of words can."""
    fitted = list(cuts)
    unsure = [index for index, cut in enumerate(fitted) if cut < len(windows[index])]
    while unsure:
        pieces = [windows[index][: fitted[index]].rstrip() for index in unsure]
        counts = [len(encoding) for encoding in tokenizer.encode_batch(pieces, add_special_tokens=False)]
        over = {index: count for index, count in zip(unsure, counts, strict=True) if count > max_tokens}
        unsure = [index for index in over if fitted[index] > 1]
        for index in unsure:
            fitted[index] = max(min(fitted[index] - 1, fitted[index] * max_tokens // over[index]), 1)
    return fitted


def _find_resume(window: str, encoding: Encoding, cut: int, overlap_tokens: int) -> int:
    """Where the next piece starts: up to `overlap_tokens` before `cut`, at the start of a word, never at 0."""
    starts = [start for start, _ in encoding.offsets]
    count = bisect_left(starts, cut)
    shared = min(overlap_tokens, count // 2)
    if not shared:
        return cut
    resume = starts[count - shared]
    if resume and not window[resume - 1].isspace():
        space = _SPACE.search(window, resume, cut)
        resume = space.end() if space else cut
    return min(max(resume, 1), cut)


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _passages(document: Document, spans: Sequence[tuple[int, int]]) -> list[Passage]:
    rows = []
    for number, (start, end) in enumerate(spans):
        text = document.text[start:end]
        rows.append(
            Passage(
                passage_id=document.document_id if len(spans) == 1 else f"{document.document_id}#{number}",
                document_id=document.document_id,
                title=document.title,
                text=text,
                start=start,
                end=end,
                source=document.source,
                access=document.access,
                content_hash=hashlib.sha256(f"{document.title}\n{text}".encode()).hexdigest(),
                updated_at=document.updated_at,
            )
        )
    return rows
