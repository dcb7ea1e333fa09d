"""The model card of the small deployment's bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.contracts.tiers import MODEL_TIERS
from models.evaluation.report import read_report
from models.records.mlflow_registry import CHALLENGER, Tracking
from models.release.model_card import CARD, kinds_of_query, weights_licence
from models.release.registration import register_candidate, register_model
from models.store.durable_files import digest_file
from tests.small_bundle import Small


def test_it_says_how_the_models_were_made_what_they_do_well_and_where_not(small: Small) -> None:
    bundle = small.first.bundle
    card = bundle.path(CARD).read_text(encoding="utf-8")
    report = read_report(small.first.evaluation.folder)
    for name, result in report.systems.items():
        assert f"| {name} | {result.means['nDCG@10']:.4f} |" in card
        assert f"{result.low:.3f} to {result.high:.3f}" in card
    gain = report.gains["tiered"]
    assert f"| tiered | {gain.difference:+.4f} | {gain.low:+.4f} to {gain.high:+.4f} |" in card
    assert "## Where it gains least" in card
    assert "judged grade: 1" in card or "query length" in card
    assert "licence: apache-2.0" in card
    for name, version in bundle.manifest.inputs.items():
        assert f"`{version}`" in card, name
    assert digest_file(bundle.folder / "large" / "model.safetensors") in card
    layers = [str(small.first.rerankers[tier.name].summary["layers"]) for tier in reversed(MODEL_TIERS)]
    assert f"| layers | {' | '.join(layers)} |" in card
    assert all(line.count("|") >= 3 for line in card.splitlines() if line.startswith("|"))


def test_the_registry_holds_as_much_of_it_as_it_can(small: Small, tracking: Tracking) -> None:
    from mlflow import MlflowClient

    version, card = register_candidate(tracking, small.first.bundle)
    assert register_candidate(tracking, small.first.bundle) == (version, card), "it is registered once"
    assert tracking.alias(CHALLENGER) == version
    client = MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
    for text in (card, "short", card * 5):
        tracking.describe_version(version, text)
        result = str(client.get_model_version(tracking.model_name, version).description)
        assert result == text[: len(result)]
        assert len(result) == len(text) or 4000 < len(result) <= 5000


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model", "apache-2.0"),
        ("---\nlicense: 'mit'\n---\n", "mit"),
        ("---\nlanguage: en\n---\nlicense: not in the head", None),
        ("# Model\nlicense: mit", None),
        (None, None),
    ],
)
def test_a_licence_is_what_the_head_of_the_readme_states(
    tmp_path: Path, readme: str | None, licence: str | None
) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    assert weights_licence(tmp_path) == licence


def test_each_model_has_a_card_of_how_it_was_trained(small: Small, tracking: Tracking) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
    for size, artifact in small.first.rerankers.items():
        version = register_model(tracking, artifact, size, small.settings.training.model_dump())
        card = str(client.get_model_version(f"reranker-{size}", version).description)
        assert card.startswith(f"# {size.capitalize()} cross-encoder")
        assert "licence: apache-2.0" in card
        assert f"| training pairs | {artifact.summary['pairs']} |" in card
        assert digest_file(artifact.folder / "model.safetensors") in card
        for version in artifact.manifest.inputs.values():
            assert f"`{version}`" in card


def test_it_says_what_an_evaluation_on_pseudo_queries_is_worth() -> None:
    kinds = [{"kind": "title", "queries": 3, "means": {"lean": 0.5, "tiered": 0.75}}]
    evaluation = {"by_kind": kinds, "pseudo_only": True, "systems": {"lean": {}, "tiered": {}}}
    lines = kinds_of_query(evaluation)
    assert lines[0].startswith("**Judged on pseudo-queries only")
    assert "| title | 3 | 0.5000 | 0.7500 |" in lines
    given = {"kind": "given", "queries": 9, "means": {"lean": 0.4, "tiered": 0.5}}
    both = kinds_of_query({**evaluation, "by_kind": [given, *kinds], "pseudo_only": False})
    assert not any("pseudo-queries only" in line for line in both)
    assert [line for line in both if line.startswith("| given | 9 |")]
    assert kinds_of_query({**evaluation, "by_kind": [given], "pseudo_only": False}) == []
