"""Linear layers over the rows of many pairs, whose bits do not depend on what other rows there are.

Imported only where a model is loaded, so torch stands at module level here.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

LADDER = (*range(32, 257, 32), *range(320, 1025, 64), *range(1152, 2049, 128))
"""Numbers of rows that are read at once. Each costs oneDNN some milliseconds the first time."""


class Product(Protocol):
    """A linear layer over rows of the encoder's type: [rows, inputs] to [rows, outputs]."""

    shape: tuple[int, ...]
    """Products of the same class and shape share their plan."""

    pieces: dict[int, int]
    """For a number of rows in how many at a time they are computed; filled from `plan`."""

    def __call__(self, rows: Tensor, added: Tensor | None = None) -> Tensor:
        """Rows of the same type, as many as were given, with those of `added` on top."""
        ...

    def plan(self) -> dict[int, int]:
        """`pieces` of each number of `LADDER`: rows have the same bits in all of them."""
        ...


class MakeProduct(Protocol):
    """Makes the product of one place in the encoder."""

    def __call__(self, name: str, layers: Sequence[Any], gelu: bool = False, adds: bool = False) -> Product:
        """Several `torch.nn.Linear` over the same rows become one. `name` is `wider` or the number of the layer and
        `projected`, `mixed`, `up` or `down`, as in `3.up`. `adds` says that other rows are added to all of its."""
        ...


class FloatProduct:
    """A linear layer of bfloat16 or float32 over rows, its weights laid out once.

    `pieces` says for a number of rows in how many rows at a time they are computed.
    """

    def __init__(self, name: str, layers: Sequence[Any], gelu: bool = False, adds: bool = False) -> None:
        """See `MakeProduct`."""
        weights = torch.cat([layer.weight.data for layer in layers])
        self._adds = adds
        self.shape = (int(weights.shape[0]), int(weights.shape[1]), int(gelu), int(adds))
        self.pieces: dict[int, int] = {}
        self._bias = torch.cat([layer.bias.data for layer in layers])
        self._weights = torch.ops.mkldnn._reorder_linear_weight(weights, LADDER[-1])
        self._behind = ("gelu", [], "none") if gelu else ("none", [], "")

    def __call__(self, rows: Tensor, added: Tensor | None = None) -> Tensor:
        """See `Product`."""
        count = len(rows)
        size = self.pieces.get(count, LADDER[-1])
        if size == count:
            return self._product(rows, added)
        parts = [self._filled(rows, added, start, size) for start in range(0, count, size)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def plan(self) -> dict[int, int]:
        """`pieces` of each number of `LADDER`: of those whose rows have the bits of the largest one, what is fastest.

        oneDNN splits the sums of some products in tiles (AMX) where there are fewer rows than columns, and so rounds
        them in another way.
        """
        values, more = (
            torch.randn(LADDER[-1], width, generator=torch.Generator().manual_seed(0)).to(self._bias.dtype)
            for width in reversed(self.shape[:2])
        )
        added = more if self._adds else None
        expected = self._product(values, added)
        seconds = {}
        for rows in LADDER:
            # At both ends: a row in the last block may be computed in another way than one in the first.
            ends = slice(0, rows), slice(LADDER[-1] - rows, LADDER[-1])
            first = self._product(values[ends[0]], None if added is None else added[ends[0]])
            started = perf_counter()
            last = self._product(values[ends[1]], None if added is None else added[ends[1]])
            taken = perf_counter() - started
            if torch.equal(first, expected[ends[0]]) and torch.equal(last, expected[ends[1]]):
                seconds[rows] = taken
        seconds.setdefault(LADDER[-1], 0.0)
        return {
            rows: rows if rows in seconds else min(seconds, key=lambda size: -(-rows // size) * seconds[size])
            for rows in LADDER
        }

    def _filled(self, rows: Tensor, added: Tensor | None, start: int, size: int) -> Tensor:
        """The product of `size` rows from `start`, the last of them zeros where there are fewer."""
        part, more = rows[start : start + size], None if added is None else added[start : start + size]
        missing = size - len(part)
        if missing:
            part = pad(part, (0, 0, 0, missing))
            more = None if more is None else pad(more, (0, 0, 0, missing))
        return self._product(part, more)[: size - missing]

    def _product(self, rows: Tensor, added: Tensor | None) -> Tensor:
        operators = torch.ops.mkldnn._linear_pointwise
        if added is not None:
            return operators.binary(rows, added, self._weights, self._bias, "add")
        return operators(rows, self._weights, self._bias, *self._behind)
