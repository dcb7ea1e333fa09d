"""Fine-tuning of cross-encoders with sentence-transformers.

The large model starts from `training.base_model`. A student, the model of an earlier tier, keeps chosen layers of the
trained large model or starts from weights of its own, and is trained on with the large one as teacher.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.contracts.tiers import TierSpec
from models.cross_encoder.architecture import (
    answers,
    freeze,
    keep_layers,
    open_cross_encoder,
    token_limit,
    transformer,
    transformer_layers,
)
from models.cross_encoder.bfloat16 import has_bfloat16_instructions
from models.cross_encoder.pair_template import PairTemplate
from models.cross_encoder.pair_tokenizer import PairTokenizer
from models.cross_encoder.pairwise import Progress
from models.cross_encoder.passage_cut import PassageCut
from models.cross_encoder.scorer import resolve_device
from models.errors import SettingsError
from models.settings import Student, TrainingSettings, chosen
from models.weights import local_weights

if TYPE_CHECKING:
    from sentence_transformers.cross_encoder import CrossEncoder

    from models.training.ranking_loss import Teacher

HEAD_PARAMETERS = r"(.*\.)?(interaction|first_token)(\..*)?"
"""Names of the parameters of a pair head, which starts untrained, and so learns at `training.head_learning_rate`. The
head that a cross-encoder comes with is trained already."""


@dataclass(frozen=True)
class TrainingReport:
    """What a training run did. `parameters` counts those of the head too."""

    parameters: int
    layers: int
    lists: int
    pairs: int
    steps: int
    loss: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss since the entry before)."""
    development: list[tuple[int, float]] = field(default_factory=list)
    """(step, nDCG@10 of the development lists), where they were measured."""
    best_step: int = 0
    """The step whose weights were kept, where development lists were measured; 0 is the last one."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def train_large(
    examples: pd.DataFrame,
    settings: TrainingSettings,
    folder: Path,
    progress: Progress | None = None,
    *,
    development: pd.DataFrame | None = None,
    checkpoints: Path | None = None,
) -> TrainingReport:
    """Fine-tune the large cross-encoder and save it to `folder` (safetensors, config, tokenizer, training.json).

    `examples` are under `contracts.TrainingExamples`; `development` has the same columns, a list for each query, and is
    read where `training.early_stopping` is set. With `training.large_pairs` 0 the weights stay as they are.
    `checkpoints`, a folder for this computation alone, lets a call after a run that was killed go on from its last
    checkpoint. Raises `SettingsError` for layers that the model does not have.
    """
    require_layers(settings, ())
    model = _open(local_weights(settings.base_model), settings)
    freeze(transformer(model), settings.frozen_layers)
    lists = _lists(examples, chosen(settings.large_pairs))
    cut = None
    if chosen(settings.passage_cut) == "query":
        read = lists or [*_whole_lists(examples), *_whole_lists(development)]
        cut = PassageCut.fit(dict.fromkeys(passage for item in read for passage in item["passages"]))
    pairs = _pairs_of(model, settings, cut)
    if settings.large_pairs == 0:
        return _keep(model, pairs, folder)
    return _train(model, pairs, lists, settings, folder, None, progress, development, checkpoints)


def train_student(
    tier: str,
    examples: pd.DataFrame,
    large: Path,
    settings: TrainingSettings,
    folder: Path,
    progress: Progress | None = None,
    *,
    logged: pd.DataFrame | None = None,
    development: pd.DataFrame | None = None,
    checkpoints: Path | None = None,
) -> TrainingReport:
    """Train the cross-encoder of `tier`, distilled from the scores of the large one in the folder `large`.

    It starts from chosen layers of the large model, or from weights of its own. The lowest ones of them that were not
    trained in the large model are not trained here either, and teacher and student read by them once. `logged` are
    lists without judgments (`query_id`, `query`, `passage`), learned from the teacher alone. What is too long it reads
    as the large one does. Otherwise as `train_large`.
    """
    student = settings.students[tier]
    lists = _lists(examples, student.pairs, skip_pairs=chosen(settings.large_pairs))
    teacher = None
    if student.pairs and settings.distillation != "none" and settings.teacher_weight:
        lists += _whole_lists(logged, unjudged=True)
        teacher = _open_teacher(large, settings, own_tokens=bool(student.base_model))
    if student.base_model:
        model = _open(local_weights(student.base_model), settings)
    else:
        model = _open(large, settings)
        _require_layers_to_keep(student, transformer(model).config.num_hidden_layers)
        keep_layers(transformer(model), student.layers)
        untrained = untrained_layers(student, settings.frozen_layers)
        freeze(transformer(model), untrained)
        if teacher is not None and not _drops(model):
            _read_once(model, teacher.model, untrained)
    pairs = _pairs_of(model, settings, PassageCut.load(large))
    if student.pairs == 0:
        return _keep(model, pairs, folder)
    return _train(model, pairs, lists, settings, folder, teacher, progress, development, checkpoints)


def require_layers(settings: TrainingSettings, distilled: Iterable[TierSpec]) -> None:
    """Raise `SettingsError` where the settings, also of the `distilled` models, name layers that the large model does
    not have.

    It only reads the model's configuration, so that this shows before the large model is trained.
    """
    config_file = local_weights(settings.base_model) / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    count = next((config[name] for name in ("num_hidden_layers", "n_layers", "num_layers") if name in config), None)
    if count is None:
        return
    for tier in distilled:
        _require_layers_to_keep(settings.students[tier.name], count)
    if settings.frozen_layers > count:
        raise SettingsError(
            f"training.frozen_layers: {settings.frozen_layers} are more than the {count} layers of "
            f"{settings.base_model}",
            f"Set it to {count} or less.",
        )


def _require_layers_to_keep(student: Student, count: int) -> None:
    if not student.base_model and max(student.layers) >= count:
        raise SettingsError(
            f"training.{student.tier}_layers: {list(student.layers)} are not layers of a model with {count}",
            f"Layers are counted from 0; the last one is {count - 1}.",
        )


def untrained_layers(student: Student, frozen: int) -> int:
    """How many layers of a student stay untrained: its lowest, as far as they are the large one's lowest and among the
    `frozen` ones there; none where that would be all of them."""
    return next((i for i, layer in enumerate(student.layers) if layer != i or i >= frozen), 0)


def mixed_precision(settings: TrainingSettings) -> str:
    """What matrices are multiplied in, weights staying in float32: fp32, bf16 or fp16.

    By setting; `auto` takes bfloat16 where a GPU or CPU has instructions for it, which halves the time of a step.
    Raises `SettingsError` for fp16 without a GPU.
    """
    import torch

    device = resolve_device(settings.device)
    if settings.precision == "fp16" and device != "cuda":
        raise SettingsError(f"training.precision: fp16 is for a GPU, and the device is {device}", "Set it to auto.")
    if settings.precision != "auto":
        return settings.precision
    if device == "cpu":
        return "bf16" if has_bfloat16_instructions() else "fp32"
    return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def _open(source: Path, settings: TrainingSettings) -> CrossEncoder:
    """A model to train: one that scores pairs keeps its head, any other gets a new pair head."""
    from transformers import set_seed

    set_seed(settings.seed)
    # Dropout costs a third of the time of a CPU step and showed no gain in runs this short.
    model = open_cross_encoder(source, resolve_device(settings.device), dropout=settings.dropout > 0)
    if settings.prompt:
        model.prompts, model.default_prompt_name = {**model.prompts, "rerank": settings.prompt}, "rerank"
    body = transformer(model)
    limit = token_limit(body.config)
    if chosen(settings.max_tokens) > limit:
        raise SettingsError(
            f"training.max_tokens is {settings.max_tokens}, but {source.name} reads {limit} tokens",
            f"Set it to {limit} or less.",
        )
    if model.device.type == "cpu":
        from models.training.cpu_attention import use_products

        use_products(body)
    return model


def _pairs_of(model: CrossEncoder, settings: TrainingSettings, cut: PassageCut | None) -> PairTokenizer:
    pairs = PairTokenizer(model.tokenizer, chosen(settings.max_tokens), cut, PairTemplate.of(model))
    model.tokenizer.model_max_length = pairs.longest
    return pairs


def _drops(model: CrossEncoder) -> bool:
    """Whether it has dropout in training, by its configuration."""
    rates = [value for name, value in transformer(model).config.to_dict().items() if "drop" in name]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _read_once(student: CrossEncoder, teacher: CrossEncoder, count: int) -> None:
    """Let the lowest `count` layers of the teacher, which are the student's, give what the student's gave just before.

    The teacher can then read nothing but what the student has read.
    """
    if count == 0:
        return
    read: dict[str, Any] = {}

    def keep(module: Any, inputs: Any, states: Any) -> None:
        read["found"] = states

    def give(*args: Any, **kwargs: Any) -> Any:
        return read["found"]

    owner, name = transformer_layers(transformer(student))
    getattr(owner, name)[count - 1].register_forward_hook(keep)
    owner, name = transformer_layers(transformer(teacher))
    for layer in getattr(owner, name)[:count]:
        layer.forward = give


def _lists(examples: pd.DataFrame, max_pairs: int, skip_pairs: int = 0) -> list[dict[str, Any]]:
    """One item per consecutive list (a positive and the passages behind it), until `max_pairs` pairs.

    It starts behind the first `skip_pairs` pairs and goes on at the beginning when the lists run out: what a teacher
    was trained on comes last, since its scores there are too sure to be worth learning from.
    """
    starts = np.flatnonzero((examples["kind"] == "positive").to_numpy())
    sizes = np.diff(np.append(starts, len(examples)))
    first = int(np.searchsorted(np.cumsum(sizes), skip_pairs, side="right")) if skip_pairs else 0
    queries, passages, labels = (examples[name].tolist() for name in ("query", "passage", "label"))
    items: list[dict[str, Any]] = []
    pairs = 0
    for number in [*range(first, len(starts)), *range(first)]:
        start, size = int(starts[number]), int(sizes[number])
        if pairs + size > max_pairs:
            break
        pairs += size
        rows = slice(start, start + size)
        items.append(_item(queries[start], passages[rows], labels[rows]))
    return items


def _whole_lists(table: pd.DataFrame | None, unjudged: bool = False) -> list[dict[str, Any]]:
    """One item per query of a table; `unjudged` lists have no relevance."""
    if table is None:
        return []
    items = []
    for _, rows in table.groupby("query_id", sort=False):
        labels = [math.nan] * len(rows) if unjudged else rows["label"].tolist()
        items.append(_item(rows["query"].iloc[0], rows["passage"].tolist(), labels))
    return items


def _item(query: str, passages: list[str], labels: Sequence[float]) -> dict[str, Any]:
    """A list as the trainer reads it."""
    return {"query": query, "passages": passages, "labels": [float(label) for label in labels]}


def _open_teacher(large: Path, settings: TrainingSettings, *, own_tokens: bool) -> Teacher:
    """The large model to learn from, with its own tokens where the student has others."""
    import torch

    from models.training.ranking_loss import Teacher

    model = _open(large, settings).eval()
    model.requires_grad_(False)
    own = PairTokenizer.load(large, chosen(settings.max_tokens)) if own_tokens else None
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return Teacher(model, own, dtypes[mixed_precision(settings)])


def _keep(model: CrossEncoder, pairs: PairTokenizer, folder: Path) -> TrainingReport:
    """Save a model as it is: weights that were trained elsewhere, or layers of them."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report = TrainingReport(parameters, transformer(model).config.num_hidden_layers, lists=0, pairs=0, steps=0)
    _save(model, pairs, folder, report)
    return report


