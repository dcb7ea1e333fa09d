"""The model card of a bundle, from its parts (Mitchell et al., "Model cards for model reporting", FAT* 2019)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.contracts.tiers import LAST
from models.cross_encoder.passage_cut import FILE
from models.errors import ModelFileError
from models.evaluation.query_kinds import PSEUDO_ONLY
from models.measures.metrics import MAIN_MEASURE
from models.text.markdown import table_lines
from models.training.corpus_defaults import choices_of

if TYPE_CHECKING:
    from models.release.parts import BundleParts
    from models.settings import Settings
    from models.store.artifacts import Artifact

CARD = "MODEL_CARD.md"

_LICENSE = re.compile(r"^license:\s*(\S.*?)\s*$", re.MULTILINE)
_MEASURES = (MAIN_MEASURE, "MRR@10", "MAP", "R@10", "P@1")
_WORST = 5
_COUNTS = (
    ("parameters", "parameters"),
    ("layers", "layers"),
    ("training pairs", "pairs"),
    ("optimizer steps", "steps"),
)
"""What is counted, and its name in the report of a training."""

_LEAN_ALONE = (
    "**The release serves lean alone**: on the development queries, judged by scores fitted on the other half of them,",
    "the models did not rank better than the first stage.",
    "",
)

_LIMITS = (
    "The scores are probabilities of relevance for queries and passages like those it was calibrated on; on others "
    "they order, but their values mean less.",
    "A passage that the first stage did not retrieve is never shown, whatever the rerankers would say of it.",
    "Unjudged documents count as not relevant, so numbers are low where judgments are few.",
    "Texts longer than the models read are cut: the query keeps at most half of the tokens, the passage the rest.",
    "What the base weights learned, their languages and biases with it, stays in the models.",
    "It ranks text that it is given. It does not know who may read what: access labels are filtered in retrieval.",
)


def model_card(parts: BundleParts, settings: Settings, corpus_defaults: Artifact | None = None) -> str:
    """The card as Markdown: training data, settings, results with intervals, slices, limits, licence, digests."""
    evaluation = parts.offline_evaluation.read_json("report/evaluation.json")
    training, base = _training(parts), settings.training.base_model
    by_query = (parts.rerankers[LAST.name].folder / FILE).exists()
    read = "at its start and where the query's words stand" if by_query else "at its start"
    rows = [
        (
            name,
            *(f"{result[measure]:.4f}" for measure in _MEASURES),
            f"{result['interval'][0]:.3f} to {result['interval'][1]:.3f}",
        )
        for name, result in evaluation["systems"].items()
    ]
    worst = sorted(evaluation["slices"], key=lambda part: part["difference"])[:_WORST]
    slices = [
        (
            f"{part['by']}: {part['value']}",
            part["queries"],
            f"{part['candidate']:.3f}",
            f"{part['difference']:+.4f}",
            f"{part['low']:+.4f} to {part['high']:+.4f}",
        )
        for part in worst
    ]
    power = evaluation["power"]
    first_stage = parts.first_stage.summary
    errors = parts.score_calibration.read_json("calibration.json")["expected_calibration_error"]
    versions = [(name, f"`{version}`") for name, version in parts.versions().items()]
    lines = [
        f"# {settings.storage.model_name}: model card",
        "",
        "Cross-encoders that rerank what word and vector search find, in tiers under a time budget: each scores the",
        f"best of what the one before it scored ({', '.join(tier.name for tier in parts.models)}), with learned,",
        "calibrated scores.",
        "",
        f"Their candidates, and the answers of lean, which has no model, are ordered by `{first_stage['method']}`:",
        f"{first_stage['reason']}.",
        "",
        *(_LEAN_ALONE if parts.score_calibration.summary.get("lean_alone") else ()),
        "## Model",
        "",
        *table_lines(("", *(tier.name for tier in reversed(parts.models))), _models(parts)),
        "",
        f"Base weights: `{base}`, licence: {_licence(parts.rerankers[LAST.name], base)}.",
        f"At most {settings.training.max_tokens} tokens of query and passage together. Long passages are read {read}.",
        "",
        "## Intended use",
        "",
        "Ranking passages of the corpus it was trained on, or of one like it, for search and for retrieval-augmented",
        "answers. Not for decisions about people, and not as a judge of whether a text is true.",
        "",
        "## Training data",
        "",
        *table_lines(("artifact", "version"), [(name, f"`{version}`") for name, version in _inputs(parts).items()]),
        "",
        *table_lines(("setting", "value"), [(f"`{key}`", f"`{value}`") for key, value in training.items()]),
        "",
        *_defaults(corpus_defaults),
        "## Evaluation",
        "",
        *kinds_of_query(evaluation),
        f"{evaluation['queries']} test queries, which nothing was trained or fitted on. Intervals are bootstrap",
        f"intervals of {MAIN_MEASURE} at {evaluation['confidence']:.0%}.",
        "",
        *table_lines(("system", *_MEASURES, "interval"), rows),
        "",
        f"What the models add: over {evaluation['best_without_model']}, the best system without a model, in",
        f"{MAIN_MEASURE} (paired randomization test; the corrected p is for all comparisons of a table together):",
        "",
        *_gains(evaluation["gains"]),
        "",
        f"Over {evaluation['best_first_stage']}, the best fixed first stage; lean is the one that the development",
        "queries chose:",
        "",
        *_gains(evaluation["gains_over_first_stage"]),
        "",
        *_power(power),
        "## Where it gains least",
        "",
        *(
            table_lines(("slice", "queries", MAIN_MEASURE, "gained", "interval"), slices)
            if slices
            else ["Not looked at."]
        ),
        "",
        "## Calibration",
        "",
        "Expected calibration error on the development queries that the scores were fitted on: "
        + ", ".join(f"{name} {value:.3f}" for name, value in errors.items())
        + ".",
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in _LIMITS),
        "",
        "## Digests",
        "",
        *table_lines(("part", "data version"), versions),
        "",
        *table_lines(("file", "SHA-256"), _digests(parts)),
        "",
    ]
    return "\n".join(lines)


def training_card(artifact: Artifact, size: str, training: Mapping[str, Any]) -> str:
    """The card of one model alone, as it was trained; what it is worth is measured in the bundles that hold it."""
    summary = artifact.summary
    base = str(training.get("base_model", ""))
    counts = [(name, _count(summary.get(key))) for name, key in _COUNTS]
    digests = [
        (name, f"`{entry.sha256}`")
        for name, entry in sorted(artifact.manifest.files.items())
        if name.endswith(".safetensors")
    ]
    lines = [
        f"# {size.capitalize()} cross-encoder",
        "",
        f"Base weights: `{base}`, licence: {_licence(artifact if size == LAST.name else None, base)}.",
        "Its results are in the model cards of the bundles that hold it, with their intervals, slices and limits.",
        "",
        *table_lines(("", "count"), counts),
        "",
        *table_lines(
            ("made from", "version"), [(name, f"`{version}`") for name, version in artifact.manifest.inputs.items()]
        ),
        "",
        *table_lines(
            ("setting", "value"), [(f"`{key}`", f"`{setting}`") for key, setting in artifact.manifest.settings.items()]
        ),
        "",
        *table_lines(("file", "SHA-256"), digests),
        "",
    ]
    return "\n".join(lines)


def weights_licence(folder: Path) -> str | None:
    """The licence that the README of a model's folder states in its head, as on Hugging Face; None without one."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    text = readme.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return None
    match = _LICENSE.search(text.split("\n---", 1)[0])
    return match[1].strip("'\"") if match else None


