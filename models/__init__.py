"""How it is done: plain typed Python for every stage. No Dagster, no HTTP."""

import os
import sys

if sys.platform == "darwin":
    # PyTorch and FAISS each bring LLVM's OpenMP, and a second copy ends the process: models/retrieval/faiss_library.py.
    os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "TRUE")