def _add_adapters(model: CrossEncoder, rank: int) -> Any:
    """Train low-rank matrices beside those of the layers, and the head, instead of all weights (LoRA, Hu et al., 2022).

    What comes back merges them into the weights. Raises `SettingsError` where the library is missing.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise SettingsError(
            "training.lora_rank needs the library peft", "Run: pip install 'rerankops[lora]'"
        ) from error
    from torch.nn import Linear

    body = transformer(model)
    base = body.base_model
    # Layers that are frozen stay so: teacher and student read by them once.
    matrices = {id(module) for module in base.modules() if isinstance(module, Linear) and module.weight.requires_grad}
    names = [name for name, module in body.named_modules() if id(module) in matrices]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what it has renamed
        adapters = get_peft_model(body, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names))
    heads = [child for child in body.children() if base is not body and child is not base]
    for module in () if answers(model) else heads:
        module.requires_grad_(True)
    return adapters


def _train(
    model: CrossEncoder,
    pairs: PairTokenizer,
    lists: list[dict[str, Any]],
    settings: TrainingSettings,
    folder: Path,
    teacher: Teacher | None,
    progress: Progress | None,
    development: pd.DataFrame | None,
    checkpoints: Path | None,
) -> TrainingReport:
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from transformers import PrinterCallback, TrainerCallback

    from models.cross_encoder.pair_head import PairHead
    from models.training.checkpoints import TrainingCheckpoints
    from models.training.early_stopping import EarlyStopping
    from models.training.ranking_loss import RankingLoss

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if progress is not None:
                progress(state.global_step, state.max_steps)

    class Trainer(CrossEncoderTrainer):
        def _load_from_checkpoint(self, checkpoint_path: str) -> None:
            assert saved is not None
            saved.restore_model(self.model)

    if not lists:
        raise SettingsError(
            "there are no examples to train on",
            "Judge training queries, set training.pseudo_queries, or take the weights as they are: training."
            "large_pairs = 0 and compact_pairs = 0.",
        )
    adapters = None if settings.lora_rank == 0 else _add_adapters(model, settings.lora_rank)
    steps = math.ceil(len(lists) / settings.batch_queries)
    if settings.gradient_checkpointing:
        transformer(model).activation_checkpointing_enable()
    stopping = None
    if settings.early_stopping and development is not None and len(development):
        lists_of_dev = _whole_lists(development)[: settings.development_queries]
        stopping = EarlyStopping(lists_of_dev, pairs, settings.early_stopping, settings.evaluations)
    saved = None if checkpoints is None else TrainingCheckpoints(checkpoints, settings.checkpoint_minutes, stopping)
    precision = mixed_precision(settings)
    head_rate = {HEAD_PARAMETERS: settings.head_learning_rate} if isinstance(model[-1], PairHead) else None
    with tempfile.TemporaryDirectory() as scratch:
        arguments = CrossEncoderTrainingArguments(
            output_dir=scratch,
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch_queries,
            learning_rate=settings.learning_rate,
            learning_rate_mapping=head_rate,
            warmup_steps=round(settings.warmup_share * steps),
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            weight_decay=0.01,
            max_grad_norm=1.0,
            seed=settings.seed,
            data_seed=settings.seed,
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            use_cpu=resolve_device(settings.device) == "cpu",
            dataloader_pin_memory=False,
            logging_steps=max(1, steps // 20),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(lists),
            loss=RankingLoss(
                model,
                pairs,
                teacher,
                settings.teacher_weight,
                objective=settings.loss,
                distillation=settings.distillation,
                chunk_pairs=settings.chunk_pairs,
            ),
            # Checkpoints come last: they keep what early stopping has measured at the same step.
            callbacks=[callback for callback in (Report(), stopping, saved) if callback is not None],
        )
        trainer.remove_callback(PrinterCallback)
        resumed = None
        if saved is not None:
            saved.scaler = lambda: getattr(trainer.accelerator, "scaler", None)
            resumed = saved.latest()
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    if stopping is not None:
        stopping.restore_best(model)
    if settings.gradient_checkpointing:
        transformer(model).activation_checkpointing_disable()
    if adapters is not None:
        adapters.merge_and_unload()
    history = [(int(entry["step"]), float(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry]
    report = TrainingReport(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=transformer(model).config.num_hidden_layers,
        lists=len(lists),
        pairs=sum(len(item["passages"]) for item in lists),
        steps=trainer.state.global_step,
        loss=history,
        development=[] if stopping is None else stopping.history,
        best_step=0 if stopping is None else stopping.best_step,
    )
    _save(model, pairs, folder, report)
    if saved is not None:
        saved.remove()
    return report


def _save(model: CrossEncoder, pairs: PairTokenizer, folder: Path, report: TrainingReport) -> None:
    model.save_pretrained(str(folder), create_model_card=False)
    pairs.save(folder)
    (folder / "training.json").write_text(json.dumps(report.to_dict()))
