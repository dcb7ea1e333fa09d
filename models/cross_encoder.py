"""Cross-encoders: fine-tuning with sentence-transformers, and scoring.

The large model starts from `training.base_model`; the compact one keeps chosen layers of the trained large model and is
trained on, with the large one as teacher.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.settings import TrainingSettings
from models.weights import local_weights

if TYPE_CHECKING:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder

Progress = Callable[[int, int], None]

FIRST_STAGE_SCALE = 10.0
"""Weight of the cosine similarity in the training offset: it spreads over about .5, so this makes it some logits."""
_MODEL_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class TrainingReport:
    """What a training run did."""

    parameters: int
    layers: int
    lists: int
    pairs: int
    steps: int
    loss: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss since the entry before)."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def train_large(
    examples: pd.DataFrame, settings: TrainingSettings, folder: Path, progress: Progress | None = None
) -> TrainingReport:
    """Fine-tune the large cross-encoder and save it to `folder` (safetensors, config, tokenizer, training.json)."""
    model = _open(str(local_weights(settings.base_model)), settings)
    _freeze(model, settings.frozen_layers)
    lists = _lists(examples, settings.large_pairs)
    return _train(model, lists, settings, folder, teacher_weight=0.0, progress=progress)


def train_compact(
    examples: pd.DataFrame, large: Path, settings: TrainingSettings, folder: Path, progress: Progress | None = None
) -> TrainingReport:
    """Train the compact cross-encoder: chosen layers of the large model, distilled from its scores. Saved like
    the large one."""
    lists = _lists(examples, settings.compact_pairs)
    if settings.teacher_weight:
        teacher = CrossEncoderScorer.load(large, settings.max_tokens, device=settings.device)
        pairs = [(item["query"], passage) for item in lists for passage in item["passages"]]
        logits = iter(teacher.logits(pairs).tolist())
        for item in lists:
            item["labels"] = [[label, first, first + next(logits)] for label, first, _ in item["labels"]]
    model = _open(str(large), settings)
    _keep_layers(model, settings.compact_layers)
    return _train(model, lists, settings, folder, teacher_weight=settings.teacher_weight, progress=progress)


def first_stage_offset(dense_scores: np.ndarray) -> np.ndarray:
    """What is added to the logit in training: the scaled cosine similarity."""
    return FIRST_STAGE_SCALE * np.asarray(dense_scores, dtype=np.float64)


class CrossEncoderScorer:
    """Scores (query, passage) pairs in batches of similar length. Only the passage is cut when a pair is too long."""

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int, device: torch.device) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        self.max_tokens = max_tokens

    @classmethod
    def load(cls, folder: Path, max_tokens: int, device: str = "cpu") -> CrossEncoderScorer:
        """Load from a local folder of safetensors, in inference mode."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        target = torch.device(resolve_device(device))
        model = AutoModelForSequenceClassification.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True
        )
        dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        return cls(model.to(target, dtype).eval(), tokenizer, max_tokens, target)

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Progress | None = None
    ) -> np.ndarray:
        """float32 [n] relevance logits, in the order of `pairs`."""
        import torch

        encoded = self.encode(pairs)
        order = sorted(range(len(pairs)), key=lambda i: len(encoded[i]))
        scores = np.empty(len(pairs), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                scores[rows] = self._forward([encoded[i] for i in rows])
                if progress is not None:
                    progress(min(start + batch_size, len(order)), len(order))
        return scores

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """Token ids of each pair, cut to `max_tokens`; a query may take half of them."""
        if not pairs:
            return []
        backend = self._tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(max_length=self.max_tokens // 2, strategy="longest_first")
        queries = {query: None for query, _ in pairs}
        cut = {
            query: query if len(encoding.overflowing) == 0 else query[: encoding.offsets[-2][1]]
            for query, encoding in zip(queries, backend.encode_batch(list(queries)), strict=True)
        }
        backend.enable_truncation(max_length=self.max_tokens, strategy="only_second")
        return backend.encode_batch([(cut[query], passage) for query, passage in pairs])

    def _forward(self, encodings: list[Any]) -> np.ndarray:
        import torch

        width = max(len(encoding) for encoding in encodings)
        ids = torch.zeros((len(encodings), width), dtype=torch.long)
        types = torch.zeros_like(ids)
        mask = torch.zeros_like(ids)
        ids.fill_(self._tokenizer.pad_token_id or 0)
        for row, encoding in enumerate(encodings):
            size = len(encoding)
            ids[row, :size] = torch.tensor(encoding.ids)
            types[row, :size] = torch.tensor(encoding.type_ids)
            mask[row, :size] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._tokenizer.model_input_names:
            inputs["token_type_ids"] = types
        output = self._model(**{name: tensor.to(self._device) for name, tensor in inputs.items()})
        return output.logits.float().squeeze(-1).cpu().numpy()


def resolve_device(device: str) -> str:
    """`auto` becomes cuda or mps where there is one, else cpu."""
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _open(source: str, settings: TrainingSettings) -> CrossEncoder:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder
    from transformers import set_seed

    set_seed(settings.seed)
    return CrossEncoder(
        source,
        num_labels=1,
        max_length=settings.max_tokens,
        device=resolve_device(settings.device),
        activation_fn=torch.nn.Identity(),
        model_kwargs={"use_safetensors": True},
        # Dropout costs a third of the time of a CPU step and showed no gain in runs this short.
        config_kwargs={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        if settings.dropout == 0
        else None,
    )


def _encoder_layers(model: CrossEncoder) -> tuple[Any, str]:
    """The module that holds the transformer layers, and the name of its list of layers."""
    base = model.model.base_model if model.model is not None else None
    for owner in (getattr(base, "encoder", None), getattr(base, "transformer", None), base):
        for name in ("layer", "layers"):
            if owner is not None and hasattr(owner, name):
                return owner, name
    raise ValueError(f"cannot find the layers of {type(base).__name__}")


def _freeze(model: CrossEncoder, count: int) -> None:
    if count == 0 or model.model is None:
        return
    owner, name = _encoder_layers(model)
    frozen = [model.model.base_model.embeddings, *list(getattr(owner, name))[:count]]
    for module in frozen:
        for parameter in module.parameters():
            parameter.requires_grad = False


def _keep_layers(model: CrossEncoder, layers: Sequence[int]) -> None:
    import torch

    owner, name = _encoder_layers(model)
    present = getattr(owner, name)
    if not layers or max(layers) >= len(present):
        raise ValueError(f"training.compact_layers: {list(layers)} are not layers of a model with {len(present)}")
    setattr(owner, name, torch.nn.ModuleList([present[i] for i in layers]))
    assert model.model is not None
    model.model.config.num_hidden_layers = len(layers)


def _lists(examples: pd.DataFrame, max_pairs: int) -> list[dict[str, Any]]:
    """One item per consecutive list (a positive and the negatives behind it), until `max_pairs` pairs."""
    starts = (examples["kind"] == "positive").cumsum()
    items: list[dict[str, Any]] = []
    pairs = 0
    for _, rows in examples.groupby(starts, sort=False):
        if pairs + len(rows) > max_pairs:
            break
        pairs += len(rows)
        offsets = first_stage_offset(rows["dense_score"].to_numpy())
        labels = [[float(label), float(offset), 0.0] for label, offset in zip(rows["label"], offsets, strict=True)]
        items.append({"query": rows["query"].iloc[0], "passages": rows["passage"].tolist(), "labels": labels})
    return items


def _train(
    model: CrossEncoder,
    lists: list[dict[str, Any]],
    settings: TrainingSettings,
    folder: Path,
    *,
    teacher_weight: float,
    progress: Progress | None,
) -> TrainingReport:
    import tempfile

    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from transformers import TrainerCallback

    from models.listwise_loss import ResidualListwiseLoss

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if progress is not None:
                progress(state.global_step, state.max_steps)

    steps = math.ceil(len(lists) / settings.batch_queries)
    on_gpu = resolve_device(settings.device) == "cuda"
    with tempfile.TemporaryDirectory() as scratch:
        arguments = CrossEncoderTrainingArguments(
            output_dir=scratch,
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch_queries,
            learning_rate=settings.learning_rate,
            warmup_steps=round(settings.warmup_share * steps),
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            weight_decay=0.01,
            max_grad_norm=1.0,
            seed=settings.seed,
            data_seed=settings.seed,
            bf16=on_gpu,
            use_cpu=resolve_device(settings.device) == "cpu",
            dataloader_pin_memory=False,
            logging_steps=max(1, steps // 20),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(lists),
            loss=ResidualListwiseLoss(model, teacher_weight),
            callbacks=[Report()],
        )
        trainer.train()
    history = [(int(entry["step"]), float(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry]
    assert model.model is not None
    owner, name = _encoder_layers(model)
    report = TrainingReport(
        parameters=sum(parameter.numel() for parameter in model.model.parameters()),
        layers=len(getattr(owner, name)),
        lists=len(lists),
        pairs=sum(len(item["passages"]) for item in lists),
        steps=trainer.state.global_step,
        loss=history,
    )
    model.model.save_pretrained(str(folder), safe_serialization=True)
    model.tokenizer.save_pretrained(str(folder))
    (folder / "training.json").write_text(json.dumps(report.to_dict()))
    return report
