"""The checks that Dagster blocks on are those that the gate asks for."""

from __future__ import annotations

import dagster as dg

from assets import keys
from checks import all_checks
from models.release.blocking_checks import BLOCKING_CHECKS
from orchestration.definitions import defs

GRAPH = defs.resolve_asset_graph()


def upstream(key: dg.AssetKey) -> set[dg.AssetKey]:
    """All assets that `key` is made from, without itself."""
    upstream: set[dg.AssetKey] = set()
    waiting = [key]
    while waiting:
        new = GRAPH.get(waiting.pop()).parent_keys - upstream
        upstream |= new
        waiting += new
    return upstream


def test_the_gate_asks_for_each_blocking_check_upstream_of_it_and_for_no_other() -> None:
    specs = [spec for definition in all_checks() for spec in definition.check_specs]
    judged = upstream(keys.GATE_DECISION)
    assert {keys.PASSAGES, keys.TRAINING_EXAMPLES, keys.LATENCY_PROFILE} <= judged
    # What a check upstream looks at beside its own asset, as the quarantined rows, from which no asset is made.
    judged |= {dep.asset_key for spec in specs if spec.asset_key in judged for dep in spec.additional_deps}
    blocking = {f"{keys.artifact_name(spec.asset_key)}:{spec.name}" for spec in specs if spec.blocking}
    of_others = {name for name in blocking if dg.AssetKey(name.partition(":")[0].split("/")) not in judged}
    assert {check.key for check in BLOCKING_CHECKS} == blocking - of_others
    assert of_others == {
        "monitoring/decision_log:contract",
        *(f"release/gate_decision:{group}" for group in _groups()),
    }


def _groups() -> set[str]:
    from checks.gate import GROUPS

    return set(GROUPS)


def test_no_other_definition_of_the_code_location_has_checks() -> None:
    declared = {spec.key for definition in all_checks() for spec in definition.check_specs}
    beside = {key.to_user_string() for key in GRAPH.asset_check_keys - declared}
    assert beside == {"serving/online_scoring:service_serves_release"}


def test_each_check_looks_at_what_is_declared() -> None:
    """A run waits for the assets that a check looks at, or one step makes them together."""
    together = {keys.artifact_name(key) for key in (keys.PASSAGES, keys.QUERIES, keys.JUDGMENTS, keys.QUARANTINED_ROWS)}
    by_key = {check.key: check for check in BLOCKING_CHECKS}
    for definition in all_checks():
        for spec in definition.check_specs:
            declared = by_key.get(f"{keys.artifact_name(spec.asset_key)}:{spec.name}")
            if declared is None:
                continue
            waits = {spec.asset_key, *(dep.asset_key for dep in spec.additional_deps)}
            assert set(declared.reads) - {keys.artifact_name(key) for key in waits} <= together
