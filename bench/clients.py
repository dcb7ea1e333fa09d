"""Every rerank client that installs, unmodified, against a real service: `python -m bench.clients [--folder FOLDER]`.

The clients' packages go into environments of their own below the folder, by uv from the package index; the service
serves the tests' small deployment. A client passes when it gives all documents in the order and with the scores of
/v2/rerank. The commands and examples of docs/clients.md run too. The figures go to docs/benchmarks/services.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.client_calls import CALLS
from bench.environments import environment
from bench.folders import FIGURES
from bench.results import merge_into
from models.records.database import Database
from models.records.ledger import Ledger
from tests.service_process import ServiceProcess, start_service
from tests.sharing import make_once
from tests.small_bundle import build_small, open_small, put_in_service

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "clients.md"
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "current": (
        "cohere>=7",
        "litellm",
        "haystack-ai",
        "cohere-haystack",
        "jina-haystack",
        "huggingface-api-haystack",
        "rerankers[api]",
        "voyageai",
        "llama-index-postprocessor-tei-rerank",
        "llama-index-postprocessor-jinaai-rerank",
    ),
    # langchain-cohere wants cohere below 6.
    "langchain": (
        "langchain-cohere",
        "langchain-community",
        "langchain-voyageai",
        "llama-index-postprocessor-cohere-rerank",
    ),
    # It wants httpx below 0.28.
    "infinity": ("infinity-client",),
}
QUERY = "how is the loom oiled"
DOCUMENTS = (
    "Mice stay away from a dry room.",
    "Oil the loom every week.",
    "Wash the water filter with 40 grams of soda.",
    "The loom stands by the window.",
    "水过滤器用温水清洗。",
    "Oil is kept in the cellar.",
)
_SECONDS = 120
_TOLERANCE = 1e-4
_BLOCK = re.compile(
    r"^### (?P<title>[^\n]+)\n(?:(?!^#).)*?^```(?P<language>sh|python)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Outcome:
    """What one client did; `fault` says why it does not pass."""

    name: str
    version: str
    fault: str

    def to_dict(self) -> dict[str, Any]:
        """For the file of figures."""
        return {"name": self.name, "version": self.version, "passes": not self.fault, "fault": self.fault}


def environments(folder: Path) -> dict[str, Path]:
    """The Python of each environment; those that are there are left as they are."""
    return {name: environment(folder / name, *packages) for name, packages in ENVIRONMENTS.items()}


def holder(pythons: Mapping[str, Path], distribution: str) -> Path:
    """The first environment that has a distribution; cohere is in two."""
    package = distribution.lower()
    name = next(
        name
        for name, packages in ENVIRONMENTS.items()
        if any(re.split(r"[\[<>=]", entry)[0] == package for entry in packages)
    )
    return pythons[name]


def call(python: Path, name: str, asked: Mapping[str, Any], expected: list[tuple[int, float]]) -> Outcome:
    """One client in its environment."""
    try:
        ended = subprocess.run(
            [python, ROOT / "bench" / "client_calls.py", name],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env=_environment({}),
        )
    except subprocess.TimeoutExpired:
        return Outcome(name, "", f"no answer in {_SECONDS} s")
    if ended.returncode:
        return Outcome(name, "", ended.stderr.strip().splitlines()[-1][:200])
    answer = json.loads(ended.stdout.strip().splitlines()[-1])
    return Outcome(name, answer["version"], _difference(answer["ranking"], expected))


def _difference(ranking: list[list[Any]], expected: list[tuple[int, float]]) -> str:
    if [index for index, _ in ranking] != [index for index, _ in expected]:
        return f"its order is {[index for index, _ in ranking]}, not {[index for index, _ in expected]}"
    worst = max(abs(score - wanted) for (_, score), (_, wanted) in zip(ranking, expected, strict=True))
    return "" if worst < _TOLERANCE else f"a score differs by {worst:.2g}"


def page_blocks(text: str) -> list[tuple[str, str, str]]:
    """Title, language and code of every part of docs/clients.md that can be run."""
    return [(block["title"], block["language"], block["code"]) for block in _BLOCK.finditer(text)]


def run_block(title: str, language: str, code: str, pythons: Mapping[str, Path], service: ServiceProcess) -> Outcome:
    """A command or an example of the page, which must end well, and name the best document where it is Python."""
    python = pythons["langchain" if title == "LangChain" else "current"]
    command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [python, "-c", code]
    variables = {"RERANKOPS_URL": service.url, "RERANKOPS_API_KEY": service.key}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, env=_environment(variables))
    name = f"docs/clients.md: {title}"
    if ended.returncode:
        return Outcome(name, "", (ended.stderr.strip() or f"exit {ended.returncode}").splitlines()[-1][:200])
    if language == "sh":
        json.loads(ended.stdout)
    elif "Oil the loom every week." not in ended.stdout.splitlines()[0]:
        return Outcome(name, "", f"its first line is {ended.stdout.splitlines()[0][:100]!r}")
    return Outcome(name, "", "")


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    # Without HF_HUB_OFFLINE LiteLLM asks Hugging Face for a tokenizer, and hangs where there is no network.
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    return {
        **own,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        **variables,
    }


def measure(folder: Path) -> list[Outcome]:
    """Start the service and run every client and every block of the page."""
    pythons = environments(folder)
    small = open_small(make_once(folder / "small", build_small))
    home = Path(tempfile.mkdtemp(dir=folder))
    database = Database(f"sqlite:///{home / 'rerankops.db'}")
    database.migrate()
    put_in_service(Ledger(database), small.first, "1")
    database.close()
    settings = {
        "STORAGE__ARTIFACTS": small.settings.artifact_root,
        "TIERS__BUDGET_MS": "30000",
        "SERVING__MAX_QUEUE_MS": "1e9",
    }
    with start_service(home, port=None, **settings) as service:
        asked = {"url": service.url, "key": service.key, "query": QUERY, "documents": list(DOCUMENTS)}
        body = {"model": "champion", "query": QUERY, "documents": list(DOCUMENTS)}
        authorized = {"Authorization": f"Bearer {service.key}"}
        answer = httpx.post(f"{service.url}/v2/rerank", json=body, headers=authorized, timeout=_SECONDS).json()
        expected = [(result["index"], result["relevance_score"]) for result in answer["results"]]
        outcomes = []
        for name, (distribution, _) in CALLS.items():
            outcomes.append(call(holder(pythons, distribution), name, asked, expected))
            print(outcomes[-1], flush=True)
        for title, language, code in page_blocks(PAGE.read_text(encoding="utf-8")):
            outcomes.append(run_block(title, language, code, pythons, service))
            print(outcomes[-1], flush=True)
    return outcomes


def main() -> None:
    """Run all, and write the figures; exits with 1 where something does not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="Where environments and deployment are made, or were.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-clients-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = measure(folder.resolve())
    figures = {
        "clients": [outcome.to_dict() for outcome in outcomes if outcome.name in CALLS],
        "examples": [outcome.to_dict() for outcome in outcomes if outcome.name not in CALLS],
    }
    merge_into(FIGURES / "services.json", figures)
    if any(outcome.fault for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
