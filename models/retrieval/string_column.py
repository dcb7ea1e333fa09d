"""Columns of strings in two memory-mapped arrays, which processes share: the ids and terms of large indexes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

PASSAGE_IDS = "passage_ids"
PLACES_FILE = "passage_places.npy"
ID_FILES = (f"{PASSAGE_IDS}_utf8.npy", f"{PASSAGE_IDS}_offsets.npy", PLACES_FILE)


def files_of(name: str) -> tuple[str, str]:
    """Names of the files of a column: its bytes in UTF-8, and where each string begins."""
    return f"{name}_utf8.npy", f"{name}_offsets.npy"


class StringColumn(Sequence[str]):
    """Strings in the order given; `utf8` [bytes] holds string i from `offsets` [n + 1] i to i + 1."""

    def __init__(self, utf8: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        # Plain views of a memory map: its own class takes several times as long to slice.
        self._utf8, self._offsets = np.asarray(utf8), np.asarray(offsets)

    @classmethod
    def of(cls, strings: Iterable[str]) -> Self:
        """A column of `strings`, in memory."""
        encoded = [text.encode() for text in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    @classmethod
    def load(cls, folder: Path, name: str, mmap: bool = True) -> Self:
        """Open what `save` wrote. Raises `FileNotFoundError` where it is not."""
        utf8, offsets = (
            np.load(folder / file, mmap_mode="r" if mmap else None, allow_pickle=False) for file in files_of(name)
        )
        return cls(utf8, offsets)

    def save(self, folder: Path, name: str) -> None:
        """Write the files of the column."""
        for file, array in zip(files_of(name), (self._utf8, self._offsets), strict=True):
            np.save(folder / file, array, allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return self._utf8[self._offsets[row] : self._offsets[row + 1]].tobytes().decode()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StringColumn):
            return NotImplemented
        return np.array_equal(self._offsets, other._offsets) and np.array_equal(self._utf8, other._utf8)

    __hash__ = None  # type: ignore[assignment]

    def find(self, text: str) -> int:
        """The row of `text` in a column that is sorted by code points; -1 where it is not."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self[middle] < text:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self[low] == text else -1


class PassageIds(StringColumn):
    """The ids of the passages of an index, row by row, and the order among equally good ones."""

    def __init__(self, utf8: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        super().__init__(utf8, offsets)
        self._places: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, strings: Iterable[str]) -> PassageIds:
        """A column of `strings`, in memory; what is one already stays itself."""
        return strings if isinstance(strings, PassageIds) else super().of(strings)

    @classmethod
    def read(cls, folder: Path, mmap: bool = True) -> PassageIds:
        """The ids in the folder of an index. Raises `FileNotFoundError` where there are none."""
        # Indexes of releases before 0.2 have them as a JSON list.
        listed = folder / f"{PASSAGE_IDS}.json"
        if listed.is_file():
            return cls.of(json.loads(listed.read_bytes()))
        ids = cls.load(folder, PASSAGE_IDS, mmap)
        ids._places = np.asarray(np.load(folder / PLACES_FILE, mmap_mode="r" if mmap else None, allow_pickle=False))
        return ids

    def write(self, folder: Path) -> None:
        """Write them into the folder of an index."""
        self.save(folder, PASSAGE_IDS)
        np.save(folder / PLACES_FILE, self.places, allow_pickle=False)

    @property
    def places(self) -> NDArray[np.int64]:
        """The place [n] of each id in the sorted list of ids: what equal scores are ordered by."""
        if self._places is None:
            self._places = id_places(self)
        return self._places


def id_places(ids: Sequence[str]) -> NDArray[np.int64]:
    """The place [n] of each id in the sorted list of ids."""
    listed: Any = np.empty(len(ids), dtype=object)
    listed[:] = list(ids)
    places = np.empty(len(ids), dtype=np.int64)
    places[np.argsort(listed, kind="stable")] = np.arange(len(ids))
    return places
