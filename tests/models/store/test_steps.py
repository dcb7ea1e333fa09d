"""A computation declared once: what makes its result out of date, and that nothing else computes it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models.errors import SettingsError
from models.settings import Settings, load_settings
from models.store import steps
from models.store.artifacts import Artifact, ArtifactStore
from models.store.steps import Step

READ = ("index.bm25_k1", "tiers")


def write_text(text: str, folder: Path) -> dict[str, Any]:
    (folder / "text.txt").write_text(text)
    return {"characters": len(text)}


def write_other(text: str, folder: Path) -> dict[str, Any]:
    return write_text(text, folder)


def count(text: str) -> dict[str, Any]:
    return {"characters": len(text)}


def settings(**values: Any) -> Settings:
    return load_settings(values={key.replace("__", "."): value for key, value in values.items()}, environ={})


def create(store: ArtifactStore, step: Step, text: str = "words", read: Settings | None = None, **how: Any) -> Artifact:
    return step.get_or_create(store, read or settings(), partial(write_text, text), **how)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")


@pytest.fixture
def of_code(monkeypatch: pytest.MonkeyPatch):
    """A function from a code version to a step of that version: functions of this file are not of the package."""

    def step(version: str, function: Any = write_text) -> Step:
        monkeypatch.setattr(steps, "code_version", lambda entry, data_files: version)
        declared = Step("corpus/passages", f"{__name__}:{function.__name__}", READ, without=("tiers.budget_ms",))
        assert declared.code_version == version
        return declared

    return step


def test_the_same_computation_is_done_once(store: ArtifactStore, of_code) -> None:
    step = of_code("c1")
    first, second = create(store, step), create(store, step, "other words")
    assert (first.reused, second.reused) == (False, True)
    assert second.path("text.txt").read_text() == "words"
    assert (first.manifest.code_version, first.summary) == ("c1", {"characters": 5})


@pytest.mark.parametrize(
    ("changed", "anew"),
    [
        ({"index__bm25_k1": 1.1}, True),
        ({"tiers__reserve_ms": 7}, True),
        ({"tiers__budget_ms": 900}, False),
        ({"index__bm25_b": 0.9}, False),
    ],
)
def test_it_is_done_again_for_another_value_of_a_setting_that_it_reads(
    store: ArtifactStore, of_code, changed: dict[str, Any], anew: bool
) -> None:
    step = of_code("c1")
    create(store, step)
    assert create(store, step, read=settings(**changed)).reused is not anew


def test_it_is_done_again_for_other_code_inputs_and_what_is_outside(store: ArtifactStore, of_code) -> None:
    step = of_code("c1")
    upstream = create(store, step)
    assert not create(store, of_code("c2")).reused
    assert not create(store, step, inputs=(upstream,)).reused
    assert not create(store, step, outside={"source": "s1"}).reused
    assert not create(store, step, outside={"source": "s2"}).reused
    assert not create(store, step, values={}).reused
    again = create(store, step, inputs=(upstream,), outside={"source": "s2"}, values={"kind": "flat"})
    assert again.manifest.inputs == {"corpus/passages": upstream.data_version, "source": "s2"}
    assert again.manifest.settings == {"kind": "flat"}


def test_another_function_than_the_declared_one_computes_nothing(store: ArtifactStore, of_code) -> None:
    step = of_code("c1")
    with pytest.raises(ValueError, match=r"write_text, not by .*write_other"):
        step.get_or_create(store, settings(), partial(write_other, "words"))
    with pytest.raises(ValueError, match="computed by"):
        step.remember(store, {}, partial(count, "words"))
    assert not store.made("corpus/passages")


def test_a_setting_that_does_not_exist_is_an_error(store: ArtifactStore, of_code) -> None:
    step = replace(of_code("c1"), settings=("index.bm25_k2",))
    with pytest.raises(SettingsError, match=r"index\.bm25_k2"):
        create(store, step)


def test_a_result_is_remembered_by_key_and_code(store: ArtifactStore, of_code) -> None:
    step = of_code("c1", count)
    assert step.remember(store, {"inputs": 1}, partial(count, "words")) == {"characters": 5}
    assert step.remember(store, {"inputs": 1}, partial(count, "other words")) == {"characters": 5}
    assert step.remember(store, {"inputs": 2}, partial(count, "other words")) == {"characters": 11}
    assert of_code("c2", count).remember(store, {"inputs": 1}, partial(count, "two")) == {"characters": 3}


def test_the_artifact_before_is_taken_over_where_code_and_what_must_agree_are_the_same(
    store: ArtifactStore, of_code
) -> None:
    step = of_code("c1")
    assert step.previous(store, {}) is None
    before = create(store, step, outside={"weights": "w1"})
    store.point(before)
    assert step.previous(store, {"weights": "w1", "index.bm25_k1": settings().index.bm25_k1}) == before
    assert step.previous(store, {}) == before
    assert step.previous(store, {"weights": "w2"}) is None
    assert step.previous(store, {"index.bm25_k1": 7.0}) is None
    assert of_code("c2").previous(store, {}) is None


def test_scratch_folders_are_apart_by_step_code_and_what_is_made(store: ArtifactStore, of_code) -> None:
    step = of_code("c1")
    other = replace(step, name="corpus/queries")
    folders = [
        step.scratch(store, {"a": 1}), step.scratch(store, {"a": 2}), other.scratch(store, {"a": 1}),
        of_code("c2").scratch(store, {"a": 1}),
    ]  # fmt: skip
    assert len(set(folders)) == 4
    assert step.scratch(store, {"a": 1}) == folders[0]
