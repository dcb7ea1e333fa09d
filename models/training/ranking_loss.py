"""The training objectives: a ranking loss on the judgments, mixed with a distillation loss on what a teacher says.

Imported only where a model is trained, so torch stands at module level here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.cross_encoder.losses import LambdaLoss, NDCGLoss2PPScheme
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from models.cross_encoder.architecture import logits
from models.cross_encoder.pair_tokenizer import PairTokenizer

Objective = Literal["listwise", "lambda", "bce"]
Distillation = Literal["listwise", "margin_mse", "none"]


@dataclass(frozen=True)
class Teacher:
    """A trained cross-encoder to learn from. It reads pairs by its own `tokenizer`, or by the student's where None, and
    multiplies in `dtype`: the trainer's mixed precision is around the student alone."""

    model: CrossEncoder
    tokenizer: PairTokenizer | None = None
    dtype: torch.dtype = torch.float32

    def scores(self, tokens: Mapping[str, Any]) -> Tensor:
        """float32 [pairs] scores of encoded pairs, without gradients."""
        mixed = self.dtype != torch.float32
        with torch.no_grad(), torch.autocast(self.model.device.type, dtype=self.dtype, enabled=mixed):
            return logits(self.model, tokens)


class RankingLoss(nn.Module):
    """(1 - w) x objective + w x distillation over lists of passages, `w` being `teacher_weight`.

    Objectives: `listwise`, cross entropy over each query's list (ListNet, Cao et al., 2007); `lambda`, LambdaLoss with
    NDCG-Loss2++ weights (Wang et al., 2018); `bce`, binary cross entropy of each pair.
    Distillation: `listwise`, cross entropy with the softmax of the teacher's scores (Hinton et al., 2015);
    `margin_mse`, squared error of the score differences to a list's first passage (Hofstätter et al., 2020).

    A list whose relevance is missing (NaN) was never judged: it is learned from the teacher alone.

    Inputs: (queries, lists of passages); labels: one tensor [passages] of relevance per query.
    The pairs of a batch are sorted by length and read in parts of `chunk_pairs` (0: all at once), which saves padding
    and changes nothing else.
    """

    def __init__(
        self,
        model: CrossEncoder,
        tokenizer: PairTokenizer,
        teacher: Teacher | None = None,
        teacher_weight: float = 0.0,
        *,
        objective: Objective = "listwise",
        distillation: Distillation = "listwise",
        chunk_pairs: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.teacher_weight = 0.0 if distillation == "none" or teacher is None else teacher_weight
        # In a tuple, since a module of this one would be trained and saved with it.
        self._teacher = (teacher,) if teacher is not None and self.teacher_weight else ()
        self.objective = objective
        self.distillation = distillation
        self.chunk_pairs = chunk_pairs
        scored: Any = _Scored()
        self._lambda = LambdaLoss(scored, weighting_scheme=NDCGLoss2PPScheme(), mini_batch_size=-1)

    def forward(
        self, inputs: list[Any], labels: list[Tensor], prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Mean loss of the batch."""
        queries, lists = inputs
        pairs = [(query, passage) for query, passages in zip(queries, lists, strict=True) for passage in passages]
        scores, taught = self._read(pairs)
        sizes = [len(passages) for passages in lists]
        parts, taught = torch.split(scores, sizes), torch.split(taught, sizes)
        relevance = [of_list.to(scores.device).float() for of_list in labels]
        judged = [index for index, of_list in enumerate(relevance) if not of_list.isnan().any()]
        unjudged = [index for index in range(len(parts)) if index not in judged]
        weight = self.teacher_weight
        terms = []
        if judged and weight < 1:
            loss = self._objective([parts[index] for index in judged], [relevance[index] for index in judged])
            terms.append((1 - weight) * len(judged) * loss)
        for places, share in ((judged, weight), (unjudged, 1.0)):
            if places and share:
                loss = self._distillation([parts[index] for index in places], [taught[index] for index in places])
                terms.append(share * len(places) * loss)
        return torch.stack(terms).sum() / len(parts)

    def get_config_dict(self) -> dict[str, Any]:
        """Parameters shown in the model card."""
        return {
            "objective": self.objective,
            "distillation": self.distillation,
            "teacher_weight": self.teacher_weight,
        }

    def _read(self, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
        """float32 [n] in the order of the pairs: logits, and the teacher's, zeros where there is none."""
        encoded = self.tokenizer.encode(pairs)
        chunk = self.chunk_pairs or len(encoded)
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row])) if chunk < len(encoded) else None
        rows = order or list(range(len(encoded)))
        outputs = []
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            outputs.append(self._forward([pairs[row] for row in part], [encoded[row] for row in part]))
        scores, taught = (torch.cat(column) for column in zip(*outputs, strict=True))
        if order is None:
            return scores, taught
        places = torch.empty(len(order), dtype=torch.long)
        places[torch.tensor(order)] = torch.arange(len(order))
        places = places.to(scores.device)
        return scores[places], taught[places]

    def _forward(self, pairs: Sequence[tuple[str, str]], encoded: list[Any]) -> tuple[Tensor, Tensor]:
        tokens = batch_to_device(self.tokenizer.pad(encoded), self.model.device)
        scores = logits(self.model, tokens)
        if not self._teacher:
            return scores, torch.zeros_like(scores)
        (teacher,) = self._teacher
        if teacher.tokenizer is not None:
            tokens = batch_to_device(teacher.tokenizer.pad(teacher.tokenizer.encode(pairs)), self.model.device)
        return scores, teacher.scores(tokens)

    def _objective(self, parts: Sequence[Tensor], relevance: Sequence[Tensor]) -> Tensor:
        if self.objective == "listwise":
            return _mean_cross_entropy(parts, [of_list / of_list.sum() for of_list in relevance])
        if self.objective == "bce":
            return nn.functional.binary_cross_entropy_with_logits(torch.cat(list(parts)), torch.cat(list(relevance)))
        scored: Any = self._lambda.model
        return self._lambda([list(range(len(parts))), scored.take(parts)], list(relevance))

    def _distillation(self, parts: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        if self.distillation == "listwise":
            return _mean_cross_entropy(parts, [scores.softmax(dim=0) for scores in teacher])
        margins, wanted = (torch.cat([scores[0] - scores[1:] for scores in lists]) for lists in (parts, teacher))
        return nn.functional.mse_loss(margins, wanted)


class _Scored(nn.Module):
    """Stands in for the model in sentence-transformers' LambdaLoss: it gives logits that were computed already.

    A passage is the number of its logit, so that one pass through the model serves objective and distillation, and the
    pairs are cut to tokens as in serving.
    """

    num_labels = 1

    def __init__(self) -> None:
        super().__init__()
        self._logits = torch.empty(0)

    @property
    def device(self) -> torch.device:
        return self._logits.device

    def take(self, parts: Sequence[Tensor]) -> list[list[int]]:
        """Hold the logits of some lists; returns the numbers of each."""
        self._logits = torch.cat(list(parts))
        numbers = iter(range(len(self._logits)))
        return [[next(numbers) for _ in part] for part in parts]

    def preprocess(self, pairs: Sequence[tuple[int, int]], **kwargs: Any) -> dict[str, Tensor]:
        """The numbers of the passages."""
        return {"rows": torch.tensor([row for _, row in pairs], dtype=torch.long)}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Their logits [n, 1]."""
        return {"scores": self._logits[features["rows"]].unsqueeze(1)}


def _mean_cross_entropy(parts: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    losses = [nn.functional.cross_entropy(part, target) for part, target in zip(parts, targets, strict=True)]
    return torch.stack(losses).mean()
