"""The scorer of trained cross-encoders, and the device that it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.cross_encoder.architecture import halve, keep_answers_only, logits, open_cross_encoder
from models.cross_encoder.pair_template import PairTemplate
from models.cross_encoder.pair_tokenizer import EncodedPair, PairTokenizer
from models.cross_encoder.pairwise import Progress
from models.cross_encoder.passage_cut import PassageCut

if TYPE_CHECKING:
    from sentence_transformers.cross_encoder import CrossEncoder


class CrossEncoderScorer:
    """Scores (query, passage) pairs in batches of similar length. Only the passage is cut when a pair is too long."""

    padded = True

    def __init__(self, model: CrossEncoder, tokenizer: PairTokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = tokenizer.max_tokens

    @classmethod
    def load(cls, folder: Path, max_tokens: int, device: str = "cpu") -> CrossEncoderScorer:
        """Load a cross-encoder of any architecture from a local folder of safetensors, in inference mode."""
        model = open_cross_encoder(folder, resolve_device(device))
        keep_answers_only(model)
        if model.device.type == "cuda":
            halve(model)
        template = PairTemplate.load(folder) or PairTemplate.of(model)
        return cls(model.eval(), PairTokenizer(model.tokenizer, max_tokens, PassageCut.load(folder), template))

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Progress | None = None
    ) -> np.ndarray:
        """float32 [n] relevance logits, in the order of `pairs`."""
        return self.logits_of(self.encode(pairs), batch_size, progress)

    def logits_of(
        self, encoded: Sequence[EncodedPair], batch_size: int = 32, progress: Progress | None = None
    ) -> np.ndarray:
        """float32 [n] relevance logits of pairs that `encode` has encoded."""
        import torch

        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        scores = np.empty(len(encoded), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                scores[rows] = self._forward([encoded[i] for i in rows])
                if progress is not None:
                    progress(min(start + batch_size, len(order)), len(order))
        return scores

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Token ids of each pair, cut to `max_tokens`; a query may take half of them."""
        return self.tokenizer.encode(pairs)

    def _forward(self, encodings: list[EncodedPair]) -> np.ndarray:
        tokens = {name: tensor.to(self.model.device) for name, tensor in self.tokenizer.pad(encodings).items()}
        return logits(self.model, tokens).cpu().numpy()


def resolve_device(device: str) -> str:
    """`auto` becomes cuda or mps where there is one, else cpu."""
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