def _licence(large: Artifact | None, base_model: str) -> str:
    """The licence of the base weights, if these are still those that `large`, where it is given, was made from."""
    from models.weights import resolve_weights, weights_digest

    unknown = "not stated with the weights"
    if not base_model:
        return unknown
    try:
        location = resolve_weights(base_model)
        made_from = large and large.manifest.inputs.get("weights")
        if not isinstance(location, Path) or (made_from and weights_digest(location) != made_from):
            return unknown
    except ModelFileError:
        return unknown
    return weights_licence(location) or unknown


def _models(parts: BundleParts) -> list[tuple[str, ...]]:
    models = [parts.rerankers[tier.name] for tier in reversed(parts.models)]
    table = [(name, *(_count(model.summary.get(key)) for model in models)) for name, key in _COUNTS]
    return [*table, ("code version", *(f"`{model.manifest.code_version}`" for model in models))]


def _training(parts: BundleParts) -> dict[str, Any]:
    return _merged(parts.rerankers[tier.name].manifest.settings for tier in parts.models)


def _inputs(parts: BundleParts) -> dict[str, str]:
    named = (parts.passages, parts.evaluation_set)
    inputs = _merged(parts.rerankers[tier.name].manifest.inputs for tier in parts.models)
    return {part.asset: part.data_version for part in named} | inputs


def kinds_of_query(evaluation: Mapping[str, Any]) -> list[str]:
    """What the evaluation is worth, where its queries are made from the text."""
    kinds = evaluation["by_kind"]
    warning = [f"**{PSEUDO_ONLY}**", ""] if evaluation["pseudo_only"] else []
    if not warning and len(kinds) < 2:
        return []
    systems = list(evaluation["systems"])
    rows = [(kind["kind"], kind["queries"], *(f"{kind['means'][name]:.4f}" for name in systems)) for kind in kinds]
    return [
        *warning,
        f"Mean {MAIN_MEASURE} by kind of query:",
        "",
        *table_lines(("kind", "queries", *systems), rows),
        "",
    ]


def _defaults(corpus_defaults: Artifact | None) -> list[str]:
    choices = {} if corpus_defaults is None else choices_of(corpus_defaults)
    if not choices:
        return []
    rows = [(f"`{key}`", choice.value, choice.reason) for key, choice in choices.items()]
    return [
        "Chosen for this corpus, where the settings say auto:",
        "",
        *table_lines(("setting", "value", "because"), rows),
        "",
    ]


def _merged(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All tables as one, a later one before an earlier one, in the order of their keys."""
    merged = {key: value for table in tables for key, value in table.items()}
    return {key: merged[key] for key in sorted(merged)}


def _digests(parts: BundleParts) -> list[tuple[str, str]]:
    models = {tier.name: parts.rerankers[tier.name] for tier in reversed(parts.models)}
    models["encoder"] = parts.passage_embeddings
    return [
        (f"{name}/{file.removeprefix('encoder/')}", f"`{entry.sha256}`")
        for name, artifact in models.items()
        for file, entry in sorted(artifact.manifest.files.items())
        if file.endswith(".safetensors")
    ]


def _power(power: Mapping[str, Any] | None) -> list[str]:
    if power is None:
        return []
    return [
        f"This many queries show a difference from {power['detectable']:.4f} up between {power['candidate']} and",
        f"{power['baseline']} with {power['power']:.0%} power at level {power['alpha']}.",
        "",
    ]


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _gains(gains: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            name,
            f"{gain['difference']:+.4f}",
            f"{gain['low']:+.4f} to {gain['high']:+.4f}",
            _p(gain["p_value"]),
            _p(gain["p_corrected"]),
            f"{gain['improved']} / {gain['hurt']}",
        )
        for name, gain in gains.items()
    ]
    return table_lines(("system", "gained", "interval", "p", "corrected p", "improved / hurt"), rows)


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
