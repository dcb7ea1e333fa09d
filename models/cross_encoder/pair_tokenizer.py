"""Query and passage as the token ids that a cross-encoder reads, the same in training, scoring and serving."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.cross_encoder.pair_template import PairTemplate
from models.cross_encoder.passage_cut import PassageCut
from models.text.passage_text import CHARACTERS_PER_TOKEN, SEARCHED_PER_TOKEN

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer
    from torch import Tensor

_BEGINNING = 0.5
"""Share of the tokens that is the passage's beginning, where the rest is chosen by the query."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A pair as a model reads it: int32 [tokens] ids and token types. `cut` says that the passage was too long."""

    ids: NDArray[np.int32]
    type_ids: NDArray[np.int32]
    cut: bool = False

    def __len__(self) -> int:
        return len(self.ids)


class PairTokenizer:
    """Cuts pairs to `max_tokens`, special tokens included: the query to at most half of them, then the passage.

    With a `cut` what is read of a long passage is its beginning and the part that says most of what is asked
    (`models.cross_encoder.passage_cut`), without one its beginning alone. What the `template` of a decoder writes
    around both is read whole, and not counted. Of either text no more than `characters` is looked at.

    `tokenizer` is a fast tokenizer of transformers. It is copied and left as it is, and nothing of the copies changes
    later, so any number of threads may call this one.
    """

    def __init__(
        self, tokenizer: Any, max_tokens: int, cut: PassageCut | None = None, template: PairTemplate | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.characters = max_tokens * (CHARACTERS_PER_TOKEN if cut is None else SEARCHED_PER_TOKEN)
        self.cut = cut
        self.template = template or PairTemplate()
        self._backend = _copy(tokenizer.backend_tokenizer)
        self._frame = _Frame(self._backend)
        self.left = tokenizer.padding_side == "left"

    @classmethod
    def load(cls, folder: Path, max_tokens: int) -> PairTokenizer:
        """The tokenizer in a model's folder, which cuts as the model was trained to read."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        return cls(tokenizer, max_tokens, PassageCut.load(folder), PairTemplate.load(folder))

    @property
    def longest(self) -> int:
        """Tokens of the longest pair, a template's included."""
        if not self.template.chat:
            return self.max_tokens
        words, _, _ = self.template.write("", "")
        return self.max_tokens + len(self._backend.encode(words, add_special_tokens=False))

    @property
    def inputs(self) -> list[str]:
        """Names of what the model reads."""
        types = ["token_type_ids"] if "token_type_ids" in self._tokenizer.model_input_names else []
        return ["input_ids", "attention_mask", *types]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files to a folder, and how passages are cut and pairs written."""
        self._tokenizer.save_pretrained(str(folder))
        self.template.save(folder)
        if self.cut is not None:
            self.cut.save(folder)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """One encoding per pair; a query that stands in several is encoded once."""
        if not pairs:
            return []
        most = self.characters
        looked_at = [(query[:most], passage[:most]) for query, passage in pairs]
        encoded = self._encode_written(looked_at) if self.template.chat else self._encode(looked_at)
        return [
            replace(encoding, cut=True) if len(passage) > most else encoding
            for encoding, (_, passage) in zip(encoded, pairs, strict=True)
        ]

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        queries = {query: self._query(query) for query, _ in pairs}
        passages = list(dict.fromkeys(passage for _, passage in pairs))
        read = zip(passages, self._backend.encode_batch(passages, add_special_tokens=False), strict=True)
        encodings = {passage: (encoding, np.array(encoding.ids, dtype=np.int32)) for passage, encoding in read}
        return [self._pair(*queries[query], passage, *encodings[passage]) for query, passage in pairs]

    def tokens(self, text: str) -> list[int]:
        """The ids of a whole text, without special tokens."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def _query(self, query: str) -> tuple[NDArray[np.int32], dict[str, float]]:
        """Its tokens, and what its words count."""
        ids = self._backend.encode(self.template.before + query, add_special_tokens=False).ids[: self.max_tokens // 2]
        return np.array(ids, dtype=np.int32), self._weights(query)

    def _weights(self, query: str) -> dict[str, float]:
        return {} if self.cut is None else self.cut.weights(query)

    def _pair(
        self,
        query: NDArray[np.int32],
        weights: dict[str, float],
        passage: str,
        encoding: Encoding,
        ids: NDArray[np.int32],
    ) -> EncodedPair:
        room = max(self.max_tokens - self._frame.size - len(query), 0)
        kept = self._fitting(ids, room, weights, passage, encoding.offsets)
        return EncodedPair(*self._frame.around(query, kept), len(ids) > room)

    def _fitting(
        self,
        ids: NDArray[np.int32],
        room: int,
        weights: dict[str, float],
        passage: str,
        offsets: Sequence[tuple[int, int]],
    ) -> NDArray[np.int32]:
        """What is read of a passage where there is room for so many tokens."""
        if len(ids) <= room or self.cut is None:
            return ids[:room]
        beginning = int(room * _BEGINNING)
        rest = room - beginning
        start = self.cut.start(weights, passage, offsets, beginning, rest)
        return np.concatenate([ids[:beginning], ids[start : start + rest]])

    def _encode_written(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Pairs in a template, each encoded as the one text that it is: words and white space of the template may share
        a token with the texts, which then is not cut away."""
        written = [self.template.write(query, passage) for query, passage in pairs]
        encodings = self._backend.encode_batch([text for text, _, _ in written], add_special_tokens=False)
        encoded = []
        for (query, _), (text, of_query, of_passage), encoding in zip(pairs, written, encodings, strict=True):
            ids, offsets = np.array(encoding.ids, dtype=np.int32), encoding.offsets
            first, behind = _tokens_within(offsets, of_query)
            start, end = _tokens_within(offsets, of_passage)
            asked = ids[first : min(behind, first + self.max_tokens // 2)]
            room = max(self.max_tokens - len(asked), 0)
            within = [(begin - of_passage[0], stop - of_passage[0]) for begin, stop in offsets[start:end]]
            kept = self._fitting(ids[start:end], room, self._weights(query), text[slice(*of_passage)], within)
            read = np.concatenate([ids[:first], asked, ids[behind:start], kept, ids[end:]])
            encoded.append(EncodedPair(read, np.zeros(len(read), dtype=np.int32), end - start > room))
        return encoded

    def pad(self, encodings: Sequence[EncodedPair]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and, where the model reads them, `token_type_ids`: int64 [pairs, longest]."""
        import torch

        shape = (len(encodings), max(len(encoding) for encoding in encodings))
        ids = np.full(shape, self._tokenizer.pad_token_id or 0, dtype=np.int64)
        types, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            begin = shape[1] - len(encoding) if self.left else 0
            end = begin + len(encoding)
            ids[row, begin:end], types[row, begin:end], mask[row, begin:end] = encoding.ids, encoding.type_ids, 1
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: torch.from_numpy(arrays[name]) for name in self.inputs}


class _Frame:
    """The special tokens around the two texts of a pair, and the types of all tokens."""

    def __init__(self, backend: Tokenizer) -> None:
        text = backend.encode("a", add_special_tokens=False)
        framed = backend.post_process(text, text)
        ids, types = (np.array(values, dtype=np.int32) for values in (framed.ids, framed.type_ids))
        words = np.flatnonzero(np.array(framed.special_tokens_mask) == 0)
        before, between = words[0], words[len(text)]
        bounds = (0, before), (before + len(text), between), (between + len(text), len(ids))
        self._parts = [(ids[start:end], types[start:end]) for start, end in bounds]
        self._types = int(types[before]), int(types[between])
        self.size = sum(len(part) for part, _ in self._parts)

    def around(
        self, query: NDArray[np.int32], passage: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids and types of the pair."""
        (front, of_front), (middle, of_middle), (back, of_back) = self._parts
        of_query, of_passage = (
            np.full(len(text), kind, dtype=np.int32) for text, kind in zip((query, passage), self._types, strict=True)
        )
        return (
            np.concatenate([front, query, middle, passage, back]),
            np.concatenate([of_front, of_query, of_middle, of_passage, of_back]),
        )


def _tokens_within(offsets: Sequence[tuple[int, int]], characters: tuple[int, int]) -> tuple[int, int]:
    """First token, and the one behind the last, of those that lie within some characters of the text."""
    begin, end = characters
    first = bisect_left(offsets, begin, key=lambda span: span[0])
    behind = bisect_right(offsets, end, lo=first, key=lambda span: span[1])
    return first, behind


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, without truncation and padding."""
    copied = type(tokenizer).from_str(tokenizer.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied
