"""The scorer of trained cross-encoders, and the device that it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.cross_encoder.pair_tokenizer import EncodedPair, PairTokenizer
from models.cross_encoder.pairwise import Progress

if TYPE_CHECKING:
    import torch


class CrossEncoderScorer:
    """Scores (query, passage) pairs in batches of similar length. Only the passage is cut when a pair is too long."""

    padded = True

    def __init__(self, model: Any, head: Any, tokenizer: PairTokenizer, device: torch.device) -> None:
        self.body = model
        self.head = head
        self.tokenizer = tokenizer
        self._device = device
        self.max_tokens = tokenizer.max_tokens

    @classmethod
    def load(cls, folder: Path, max_tokens: int, device: str = "cpu") -> CrossEncoderScorer:
        """Load from a local folder of safetensors, in inference mode: a pair head where there is one, else the model's
        own classification head."""
        import torch
        from transformers import AutoModel, AutoModelForSequenceClassification

        from models.cross_encoder.pair_head import FOLDER, PairHead

        target = torch.device(resolve_device(device))
        dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
        has_head = (folder / FOLDER).is_dir()
        kind = AutoModel if has_head else AutoModelForSequenceClassification
        model = kind.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
        head = PairHead.load(str(folder), FOLDER, local_files_only=True).to(target).eval() if has_head else None
        return cls(model.to(target, dtype).eval(), head, PairTokenizer.load(folder, max_tokens), target)

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
        inputs = {name: tensor.to(self._device) for name, tensor in self.tokenizer.pad(encodings).items()}
        output = self.body(**inputs)
        if self.head is None:
            return output.logits.float().squeeze(-1).cpu().numpy()
        scores = self.head.score(output.last_hidden_state, inputs["input_ids"], inputs["attention_mask"])
        return scores.cpu().numpy()


def resolve_device(device: str) -> str:
    """`auto` becomes cuda or mps where there is one, else cpu."""
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
