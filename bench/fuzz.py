"""Generated requests to a running service: `python -m bench.fuzz [--cases 900] [--schemathesis FOLDER]`.

Schemathesis reads the OpenAPI document of `rerankops serve` over the tests' small deployment, and sends requests that
fit it and requests that do not to every route, with the key and without. A case fails where the answer is a 5xx, is not
as documented (status, content type, headers, schema), accepts what the schema excludes, refuses what it allows, or
needs no key where one is documented. `--cases` is the most generated for each route. Schemathesis is installed once
into an environment of its own in FOLDER. Writes `fuzz` of docs/benchmarks/faults.json and `schemathesis` of
services.json; exit code 1 where a case failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from bench.environments import environment
from bench.folders import FIGURES
from bench.load_deployment import small_deployment
from bench.results import merge_into
from tests.service_process import ServiceProcess, start_service

_PACKAGE = "schemathesis==4.32.5"
_SERVER_ERROR = "ServerError"
_COUNTS = range(1, 7)
"""Queries and texts of a generated /score."""
_FIELD = "title"


def generate_what_is_served(schema: dict[str, Any]) -> None:
    """Narrow the schema of a body by what JSON Schema cannot say and its descriptions do: names of models, as many
    queries as texts, and objects that have one of the `rank_fields`."""
    properties = schema.get("properties", {})
    if (model := properties.get("model")) is not None:
        properties["model"] = {"anyOf": [{"const": "champion"}, model]}
    if {"text_1", "text_2"} <= properties.keys():
        schema["oneOf"] = [as_many(pair, count) for pair in schema["oneOf"] for count in _COUNTS]
    if "rank_fields" in properties:
        field = next(name for name in ("documents", "input") if name in properties)
        (without, _) = schema["anyOf"]
        has_field = {"type": "object", "properties": {_FIELD: {"type": "string"}}, "required": [_FIELD]}
        texts_alone = {"rank_fields": {"type": "array"}, field: {"items": {"type": "string"}}}
        objects = {
            "rank_fields": {"type": "array", "items": {"const": _FIELD}},
            field: {"items": {"anyOf": [{"type": "string"}, has_field]}},
        }
        with_fields = [{"properties": narrowed, "required": ["rank_fields"]} for narrowed in (texts_alone, objects)]
        schema["anyOf"] = [without, *with_fields]


def as_many(pair: dict[str, Any], count: int) -> dict[str, Any]:
    """A pair of names whose queries and texts are `count` each, or for 1 one query and any number of texts."""
    lists = {"minItems": count, "maxItems": count, "type": "array"}
    queries, texts = pair["required"]
    narrowed = {queries: {**lists, "type": ["string", "array"]}} if count == 1 else {queries: lists, texts: lists}
    return {**pair, "properties": {**pair["properties"], **narrowed}}


def fuzz(service: ServiceProcess, program: Path, folder: Path, cases: int, key: str) -> dict[str, Any]:
    """Cases and failures of one run, whose reports are left in `folder`; where `key` is empty none is sent."""
    headers = {"Authorization": f"Bearer {service.key}"}
    document = httpx.get(f"{service.url}/openapi.json", headers=headers, trust_env=False).json()
    for schema in document["components"]["schemas"].values():
        generate_what_is_served(schema)
    described = folder / "openapi.json"
    described.write_text(json.dumps(document))
    authorized = ["-H", f"Authorization: Bearer {key}"] if key else []
    # Without a key there is no 2xx, which is what the check of valid requests would want.
    excluded = [] if key else ["--exclude-checks", "positive_data_acceptance"]
    report = folder / "report.json"
    options = ["--checks", "all", *excluded, "--max-examples", str(cases), "--seed", "1", "--no-color"]
    options += ["--generation-database", "none", "--continue-on-failure", "--request-timeout", "30", "--no-shrink"]
    began = time.perf_counter()
    with (folder / "told").open("wb") as told:
        subprocess.run(
            [program, "run", described, "--url", service.url, *authorized, *options, "--report-json-path", report],
            cwd=folder,
            stdout=told,
            stderr=told,
            check=False,
        )
    if not report.exists():
        raise SystemExit((folder / "told").read_text()[-3000:])
    outcome = json.loads(report.read_bytes())
    failures = {f"{one['code']} {one['title']}: {' '.join(one['operations'])}": one for one in outcome["failures"]}
    return {
        "cases": outcome["test_cases"]["generated"],
        "failed": outcome["test_cases"]["with_failures"],
        "server_errors": sum(one["count"] for one in failures.values() if one["type"] == _SERVER_ERROR),
        "failures": {name: one["count"] for name, one in failures.items()},
        "operations": outcome["operations"]["tested"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Serve, fuzz, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=900, help="at most, for each route")
    parser.add_argument("--schemathesis", type=Path, default=Path(tempfile.gettempdir()) / "schemathesis")
    options = parser.parse_args()
    program = environment(options.schemathesis, _PACKAGE).parent / "st"
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
        deployment = small_deployment(Path(work))
        deployment.activate("1")
        with start_service(deployment.home, STORAGE__ARTIFACTS=deployment.artifacts) as service:
            for name, key in (("with_key", service.key), ("without_key", "")):
                (folder := Path(work) / name).mkdir()
                runs[name] = fuzz(service, program, folder, options.cases, key)
                print(name, json.dumps(runs[name], indent=1), flush=True)
                if runs[name]["failed"]:
                    print((folder / "told").read_text())
            health = httpx.get(f"{service.url}/health", trust_env=False, timeout=60).json()
    figures = {
        "cases": sum(run["cases"] for run in runs.values()),
        "failed": sum(run["failed"] for run in runs.values()),
        "server_errors": sum(run["server_errors"] for run in runs.values()),
        "health_afterwards": health["status"],
        "runs": runs,
        "conditions": {
            "date": datetime.now(UTC).date().isoformat(),
            "schemathesis": _PACKAGE.partition("==")[2],
            "deployment": deployment.name,
            "cores": len(os.sched_getaffinity(0)),
        },
    }
    merge_into(FIGURES / "faults.json", {"fuzz": figures}, depth=1)
    told = {"cases": figures["cases"], "failures": figures["failed"], "server_errors": figures["server_errors"]}
    merge_into(FIGURES / "services.json", {"schemathesis": told})
    sys.exit(1 if figures["failed"] or health["status"] != "ok" else 0)


if __name__ == "__main__":
    main()
