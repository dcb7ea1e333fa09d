"""Cross-encoders in bfloat16 on CPUs that multiply it: PyTorch, one pair at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import numpy as np

from models.cross_encoder import CrossEncoderScorer
from models.pairwise import PairwiseScorer, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding


class Bfloat16Scorer(PairwiseScorer):
    """PyTorch with the transformer in bfloat16 and the head in float32."""

    def __init__(self, scorer: CrossEncoderScorer, threads: int) -> None:
        """Takes the model of `scorer` over."""
        import torch

        super().__init__(threads)
        _halve(scorer.body)
        self._scorer = scorer
        self.max_tokens = scorer.max_tokens
        before, ready = torch.get_num_threads(), Barrier(threads)
        list(self._pool.map(lambda _: _work_alone(ready), range(threads)))
        torch.set_num_threads(before)  # what a thread sets for itself is the start of later threads too

    @classmethod
    def load(cls, folder: Path, max_tokens: int, threads: int = 0) -> Bfloat16Scorer:
        """Load a model of `models.cross_encoder`; `threads` pairs run at once, 0 is one per core."""
        import torch

        return cls(CrossEncoderScorer.load(folder, max_tokens), threads or torch.get_num_threads())

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """float32 [n] relevance logits, in the order of `pairs`."""
        return self.logits_of(self.encode(pairs), batch_size, progress)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Encoding]:
        """Token ids of each pair, cut to `max_tokens`; a query may take half of them."""
        return self._scorer.encode(pairs)

    def _score(self, encoding: Encoding) -> float:
        return float(self._scorer.logits_of([encoding], 1)[0])


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16, and PyTorch the library that uses them (oneDNN)."""
    import torch

    return torch.backends.mkldnn.is_available() and has_bfloat16_instructions()


def has_bfloat16_instructions() -> bool:
    """Whether this CPU has instructions that multiply bfloat16."""
    import torch

    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _halve(model: Any) -> None:
    """Turn the parameters of a transformer to bfloat16.

    A classification head on it keeps float32: logits of 8 bits would tie. So do buffers, such as the frequencies of
    rotary positions.
    """
    import torch

    body = model.base_model
    for parameter in body.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    for child in model.children() if body is not model else ():
        if child is not body:
            child.register_forward_pre_hook(lambda _, values: tuple(value.float() for value in values))


def _work_alone(ready: Barrier) -> None:
    """Let PyTorch use one thread in calls of this one, once each thread of the pool is here to do the same."""
    import torch

    ready.wait()
    torch.get_num_threads()  # a thread's first call of PyTorch takes over the number of the process
    torch.set_num_threads(1)
