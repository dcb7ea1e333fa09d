"""Checkpoints of a training run: a run that was killed goes on from the last one to the weights it would have had.

Tensors are stored as safetensors and everything else as JSON, with digests; nothing is pickled. Imported only where a
model is trained, so torch stands at module level here.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from models.store.durable_files import digest_file
from models.training.early_stopping import EarlyStopping, copy_parameters, trained_parameters

_TENSORS = "state.safetensors"
_TRAINER = "trainer_state.json"
_FACTS = "checkpoint.json"
_MODEL, _OPTIMIZER, _RANDOM, _BEST = "model.", "optimizer.", "random.", "best."


class TrainingCheckpoints(TrainerCallback):
    """Saves the state of a training run in `folder` about every `minutes`, and puts the last one back.

    Saved are the trained parameters, the state of optimizer, schedule, gradient scaler and random generators, and what
    early stopping remembers. It happens where the loss was logged just before, so that the history of the losses of a
    resumed run is that of an undisturbed one. `folder` belongs to one computation: the same settings, examples and
    starting weights.
    """

    def __init__(self, folder: Path, minutes: float, stopping: EarlyStopping | None = None) -> None:
        self._folder = folder
        self._seconds = 60 * minutes
        self._stopping = stopping
        self._saved_at = time.monotonic()
        self._facts: dict[str, Any] = {}
        self._tensors: dict[str, Tensor] = {}
        self.scaler: Callable[[], Any] = lambda: None
        """Gives the gradient scaler of the trainer, where it has one."""

    def latest(self) -> Path | None:
        """The last whole checkpoint, read into memory; those that are damaged are deleted."""
        for folder in sorted(self._folder.glob("step-*"), reverse=True):
            try:
                facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
                if any(digest_file(folder / name) != digest for name, digest in facts["digests"].items()):
                    raise ValueError(folder)
                self._facts, self._tensors = facts, load_file(folder / _TENSORS)
            except (OSError, ValueError, KeyError, SafetensorError):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            return folder
        return None

    def restore_model(self, model: nn.Module) -> None:
        """Put the trained parameters back."""
        copy_parameters(model, self._part(_MODEL))

    def remove(self) -> None:
        """Nothing is resumed from here any more."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put optimizer, schedule, scaler and early stopping back."""
        self._saved_at = time.monotonic()
        if not self._facts:
            return
        _load_optimizer(kwargs["optimizer"], self._facts["learning_rates"], self._part(_OPTIMIZER))
        kwargs["lr_scheduler"].load_state_dict(self._facts["schedule"])
        if (scaler := self.scaler()) is not None:
            scaler.load_state_dict(self._facts["scaler"])
        if self._stopping is not None:
            self._stopping.restore(self._facts["stopping"], self._part(_BEST))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the random generators back, once the data that was seen already is skipped."""
        if self._facts:
            _restore_random(self._facts["python_random"], self._part(_RANDOM))
            self._facts, self._tensors = {}, {}

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save when it is time; the end of training needs no checkpoint."""
        due = time.monotonic() - self._saved_at >= self._seconds
        if self._seconds and due and state.global_step < state.max_steps and not control.should_training_stop:
            self._save(kwargs["model"], kwargs["optimizer"], kwargs["lr_scheduler"], state)
            self._saved_at = time.monotonic()

    def _save(self, model: nn.Module, optimizer: Any, schedule: Any, state: Any) -> None:
        stored = optimizer.state_dict()
        python_random, random_tensors = _random_state()
        tensors = {
            **_named(_MODEL, trained_parameters(model)),
            **_named(_OPTIMIZER, {f"{i}.{k}": v for i, values in stored["state"].items() for k, v in values.items()}),
            **_named(_RANDOM, random_tensors),
        }
        scaler = self.scaler()
        facts: dict[str, Any] = {
            "learning_rates": [group["lr"] for group in stored["param_groups"]],
            "schedule": schedule.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "python_random": python_random,
        }
        if self._stopping is not None:
            facts["stopping"], best = self._stopping.remembered()
            tensors |= _named(_BEST, best)
        self._folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=self._folder, prefix=".writing-"))
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, work / _TENSORS)
            state.save_to_json(str(work / _TRAINER))
            facts["digests"] = {name: digest_file(work / name) for name in (_TENSORS, _TRAINER)}
            (work / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
            for path in work.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            target = self._folder / f"step-{state.global_step:09d}"
            if not target.exists():
                os.replace(work, target)
            for old in self._folder.iterdir():
                if old != target:
                    shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: tensor for name, tensor in self._tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: Any, learning_rates: list[float], tensors: Mapping[str, Tensor]) -> None:
    current = optimizer.state_dict()
    for group, rate in zip(current["param_groups"], learning_rates, strict=True):
        group["lr"] = rate
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})


def _random_state() -> tuple[list[Any], dict[str, Tensor]]:
    kind, keys, position, has_gauss, cached = np.random.get_state()
    assert kind == "MT19937"
    tensors = {
        "numpy_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    version, words, gauss = random.getstate()
    return [version, list(words), gauss], tensors


def _restore_random(python_random: list[Any], tensors: Mapping[str, Tensor]) -> None:
    version, words, gauss = python_random
    random.setstate((version, tuple(words), gauss))
    position, has_gauss, cached = tensors["numpy_rest"].tolist()
    keys = tensors["numpy_keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
