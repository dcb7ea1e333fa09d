"""Load what computes the logits of a cross-encoder: PyTorch or ONNX Runtime (docs/decisions/0009, 0027)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.contracts.tiers import MODEL_TIERS, model_tiers
from models.cross_encoder.bfloat16 import Bfloat16Scorer, multiplies_bfloat16
from models.cross_encoder.int8 import SMOOTHING, Int8Scorer
from models.cross_encoder.onnx_session import OnnxSession, engine_kind, open_session
from models.cross_encoder.pair_tokenizer import EncodedPair, PairTokenizer
from models.cross_encoder.pairwise import Progress
from models.cross_encoder.scorer import CrossEncoderScorer
from models.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["bf16", "int8", "fp32", "torch"]


class OnnxScorer(OnnxSession):
    """Scores pairs with ONNX Runtime. Any number of threads may call it."""

    def __init__(self, session: Any, tokenizer: PairTokenizer, threads: int) -> None:
        super().__init__(session, threads)
        self._tokenizer = tokenizer
        self.max_tokens = tokenizer.max_tokens

    @classmethod
    def load(cls, folder: Path, max_tokens: int, threads: int = 0) -> OnnxScorer:
        """Load from a folder of model.onnx and a tokenizer; `threads` pairs run at once, 0 is one per core."""
        import torch

        pairs = PairTokenizer.load(folder, max_tokens)
        return cls(open_session(folder), pairs, threads or torch.get_num_threads())

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """float32 [n] relevance logits, in the order of `pairs`."""
        return self.logits_of(self.encode(pairs), batch_size, progress)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Token ids of each pair, cut to `max_tokens`; a query may take half of them."""
        return self._tokenizer.encode(pairs)


LoadedEngine = CrossEncoderScorer | Bfloat16Scorer | Int8Scorer | OnnxScorer


def load_engines(
    engines: Path, models: Mapping[str, Path], max_tokens: int, *, device: str = "cpu", threads: int = 0
) -> dict[str, LoadedEngine]:
    """The engine of each tier's model by tier, as `load_engine` loads it; `models` are their folders by tier."""
    return {
        tier.name: load_engine(engines, models[tier.name], tier.name, max_tokens, device=device, threads=threads)
        for tier in model_tiers(models)
    }


def model_folders(bundle: Path) -> dict[str, Path]:
    """Folders of the models below that of a bundle, by tier: of those that the bundle has."""
    return {tier.name: bundle / tier.name for tier in MODEL_TIERS if (bundle / tier.name).is_dir()}


def load_engine(
    engines: Path, model: Path, tier: str, max_tokens: int, *, device: str = "cpu", threads: int = 0
) -> LoadedEngine:
    """The engine of `tier` below `engines`; PyTorch and the weights in `model` where none was built.

    Raises `ArtifactError` for an engine in bfloat16 on a CPU without it: in another precision its scores would not be
    those that were calibrated and evaluated.
    """
    kind = engine_kind(engines / tier)
    if kind == "torch":
        return CrossEncoderScorer.load(model, max_tokens, device=device)
    if kind == "bf16":
        require_bfloat16(tier)
        return Bfloat16Scorer.load(model, max_tokens, threads)
    # int8 of other architectures, and of older bundles, is a graph.
    if kind == "int8" and (engines / tier / SMOOTHING).is_file():
        return Int8Scorer.load(model, engines / tier, max_tokens, threads)
    return OnnxScorer.load(engines / tier, max_tokens, threads)


def require_bfloat16(engine: str) -> None:
    """Raise `ArtifactError` on a CPU that does not multiply bfloat16."""
    if not multiplies_bfloat16():
        raise ArtifactError(
            f"the {engine} engine is in bfloat16, which this CPU does not multiply (avx512_bf16 or amx_bf16)",
            "Use a CPU that does, or set engine.kind to fp32 or int8 where the engines are built.",
        )
