"""What the code location holds: what a person sees in the UI, and what Dagster does not check when it loads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from assets import keys
from models.release.gate import RULES
from models.settings import ROOT, load_settings
from orchestration.definitions import defs
from tests.declared_steps import declared_steps
from tests.patience import PATIENCE_S

GRAPH = defs.resolve_asset_graph()
JOBS = {job.name: job for job in defs.resolve_all_job_defs()}
ASSETS = {
    "corpus": {"passages", "queries", "judgments", "quarantined_rows", "evaluation_set"},
    "index": {"passage_embeddings", "dense_index", "lexical_index", "first_stage", "corpus_defaults", "candidates"},
    "training": {"training_examples", "logged_lists", "large_reranker", "compact_reranker", "scoring_engines"},
    "evaluation": {
        "scored_candidates", "score_calibration", "offline_evaluation", "champion_evaluation", "latency_profile",
    },
    "release": {"release_candidate", "gate_decision", "release"},
    "serving": {"online_scoring"},
    "monitoring": {"decision_log", "drift_report"},
}  # fmt: skip
DECIDED_ANEW = {keys.GATE_DECISION, keys.RELEASE, keys.ONLINE_SCORING}
"""Assets that look at the world each time: the ledger, the service. The others have a code version."""
BLOCKING = {
    keys.PASSAGES: {"contract", "rejected_share", "expectations"},
    keys.QUERIES: {"contract", "splits_are_disjoint", "expectations"},
    keys.JUDGMENTS: {"contract", "references_resolve", "expectations"},
    keys.QUARANTINED_ROWS: {"contract", "corrections_contract"},
    keys.EVALUATION_SET: {"queries_contract", "judgments_contract", "expectations"},
    keys.DENSE_INDEX: {"recall"},
    keys.CANDIDATES: {"contract", "training_contract"},
    keys.TRAINING_EXAMPLES: {
        "contract", "development_contract", "excluded_queries_contract", "no_evaluation_query_in_training",
    },
    keys.LOGGED_LISTS: {"contract", "excluded_queries_contract", "no_evaluation_query_in_training"},
    keys.DECISION_LOG: {"contract"},
    keys.GATE_DECISION: {rule.group for rule in RULES},
}  # fmt: skip
NOT_BLOCKING = {
    **{key: {"expectation_warnings"} for key in (keys.PASSAGES, keys.QUERIES, keys.JUDGMENTS, keys.EVALUATION_SET)},
    keys.DRIFT_REPORT: {"drift_share"},
    keys.ONLINE_SCORING: {"service_serves_release"},
}


def names(result: Iterable[dg.AssetKey]) -> set[str]:
    return {key.to_user_string() for key in result}


def spec_of(key: dg.AssetKey) -> dg.AssetSpec:
    return next(spec for spec in defs.resolve_all_asset_specs() if spec.key == key)


ALL = [dg.AssetKey([group, noun]) for group, nouns in ASSETS.items() for noun in sorted(nouns)]
each_asset = pytest.mark.parametrize("key", ALL, ids=lambda key: key.to_user_string())


def test_the_assets_are_those_of_the_design_and_nothing_else() -> None:
    assert names(GRAPH.get_all_asset_keys()) == names(ALL)
    assert names(GRAPH.materializable_asset_keys) == names(ALL), "no asset stands for one that nobody makes"


def test_nothing_refers_to_an_asset_that_nobody_defines() -> None:
    """Dagster takes a misspelt key in `deps`, `ins` or a check for an asset of someone else, and loads."""
    built = {key for assets in defs.resolve_asset_graph().assets_defs for key in assets.keys}
    asked = {key: GRAPH.get(key).parent_keys for key in built}
    assert {key: names(parents - built) for key, parents in asked.items() if parents - built} == {}
    assert names({check.asset_key for check in GRAPH.asset_check_keys} - built) == set()
    for check in (check for item in defs.asset_checks or () for check in getattr(item, "check_specs", ())):
        assert names({dep.asset_key for dep in check.additional_deps} - built) == set(), check.name


@each_asset
def test_each_asset_says_what_it_is(key: dg.AssetKey) -> None:
    spec = spec_of(key)
    assert spec.group_name == key.path[0]
    assert spec.owners == ["team:ranking"]
    assert len(spec.description or "") > 20
    assert 1 <= len(spec.kinds) <= 3, "the UI shows three"
    assert all(kind == kind.lower() for kind in spec.kinds)
    assert (spec.code_version is None) == (key in DECIDED_ANEW)


def test_each_asset_has_the_version_of_the_step_that_makes_it() -> None:
    steps = {step.name: step for step in declared_steps()}
    shown = {keys.artifact_name(spec.key): spec.code_version for spec in defs.resolve_all_asset_specs()}
    decided_anew = {keys.artifact_name(key) for key in DECIDED_ANEW}
    assert {name: version for name, version in shown.items() if version} == {
        name: step.code_version for name, step in steps.items() if name in shown and name not in decided_anew
    }


def test_no_asset_or_check_lists_modules_by_hand() -> None:
    """A code version is a step's: it is computed nowhere else but for the keys of cached scores."""
    exempt = ROOT / "models" / "serving" / "engines.py"
    for folder in ("assets", "checks", "orchestration", "models"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.parent != ROOT / "models" / "store" and path != exempt:
                assert "code_version(" not in path.read_text(encoding="utf-8"), path


@each_asset
def test_the_checks_of_each_asset(key: dg.AssetKey) -> None:
    response = {check.name: GRAPH.get(check) for check in GRAPH.asset_check_keys if check.asset_key == key}
    assert set(response) == BLOCKING.get(key, set()) | NOT_BLOCKING.get(key, set())
    assert {name for name, node in response.items() if node.blocking} == BLOCKING.get(key, set())
    assert all(len(node.description or "") > 10 for node in response.values())


def test_freshness_pools_and_retries_are_where_they_are_meant_to_be() -> None:
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    fresh = {key for key, spec in specs.items() if spec.freshness_policy is not None}
    assert names(fresh) == names({keys.RELEASE, keys.DECISION_LOG, keys.DRIFT_REPORT})
    pools: dict[str, set[dg.AssetKey]] = {}
    retried: set[dg.AssetKey] = set()
    for assets in GRAPH.assets_defs:
        for pool in assets.op.pools if assets.keys else ():
            pools.setdefault(pool, set()).update(assets.keys)
        if assets.keys and assets.op.retry_policy is not None:
            retried |= set(assets.keys)
    assert {pool: names(result) for pool, result in pools.items()} == {
        "models": names(
            {
                keys.PASSAGE_EMBEDDINGS, keys.FIRST_STAGE, keys.CORPUS_DEFAULTS, keys.CANDIDATES, *keys.RERANKERS,
                keys.SCORING_ENGINES, keys.SCORED_CANDIDATES, keys.CHAMPION_EVALUATION, keys.LATENCY_PROFILE,
            }
        ),
        "registry": names({keys.RELEASE_CANDIDATE, keys.RELEASE}),
    }  # fmt: skip
    reading = {keys.PASSAGES, keys.QUERIES, keys.JUDGMENTS, keys.QUARANTINED_ROWS, keys.DECISION_LOG, keys.DRIFT_REPORT}
    assert names(retried) == names({*reading, keys.ONLINE_SCORING})


def test_what_changes_upstream_flows_down_by_automation() -> None:
    automated = {spec.key for spec in defs.resolve_all_asset_specs() if spec.automation_condition is not None}
    read_from_outside = {keys.PASSAGES, keys.QUERIES, keys.JUDGMENTS, keys.QUARANTINED_ROWS, keys.DECISION_LOG}
    assert names(automated) == names(set(ALL) - read_from_outside)


def test_monitoring_stands_downstream_of_the_service_that_it_watches() -> None:
    assert names(GRAPH.get(keys.DECISION_LOG).parent_keys) == {"serving/online_scoring"}


def test_the_jobs_and_what_each_materializes() -> None:
    groups = {
        name: {key.path[0] for key in job.asset_layer.executable_asset_keys}
        for name, job in JOBS.items()
        if not name.startswith("__")
    }
    assert groups == {
        "lifecycle": set(ASSETS) - {"monitoring"},
        "refresh_index": {"corpus", "index"},
        "retrain": {"training", "evaluation", "release", "serving"},
        "monitor": {"monitoring"},
        "rollback": set(),
    }
    for job in JOBS.values():
        if not job.name.startswith("__"):
            assert len(job.description or "") > 20
            assert job.tags["team"] == "ranking"


def test_the_schedules_follow_the_settings() -> None:
    wanted = load_settings().schedules
    result = {schedule.name: schedule for schedule in defs.get_repository_def().schedule_defs}
    assert {name: (item.job_name, item.cron_schedule) for name, item in result.items()} == {
        "retraining": ("lifecycle", wanted.retrain),
        "monitoring": ("monitor", wanted.monitor),
    }
    for schedule in result.values():
        assert ZoneInfo(schedule.execution_timezone or "").key == wanted.timezone
        assert len(schedule.description or "") > 20


def test_the_sensors() -> None:
    result = {sensor.name: sensor for sensor in defs.get_repository_def().sensor_defs}
    assert set(result) == {"automation", "corpus_changed", "incident_on_failure", "killed_runs"}
    assert all(len(sensor.description or "") > 20 for sensor in result.values())
    running = {name for name, sensor in result.items() if sensor.default_status is dg.DefaultSensorStatus.RUNNING}
    assert running == {"incident_on_failure", "killed_runs"}, "what starts work is switched on by a person"


def test_the_definitions_can_be_loaded_and_executed() -> None:
    dg.Definitions.validate_loadable(defs)


def test_the_workspace_loads_from_any_folder(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RERANKOPS_")}
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_bytes((ROOT / "orchestration" / "dagster.yaml").read_bytes())
    environment |= {"RERANKOPS_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path / "dagster")}
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(ROOT / "workspace.yaml")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location rerankops" in done.stdout + done.stderr
