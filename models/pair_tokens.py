"""Query and passage as the token ids that a cross-encoder reads, the same in training, scoring and serving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor


class PairTokenizer:
    """Cuts pairs to `max_tokens`, special tokens included: the query to at most half of them, then the passage.

    `tokenizer` is a fast tokenizer of transformers; its truncation and padding are set anew by each call, so one thread
    at a time calls it.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens

    @property
    def inputs(self) -> list[str]:
        """Names of what the model reads."""
        types = ["token_type_ids"] if "token_type_ids" in self._tokenizer.model_input_names else []
        return ["input_ids", "attention_mask", *types]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files to a folder."""
        self._tokenizer.save_pretrained(str(folder))

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Encoding]:
        """One encoding per pair."""
        if not pairs:
            return []
        backend = self._tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(max_length=self.max_tokens // 2, strategy="longest_first")
        queries = list(dict.fromkeys(query for query, _ in pairs))
        encoded = backend.encode_batch(queries, add_special_tokens=False)
        cut = {
            query: query if not encoding.overflowing else query[: encoding.offsets[-1][1]]
            for query, encoding in zip(queries, encoded, strict=True)
        }
        backend.enable_truncation(max_length=self.max_tokens, strategy="only_second")
        return backend.encode_batch([(cut[query], passage) for query, passage in pairs])

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
