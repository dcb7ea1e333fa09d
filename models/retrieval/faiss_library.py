"""FAISS beside PyTorch: import it from here.

On macOS the wheel of each brings a copy of LLVM's OpenMP. The second one to load ends the process, which
`models/__init__.py` forbids; with both, threads of FAISS crash (https://github.com/faiss-wheels/faiss-wheels/issues/73),
and so does PyTorch behind FAISS (https://github.com/pytorch/pytorch/issues/149201). So PyTorch is loaded first there,
and FAISS works in the calling thread.
"""

from __future__ import annotations

import sys

if sys.platform == "darwin":
    import torch  # noqa: F401

import faiss

if sys.platform == "darwin":
    faiss.omp_set_num_threads(1)

__all__ = ["faiss"]
