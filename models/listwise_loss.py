"""The training objective: listwise cross entropy, with a teacher's scores as soft targets.

Imported only where a model is trained, so torch stands at module level here.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from models.pair_tokens import PairTokenizer


class ListwiseLoss(nn.Module):
    """Cross entropy over each query's list of passages (ListNet, Cao et al., 2007).

    With a teacher, the target distribution is mixed with the softmax of the teacher's scores (Hinton et al., 2015).

    Inputs: (queries, lists of passages); labels: one tensor [passages, 2] per query, relevance and teacher score.
    """

    def __init__(self, model: CrossEncoder, tokenizer: PairTokenizer, teacher_weight: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.teacher_weight = teacher_weight

    def forward(
        self, inputs: list[Any], labels: list[Tensor], prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Mean loss of the batch."""
        queries, lists = inputs
        sizes = [len(passages) for passages in lists]
        pairs = [(query, passage) for query, passages in zip(queries, lists, strict=True) for passage in passages]
        tokens = batch_to_device(self.tokenizer.pad(self.tokenizer.encode(pairs)), self.model.device)
        logits = self.model(tokens)["scores"].view(-1).float()
        losses = []
        for part, label in zip(torch.split(logits, sizes), labels, strict=True):
            relevance, teacher = label.to(part.device).float().unbind(dim=1)
            target = relevance / relevance.sum()
            if self.teacher_weight:
                target = (1 - self.teacher_weight) * target + self.teacher_weight * teacher.softmax(dim=0)
            losses.append(nn.functional.cross_entropy(part, target))
        return torch.stack(losses).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Parameters shown in the model card."""
        return {"teacher_weight": self.teacher_weight}
