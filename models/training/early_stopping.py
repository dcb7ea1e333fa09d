"""Early stopping: training ends when the ranking of the development queries gets no better, with the best weights.

Imported only where a model is trained, so torch stands at module level here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import TrainerCallback

from models.cross_encoder.architecture import logits
from models.cross_encoder.pair_tokenizer import PairTokenizer

_BATCH = 32
_CUT = 10


class EarlyStopping(TrainerCallback):
    """Measures nDCG@10 of the development lists whenever the loss is logged, `evaluations` times in a training.

    Training stops after `patience` measurements without a better one; `restore_best` then puts the best weights back
    (Prechelt, 1998). With `patience` 0 it measures and keeps the best, but never stops.
    """

    def __init__(self, lists: Sequence[Any], tokenizer: PairTokenizer, patience: int, evaluations: int) -> None:
        self._lists = lists
        self._pairs = [(item["query"], passage) for item in lists for passage in item["passages"]]
        self._tokenizer = tokenizer
        self._patience = patience
        self._evaluations = evaluations
        self._best: dict[str, Tensor] = {}
        self.history: list[tuple[int, float]] = []
        """(step, nDCG@10) of each measurement."""

    @property
    def best_step(self) -> int:
        """The step with the best measurement, the first of equals; 0 before any."""
        return max(self.history, key=lambda entry: entry[1])[0] if self.history else 0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure if it is time, remember the best weights, stop if they are long ago."""
        done = len(self.history)
        # The end of training logs its last step once more.
        measured = done and self.history[-1][0] == state.global_step
        if measured or self._evaluations * state.global_step < (done + 1) * state.max_steps:
            return
        model: nn.Module = kwargs["model"]
        self.history.append((state.global_step, self.measure(model)))
        if self.best_step == state.global_step:
            self._best = {name: value.detach().clone() for name, value in trained_parameters(model).items()}
        since_best = sum(step > self.best_step for step, _ in self.history)
        if self._patience and since_best >= self._patience:
            control.should_training_stop = True

    def measure(self, model: Any) -> float:
        """Mean nDCG@10 of the development lists."""
        encoded = self._tokenizer.encode(self._pairs)
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
        scores = np.empty(len(encoded))
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                tokens = {k: v.to(model.device) for k, v in self._tokenizer.pad([encoded[r] for r in rows]).items()}
                scores[rows] = logits(model, tokens).cpu().numpy()
        model.train(was_training)
        ends = np.cumsum([len(item["passages"]) for item in self._lists])
        relevance = [np.array(item["labels"]) for item in self._lists]
        return float(np.mean([ndcg(*of_list) for of_list in zip(np.split(scores, ends[:-1]), relevance, strict=True)]))

    def restore_best(self, model: nn.Module) -> None:
        """Put the weights of the best measurement back, if there was any."""
        copy_parameters(model, self._best)

    def remembered(self) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
        """What a checkpoint has to keep: JSON values and tensors."""
        return {"history": self.history}, self._best

    def restore(self, facts: Mapping[str, Any], best: Mapping[str, Tensor]) -> None:
        """Put back what `remembered` gave."""
        self.history = [(int(step), float(value)) for step, value in facts["history"]]
        self._best = dict(best)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def copy_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into the parameters of their names."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def ndcg(scores: NDArray[np.floating], relevance: NDArray[np.floating], cut: int = _CUT) -> float:
    """nDCG of one list with the relevance itself as gain; 0 where nothing is relevant. Ties keep the list's order."""
    discounts = 1 / np.log2(np.arange(2, min(cut, len(scores)) + 2))
    ideal = np.sort(relevance)[::-1][:cut] @ discounts
    gained = relevance[np.argsort(-scores, kind="stable")][:cut] @ discounts
    return float(gained / ideal) if ideal > 0 else 0.0
