"""ONNX Runtime over encoded pairs. Importing it loads no framework, so that a process that scores starts at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.cross_encoder.pairwise import PairwiseScorer

if TYPE_CHECKING:
    from models.cross_encoder.pair_tokenizer import EncodedPair

MODEL = "model.onnx"
FACTS = "engine.json"
_KINDS = ("int8", "fp32")
"""Of engines that are graphs, where there is one: int8 of BERT's family is PyTorch's."""


class OnnxSession(PairwiseScorer):
    """Scores encoded pairs with a graph of `models.cross_encoder.onnx_export`."""

    def __init__(self, session: Any, threads: int) -> None:
        super().__init__(threads)
        self._session = session
        self._inputs = {item.name for item in session.get_inputs()}

    @classmethod
    def open(cls, folder: Path, threads: int) -> OnnxSession:
        """Open model.onnx in a folder; `threads` pairs run at once."""
        return cls(open_session(folder), threads)

    def _score(self, encoding: EncodedPair) -> float:
        values = {"input_ids": encoding.ids, "token_type_ids": encoding.type_ids}
        feeds = {name: np.array([item], dtype=np.int64) for name, item in values.items() if name in self._inputs}
        feeds["attention_mask"] = np.ones((1, len(encoding)), dtype=np.int64)
        return float(self._session.run(None, feeds)[0].ravel()[0])


def open_session(folder: Path) -> Any:
    """ONNX Runtime's session of model.onnx in a folder, one thread for each call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])


def engine_kind(folder: Path) -> str:
    """Which kind the engine in `folder` is; `torch`, over the model's weights, where none was built."""
    facts_file = folder / FACTS
    return str(json.loads(facts_file.read_bytes())["kind"]) if facts_file.is_file() else "torch"


def is_graph(folder: Path) -> bool:
    """Whether the engine in `folder` is one of ONNX Runtime."""
    return engine_kind(folder) in _KINDS and (folder / MODEL).is_file()
