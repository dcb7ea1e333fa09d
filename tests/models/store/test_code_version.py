"""A code version changes with what the code of a function's import closure does, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.store.code_version import closure, code_version

BASE = '''
"""What it is."""

LIMIT = 3


class Thing:
    """A thing."""

    size = 1

    def double(self, x):
        """Twice."""
        return 2 * x  # why
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An empty package `models`."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def write(package: Path, module: str, text: str) -> None:
    path = package / f"{module}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def version(package: Path, text: str) -> str:
    write(package, "thing", text)
    return code_version("models.thing:Thing", package=package)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# because"),
        ('"""Twice."""', '"""Two times."""'),
        ('"""A thing."""\n', ""),
        ('"""What it is."""', '"""Other words."""'),
        ("2 * x", "(2\n            * x)"),
        ("\n\n\nclass", "\n\nclass"),
        ("LIMIT = 3", "LIMIT = 3\nif TYPE_CHECKING:\n    import pandas"),
    ],
)
def test_what_only_readers_and_type_checkers_see_does_not_count(package: Path, old: str, new: str) -> None:
    assert old in BASE
    assert version(package, BASE.replace(old, new)) == version(package, BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3\nif LIMIT:\n    pass"),
        ("2 * x", "x * 2"),
        ("size = 1", 'size = "1"'),
        ("def double", "def twice"),
        ("self, x)", "self, x=1)"),
        ("return 2", "yield 2"),
        ("2 * x", "[2, *[x]]"),
    ],
)
def test_what_the_code_does_counts(package: Path, old: str, new: str) -> None:
    assert old in BASE
    assert version(package, BASE.replace(old, new)) != version(package, BASE)


def test_the_closure_has_imports_of_functions_packages_and_submodules(package: Path) -> None:
    write(
        package,
        "thing",
        "import models.plain\ndef run():\n    from models.room import wall\n    from models import text",
    )
    write(package, "plain", "import os")
    write(package, "room/__init__", "from models.room.door import handle")
    write(package, "room/door", "handle = 1")
    write(package, "room/wall", "import models.street.lamp as lamp")
    write(package, "street/lamp", "")
    write(
        package, "text", "from models.errors import Wrong\nfrom models.store.artifacts import Artifact\nimport modelsx"
    )
    write(package, "errors", "")
    write(package, "store/artifacts", "")
    write(package, "room/window", "")
    assert closure("models.thing:run", package) == [
        "models.plain", "models.room", "models.room.door", "models.room.wall", "models.street.lamp", "models.text",
        "models.thing",
    ]  # fmt: skip


def test_imports_for_type_checkers_are_not_followed_and_those_of_the_other_branch_are(package: Path) -> None:
    write(
        package,
        "thing",
        "import typing\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import models.typed\nelse:\n"
        "    import models.used\nif typing.TYPE_CHECKING:\n    from models.typed import x\n",
    )
    write(package, "typed", "")
    write(package, "used", "")
    assert closure("models.thing:run", package) == ["models.thing", "models.used"]


def test_modules_that_import_each_other_have_one_closure(package: Path) -> None:
    write(package, "one", "import models.two")
    write(package, "two", "def later():\n    import models.one")
    assert closure("models.one:run", package) == closure("models.two:run", package) == ["models.one", "models.two"]


def test_declarations_of_steps_do_not_count(package: Path) -> None:
    write(package, "thing", "from models.room.steps import STEP")
    write(package, "room/steps", "STEP = 1")
    assert closure("models.thing:run", package) == ["models.thing"]


def test_a_data_file_counts_by_its_bytes(package: Path) -> None:
    write(package, "thing", "")
    (package / "page.html").write_text("<p>")

    def of_page() -> str:
        return code_version("models.thing:run", ["page.html"], package)

    before = of_page()
    assert before != code_version("models.thing:run", package=package)
    (package / "page.html").write_text("<p> ")
    assert of_page() != before


def test_another_function_of_the_same_modules_has_another_version(package: Path) -> None:
    write(package, "thing", "")
    assert code_version("models.thing:run", package=package) != code_version("models.thing:walk", package=package)


def test_what_does_not_exist_is_an_error(package: Path) -> None:
    with pytest.raises(FileNotFoundError):
        code_version("models.thing:run", package=package)
    write(package, "thing", "")
    with pytest.raises(FileNotFoundError):
        code_version("models.thing:run", ["page.html"], package)


def test_a_relative_import_is_refused(package: Path) -> None:
    write(package, "thing", "from . import other")
    with pytest.raises(ValueError, match="relative"):
        code_version("models.thing:run", package=package)
