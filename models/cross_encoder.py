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

from models.pair_tokens import PairTokenizer
from models.settings import TrainingSettings
from models.weights import local_weights

if TYPE_CHECKING:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder
    from tokenizers import Encoding

Progress = Callable[[int, int], None]

HEAD_PARAMETERS = r"(.*\.)?(interaction|first_token|classifier)(\..*)?"
"""Names of the parameters that start untrained, and so learn at `training.head_learning_rate`."""


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
    model = _open(local_weights(settings.base_model), settings)
    _freeze(model, settings.frozen_layers)
    lists = _lists(examples, settings.large_pairs)
    return _train(model, lists, settings, folder, teacher_weight=0.0, progress=progress)


def train_compact(
    examples: pd.DataFrame, large: Path, settings: TrainingSettings, folder: Path, progress: Progress | None = None
) -> TrainingReport:
    """Train the compact cross-encoder: chosen layers of the large model, distilled from its scores. Saved like
    the large one."""
    lists = _lists(examples, settings.compact_pairs, skip_pairs=settings.large_pairs)
    if settings.teacher_weight:
        teacher = CrossEncoderScorer.load(large, settings.max_tokens, device=settings.device)
        pairs = [(item["query"], passage) for item in lists for passage in item["passages"]]
        logits = iter(teacher.logits(pairs).tolist())
        for item in lists:
            item["labels"] = [[label, next(logits)] for label, _ in item["labels"]]
    model = _open(large, settings)
    _keep_layers(model, settings.compact_layers)
    return _train(model, lists, settings, folder, teacher_weight=settings.teacher_weight, progress=progress)


class CrossEncoderScorer:
    """Scores (query, passage) pairs in batches of similar length. Only the passage is cut when a pair is too long."""

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
        from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

        from models.pair_head import FOLDER, PairHead

        target = torch.device(resolve_device(device))
        dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
        has_head = (folder / FOLDER).is_dir()
        kind = AutoModel if has_head else AutoModelForSequenceClassification
        model = kind.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
        head = PairHead.load(str(folder), FOLDER, local_files_only=True).to(target).eval() if has_head else None
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        return cls(model.to(target, dtype).eval(), head, PairTokenizer(tokenizer, max_tokens), target)

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Progress | None = None
    ) -> np.ndarray:
        """float32 [n] relevance logits, in the order of `pairs`."""
        return self.logits_of(self.encode(pairs), batch_size, progress)

    def logits_of(
        self, encoded: Sequence[Encoding], batch_size: int = 32, progress: Progress | None = None
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

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Encoding]:
        """Token ids of each pair, cut to `max_tokens`; a query may take half of them."""
        return self.tokenizer.encode(pairs)

    def _forward(self, encodings: list[Encoding]) -> np.ndarray:
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


def reduced_precision(settings: TrainingSettings) -> bool:
    """Whether matrices are multiplied in bfloat16, weights staying in float32: by setting, or where `auto` finds a GPU
    or a CPU with instructions for it, which halves the time of a step."""
    import torch

    if settings.precision != "auto":
        return settings.precision == "bf16"
    device = resolve_device(settings.device)
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device == "cuda" and torch.cuda.is_bf16_supported()


def _open(source: Path, settings: TrainingSettings) -> CrossEncoder:
    """A model to train: one that has a classification or pair head keeps it, any other gets a new pair head."""
    import torch
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder import CrossEncoder
    from transformers import AutoConfig, set_seed

    from models.pair_head import FOLDER, PairHead

    set_seed(settings.seed)
    common: dict[str, Any] = {"device": resolve_device(settings.device), "activation_fn": torch.nn.Identity()}
    weights = {"use_safetensors": True}
    # Dropout costs a third of the time of a CPU step and showed no gain in runs this short.
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if settings.dropout == 0 else {}
    architectures = AutoConfig.from_pretrained(str(source), local_files_only=True).architectures or [""]
    if architectures[0].endswith("ForSequenceClassification"):
        return CrossEncoder(
            str(source),
            num_labels=1,
            max_length=settings.max_tokens,
            model_kwargs=weights,
            config_kwargs=quiet or None,
            local_files_only=True,
            **common,
        )
    body = Transformer(
        str(source),
        transformer_task="feature-extraction",
        max_seq_length=settings.max_tokens,
        model_kwargs={**weights, "local_files_only": True},
        config_kwargs={**quiet, "local_files_only": True},
    )
    if (source / FOLDER).is_dir():
        head = PairHead.load(str(source), FOLDER, local_files_only=True)
    else:
        tokenizer: Any = body.tokenizer
        head = PairHead(int(body.model.config.hidden_size), tokenizer.sep_token_id, sorted(tokenizer.all_special_ids))
    return CrossEncoder(modules=[body, head], **common)


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


def _lists(examples: pd.DataFrame, max_pairs: int, skip_pairs: int = 0) -> list[dict[str, Any]]:
    """One item per consecutive list (a positive and the negatives behind it), until `max_pairs` pairs.

    It starts behind the first `skip_pairs` pairs and goes on at the beginning when the lists run out: what a teacher
    was trained on comes last, since its scores there are too sure to be worth learning from.
    """
    starts = (examples["kind"] == "positive").cumsum()
    groups = [rows for _, rows in examples.groupby(starts, sort=False)]
    ends = np.cumsum([len(rows) for rows in groups])
    first = int(np.searchsorted(ends, skip_pairs, side="right")) if skip_pairs else 0
    items: list[dict[str, Any]] = []
    pairs = 0
    for rows in groups[first:] + groups[:first]:
        if pairs + len(rows) > max_pairs:
            break
        pairs += len(rows)
        labels = [[float(label), 0.0] for label in rows["label"]]
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

    from models.listwise_loss import ListwiseLoss

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if progress is not None:
                progress(state.global_step, state.max_steps)

    steps = math.ceil(len(lists) / settings.batch_queries)
    pairs = PairTokenizer(model.tokenizer, settings.max_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = CrossEncoderTrainingArguments(
            output_dir=scratch,
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch_queries,
            learning_rate=settings.learning_rate,
            learning_rate_mapping={HEAD_PARAMETERS: settings.head_learning_rate},
            warmup_steps=round(settings.warmup_share * steps),
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            weight_decay=0.01,
            max_grad_norm=1.0,
            seed=settings.seed,
            data_seed=settings.seed,
            bf16=reduced_precision(settings),
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
            loss=ListwiseLoss(model, pairs, teacher_weight),
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
    model.save_pretrained(str(folder), create_model_card=False)
    (folder / "training.json").write_text(json.dumps(report.to_dict()))
    return report
