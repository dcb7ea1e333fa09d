"""Every computation that the package declares: its version follows each part of its code, and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.settings import load_settings
from models.store.code_version import PACKAGE, closure, code_version
from models.store.steps import Step
from tests.declared_steps import declared_steps

SEVERAL = 5
READERS = {"evaluation/templates": "models.evaluation.page", "expectations/suites": "models.expectations.validation"}
"""Folders of data files, and the module that reads them."""
NO_DATA = {"records/migrations"}
"""A folder of files that no result depends on: how the tables of the database came to be."""


each_step = pytest.mark.parametrize("step", declared_steps(), ids=lambda step: step.name)


def all_modules() -> list[str]:
    files = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in files)


def file_of(package: Path, module: str) -> Path:
    path = package.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def some(modules: list[str]) -> list[str]:
    """At most `SEVERAL` of them, from all along the list."""
    return modules[:: max(len(modules) // SEVERAL, 1)][:SEVERAL]


@contextmanager
def edited(path: Path, more: bytes = b"\nEDITED = 1\n") -> Iterator[None]:
    content = path.read_bytes()
    path.write_bytes(content + more)
    try:
        yield
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that may be edited."""
    target = tmp_path_factory.mktemp("tree") / "models"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def version_in(package: Path, step: Step) -> str:
    return code_version(step.entry, step.data_files, package)


@each_step
def test_an_edit_of_any_module_of_its_closure_changes_its_version(step: Step, copy: Path) -> None:
    assert version_in(copy, step) == step.code_version
    modules = closure(step.entry)
    own = step.entry.partition(":")[0]
    for module in {own, *some(modules), modules[-1]}:
        with edited(file_of(copy, module)):
            assert version_in(copy, step) != step.code_version, module
    assert version_in(copy, step) == step.code_version


@each_step
def test_an_edit_of_a_data_file_changes_its_version(step: Step, copy: Path) -> None:
    for name in step.data_files:
        with edited(copy / name, b" "):
            assert version_in(copy, step) != step.code_version, name


@each_step
def test_an_edit_of_another_module_leaves_its_version(step: Step, copy: Path) -> None:
    others = [module for module in all_modules() if module not in closure(step.entry)]
    base = ["models.errors", "models.settings.loading", "models.store.artifacts", "models.corpus.steps"]
    for module in {*some(others), *base}:
        with edited(file_of(copy, module)):
            assert version_in(copy, step) == step.code_version, module


@each_step
def test_its_function_and_its_settings_exist(step: Step) -> None:
    module, _, name = step.entry.partition(":")
    function = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    assert inspect.isfunction(function)
    assert (function.__module__, function.__qualname__) == (module, name)
    values = step.values(load_settings(environ={}))
    assert all(any(key == name or key.startswith(f"{name}.") for key in values) for name in step.settings)


@each_step
def test_it_lists_the_data_files_that_its_closure_reads(step: Step) -> None:
    modules = closure(step.entry)
    read = {
        path.relative_to(PACKAGE).as_posix()
        for folder, reader in READERS.items()
        if reader in modules
        for path in (PACKAGE / folder).iterdir()
        if path.is_file()
    }
    assert set(step.data_files) == read


def test_every_folder_of_data_files_has_a_reader() -> None:
    folders = {
        path.parent.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert folders == {*READERS, *NO_DATA}
    for folder, reader in READERS.items():
        assert folder.rpartition("/")[2] in file_of(PACKAGE, reader).read_text(), reader


def test_names_are_given_once() -> None:
    names = [step.name for step in declared_steps()]
    assert sorted(set(names)) == sorted(names)


def test_no_module_is_imported_by_a_name_that_is_only_known_at_run_time() -> None:
    """The closure is read from import statements; a module of the package that is imported otherwise is not in it."""
    for module in all_modules():
        for node in ast.walk(ast.parse(file_of(PACKAGE, module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
                named = node.args[0]
                is_third_party = isinstance(named, ast.Constant) and not str(named.value).startswith("models")
                assert is_third_party or ast.unparse(named) == "module", f"{module}:{node.lineno}"


def test_stages_depend_on_what_they_read_with() -> None:
    """What made stale artifacts be reused, or would."""
    of = {step.name: set(closure(step.entry)) for step in declared_steps()}
    assert "models.text.passage_text" in of["index/lexical_index"] & of["index/passage_embeddings"]
    assert "models.text.passage_text" in of["evaluation/scored_candidates"] & of["training/training_examples"]
    assert "models.cross_encoder.bfloat16" in of["training/large_reranker"]
    assert "models.cascade.calibration" in of["training/training_examples"]
    assert {"models.retrieval.retriever", "models.cross_encoder.engines"} <= of["evaluation/latency_profile"]
    assert "models.corpus.sources.beir" in of["corpus/passages"] & of["corpus/judgments"]
    assert "models.evaluation.page" in of["evaluation/offline_evaluation"]


def test_what_costs_much_does_not_depend_on_what_is_beside_it() -> None:
    of = {step.name: set(closure(step.entry)) for step in declared_steps()}
    for name in ("training/large_reranker", "training/compact_reranker", "training/scoring_engines"):
        packages = ("models.evaluation.", "models.release.", "models.serving.")
        assert {module for module in of[name] if module.startswith(packages)} <= {"models.evaluation.evaluation_set"}
    assert not {"models.evaluation.page", "models.evaluation.report"} & of["evaluation/scored_candidates"]
    assert "models.training.logged_lists" not in of["training/large_reranker"]
    made_with_models = ("index/", "training/", "evaluation/scored_candidates", "evaluation/score_calibration")
    for name in (name for name in of if name.startswith(made_with_models)):
        assert "models.contracts.tables" not in of[name], name
        assert not {module for module in of[name] if module.startswith("models.records.")}, name
