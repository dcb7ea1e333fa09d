"""The scoring head of a cross-encoder that starts from a bi-encoder's weights.

Imported only where a model is trained or loaded, so torch stands at module level here.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn

FOLDER = "1_PairHead"
"""Where sentence-transformers saves it inside a model's folder."""


class PairHead(Module):
    """logit = w . (q * p) + c . first token + b, with q and p the normalized means of the query's and passage's tokens.

    Both texts were read together, so their tokens have seen each other. `w` starts at `scale` in every place: before
    any training the logit is `scale` times the cosine of the two means, close to what the bi-encoder itself says, and
    training refines a ranking instead of finding one (mean pooling: Reimers and Gurevych, 2019). A classification head
    on the first token, which a bi-encoder never trained, starts from chance.

    Input features: `input_ids` and `attention_mask` [pairs, tokens], `token_embeddings` [pairs, tokens, hidden]; adds
    `scores` [pairs, 1]. The query ends at the first separator token.
    """

    config_keys = ["hidden_size", "separator_id", "special_ids", "scale"]

    def __init__(self, hidden_size: int, separator_id: int, special_ids: list[int], scale: float = 10.0) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.separator_id = separator_id
        self.special_ids = list(special_ids)
        self.scale = scale
        self.interaction = nn.Parameter(torch.full((hidden_size,), float(scale)))
        self.first_token = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.first_token.weight)
        nn.init.zeros_(self.first_token.bias)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `scores`."""
        tokens = features["token_embeddings"]
        features["scores"] = self.score(tokens, features["input_ids"], features["attention_mask"]).unsqueeze(1)
        return features

    def score(self, tokens: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [pairs] in float32."""
        return self.combined(*self.pooled(tokens, input_ids, attention_mask))

    def pooled(self, tokens: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalized means of the query's and of the passage's tokens, and the first token, each float32 [pairs,
        hidden]."""
        tokens = tokens.float()
        words = attention_mask.bool()
        for special in self.special_ids:
            words = words & (input_ids != special)
        in_query = (input_ids == self.separator_id).long().cumsum(dim=1) == 0
        query = _normalized_mean(tokens, words & in_query)
        passage = _normalized_mean(tokens, words & ~in_query)
        return query, passage, tokens[:, 0]

    def combined(self, query: Tensor, passage: Tensor, first: Tensor) -> Tensor:
        """Logits [pairs] of what `pooled` gives."""
        return (query * passage) @ self.interaction + self.first_token(first).squeeze(-1)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write config.json and model.safetensors."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Read what `save` wrote."""
        location: dict[str, Any] = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        head = cls(**cls.load_config(model_name_or_path, **location))
        cls.load_torch_weights(model_name_or_path, model=head, **location)
        return head


def _normalized_mean(tokens: Tensor, chosen: Tensor) -> Tensor:
    """Mean [pairs, hidden] of the chosen tokens, of length 1; zeros where none is chosen."""
    weights = chosen.to(tokens.dtype).unsqueeze(-1)
    mean = (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
    return nn.functional.normalize(mean, dim=-1)
