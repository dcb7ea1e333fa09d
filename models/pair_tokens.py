"""Query and passage as the token ids that a cross-encoder reads, the same in training, scoring and serving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from torch import Tensor


class PairTokenizer:
    """Cuts pairs to `max_tokens`, special tokens included: the query to at most half of them, then the passage.

    `tokenizer` is a fast tokenizer of transformers. It is copied and left as it is, and nothing of the copies changes
    later, so any number of threads may call this one.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._queries = _copy(tokenizer.backend_tokenizer)
        self._queries.enable_truncation(max_length=max_tokens // 2, strategy="longest_first")
        self._passages = _copy(tokenizer.backend_tokenizer)
        self._pairs = _copy(tokenizer.backend_tokenizer)
        self._pairs.enable_truncation(max_length=max_tokens, strategy="only_second")

    @property
    def inputs(self) -> list[str]:
        """Names of what the model reads."""
        types = ["token_type_ids"] if "token_type_ids" in self._tokenizer.model_input_names else []
        return ["input_ids", "attention_mask", *types]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files to a folder."""
        self._tokenizer.save_pretrained(str(folder))

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Encoding]:
        """One encoding per pair; a query that stands in several is encoded once."""
        if not pairs:
            return []
        queries = list(dict.fromkeys(query for query, _ in pairs))
        encoded = dict(zip(queries, map(self._cut, queries), strict=True))
        passages = self._passages.encode_batch([passage for _, passage in pairs], add_special_tokens=False)
        return [
            self._pairs.post_process(encoded[query], passage)
            for (query, _), passage in zip(pairs, passages, strict=True)
        ]

    def _cut(self, query: str) -> Encoding:
        """The query's tokens, at most half of `max_tokens`, without what was cut off: that is no cut passage."""
        encoding = self._queries.encode(query, add_special_tokens=False)
        if not encoding.overflowing:
            return encoding
        return self._passages.encode(query[: encoding.offsets[-1][1]], add_special_tokens=False)

    def pad(self, encodings: Sequence[Encoding]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and, where the model reads them, `token_type_ids`: int64 [pairs, longest]."""
        import numpy as np
        import torch

        shape = (len(encodings), max(len(encoding) for encoding in encodings))
        ids = np.full(shape, self._tokenizer.pad_token_id or 0, dtype=np.int64)
        types, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            size = len(encoding)
            ids[row, :size], types[row, :size], mask[row, :size] = encoding.ids, encoding.type_ids, 1
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: torch.from_numpy(arrays[name]) for name in self.inputs}


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, without truncation and padding."""
    copied = type(tokenizer).from_str(tokenizer.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied
