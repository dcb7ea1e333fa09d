"""What is put under load: the tests' small deployment, or a copy of a real one; each with a second bundle that ranks
otherwise, to swap to."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import ReleaseError
from models.records.database import Database
from models.records.ledger import BundleVersions, Ledger
from models.release.bundle import Bundle
from models.release.releaser import bundle_versions
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from models.store.durable_files import canonical_json, link_or_copy
from tests.small_bundle import MACHINES, build_small, open_small

DOCUMENTS = 16
_SHIFT = 0.5
"""What the second bundle of a real deployment adds to each combined logit: its scores are told from the first's."""
_DRAWN = 2000


@dataclass(frozen=True)
class Deployment:
    """A home that `rerankops serve` can serve; `releases` has the two bundles by their model version, and `questions`
    what is asked: (query, documents)."""

    name: str
    home: Path
    artifacts: str
    releases: Mapping[str, BundleVersions]
    questions: Sequence[tuple[str, Sequence[str]]]

    def bodies(self, deadline_ms: float) -> list[bytes]:
        """The requests, as sent."""
        return [
            json.dumps(
                {"model": "champion", "query": query, "documents": list(documents), "timeout_ms": deadline_ms}
            ).encode()
            for query, documents in self.questions
        ]

    def answer_bodies(self, deadline_ms: float) -> list[bytes]:
        """The questions alone, for /v1/answer."""
        return [json.dumps({"query": query, "timeout_ms": deadline_ms}).encode() for query, _ in self.questions]

    def activate(self, version: str) -> None:
        """Make one of the two the current release."""
        database = Database(f"sqlite:///{self.home / 'rerankops.db'}")
        database.migrate()
        ledger = Ledger(database)
        ledger.activate(ledger.begin(self.releases[version], actor="bench", reason="load").release_id)
        database.close()


def small_deployment(folder: Path) -> Deployment:
    """The tests' deployment; its second bundle has the first one's weights in random places.

    Each request has a question and passages drawn anew.
    """
    (folder / "small").mkdir()
    (folder / "home").mkdir()
    build_small(folder / "small")
    small = open_small(folder / "small")
    texts = small.artifacts["corpus/passages"].read_table("passages.parquet")["text"].tolist()
    draw = random.Random(1)
    questions = [
        (
            f"how do I clean the {draw.choice(list(MACHINES))} number {draw.randrange(10_000)}",
            draw.sample(texts, DOCUMENTS),
        )
        for _ in range(_DRAWN)
    ]
    releases = {"1": bundle_versions(small.first.bundle, "1"), "2": bundle_versions(small.shuffled().bundle, "2")}
    return Deployment("small", folder / "home", small.settings.artifact_root, releases, questions)


def copied_deployment(source: Path, folder: Path) -> Deployment:
    """A copy of the deployment in `source`, its current release with evaluation queries and their first candidates.

    Raises `ReleaseError` before its first release.
    """
    home = folder / "home"
    shutil.copytree(source / "artifacts", home / "artifacts", copy_function=link_or_copy)
    for path in source.glob("rerankops.db*"):
        shutil.copyfile(path, home / path.name)
    database = Database(f"sqlite:///{home / 'rerankops.db'}")
    database.migrate()
    current = Ledger(database).current()
    database.close()
    if current is None:
        raise ReleaseError(f"{source} has no release", "Make one with `rerankops run`.")
    store = ArtifactStore(str(home / "artifacts"), home / "cache")
    first = store.open(RELEASE_CANDIDATE, current.bundle_version)
    second = _shifted(store, first)
    releases = {
        "1": bundle_versions(first, "1"),
        "2": replace(bundle_versions(first, "2"), bundle_version=second.data_version),
    }
    questions = _asked(store)
    name = Bundle.open(first).facts.corpus_version
    return Deployment(f"corpus {name}", home, str(home / "artifacts"), releases, questions)


def _shifted(store: ArtifactStore, bundle: Artifact) -> Artifact:
    """The bundle with another calibration, which is another bundle."""

    def build(folder: Path) -> dict[str, str]:
        for name in bundle.manifest.files:
            if name != "calibration.json":
                link_or_copy(bundle.path(name), folder / name)
        calibration = bundle.read_json("calibration.json")
        for tier in calibration["tiers"].values():
            tier["offset"] += _SHIFT
        (folder / "calibration.json").write_bytes(canonical_json(calibration))
        return {}

    return store.get_or_create(
        RELEASE_CANDIDATE,
        code_version="bench.load",
        inputs={RELEASE_CANDIDATE: bundle.data_version},
        settings={"shift": _SHIFT},
        build=build,
    )


def _asked(store: ArtifactStore) -> list[tuple[str, Sequence[str]]]:
    """Evaluation queries with the texts of their first candidates."""
    queries = store.require("corpus/evaluation_set").read_table("queries.parquet").set_index("query_id")["text"]
    passages = store.require("corpus/passages").read_table("passages.parquet").set_index("passage_id")["text"]
    candidates = store.require("index/candidates").read_table("candidates.parquet")
    return [
        (str(queries[query_id]), [str(passages[passage_id]) for passage_id in rows["passage_id"].head(DOCUMENTS)])
        for query_id, rows in candidates.sort_values("rank").groupby("query_id", sort=True)
        if query_id in queries.index
    ]
