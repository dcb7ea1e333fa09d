"""Which passages a search may return: the labels of the caller, applied to whole columns of the passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.store.tables import numbers, one_array

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PassageFilter:
    """What a passage must be like to be returned. A new condition is a field here and a mask in `FilterColumns`."""

    labels: frozenset[str] = frozenset()
    """Access labels that the caller holds: a passage is public or carries one of them."""


class FilterColumns:
    """The columns of a passages table [n] that filters look at, as arrays."""

    NAMES = ("access",)

    def __init__(self, passages: pa.Table) -> None:
        self._public, self._rows_with = _access_rows(passages["access"])

    def mask(self, passage_filter: PassageFilter) -> NDArray[np.bool_] | None:
        """Mask [n] of the passages that pass; None where all do, which is searched faster."""
        mask = self._public.copy()
        for label in passage_filter.labels & self._rows_with.keys():
            mask[self._rows_with[label]] = True
        return None if mask.all() else mask


def _access_rows(access: pa.ChunkedArray) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.int64]]]:
    """Mask [n] of the passages without a label, and the rows of the passages that carry each label."""
    lists: Any = one_array(access)
    counts = numbers(lists.value_lengths())
    labels = lists.flatten().dictionary_encode()
    codes = numbers(labels.indices)
    rows = np.repeat(np.arange(len(counts)), counts)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(labels.dictionary) + 1))
    rows_with = {
        label: rows[order[start:end]]
        for label, start, end in zip(labels.dictionary.to_pylist(), bounds[:-1], bounds[1:], strict=True)
    }
    return counts == 0, rows_with
