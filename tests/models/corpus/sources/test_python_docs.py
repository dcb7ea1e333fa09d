from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from models.corpus.sources import open_source
from models.corpus.sources.python_docs import (
    PythonDocsSource,
    installed_files,
    is_sentence,
    shorten,
    split_docstring,
    strip_bodies,
)
from models.errors import SourceError
from models.settings import CorpusSettings, PythonDocsSettings

BODY = "The body says how it is done, at a length that makes it worth finding: more than eighty characters."


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], name: str = "toy") -> None:
    """Lay a distribution of these modules into `folder` and put it on the path."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()


def _function(name: str, summary: str, body: str = BODY, arguments: str = "x") -> str:
    return f'def {name}({arguments}):\n    """{summary}\n\n    {body}\n    """\n    return 1\n\n\n'


def _source(**values: int) -> PythonDocsSource:
    return PythonDocsSource(PythonDocsSettings(packages=["toy"], **values))


def test_objects_become_documents_queries_and_judgments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _function("add", "Add two numbers to each other.", arguments="x: int, y=2") + (
        'class Shape:\n    """Describe a shape in the plane.\n\n    ' + BODY + '\n    """\n\n'
        "    def area(self) -> float:\n        r'''Compute the area of the shape.\n\n        "
        + BODY
        + "\n        '''\n"
        '        def hidden():\n            """Do something nobody sees here.\n\n            '
        + BODY
        + '\n            """\n'
        "        return 1.0\n\n"
        "    def _private(self):\n        '''Do something private in here.\n\n        " + BODY + "\n        '''\n"
    )
    files = {"toy/__init__.py": '"""Toy."""\n', "toy/math.py": text, "toy/tests/test_x.py": text}
    _install(tmp_path, monkeypatch, files)
    source = _source()
    documents = {document.document_id: document for document in source.documents()}
    assert list(documents) == ["toy.math.Shape", "toy.math.Shape.area", "toy.math.add"]
    assert documents["toy.math.add"].title == "toy.math.add(x: int, y=2)"
    assert documents["toy.math.add"].text == BODY
    assert documents["toy.math.add"].source == "toy"
    queries = {query.query_id: query for query in source.queries()}
    judged = {judgment.document_id: queries[judgment.query_id] for judgment in source.judgments()}
    assert judged["toy.math.Shape.area"].text == "Compute the area of the shape."
    assert {query.group for query in queries.values()} == {"toy.math"}
    assert all(query.text not in documents[name].text for name, query in judged.items())


def test_documents_that_share_a_summary_are_all_judged_by_one_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = "".join(_function(f"f{n}", "Compute the same quantity twice.", f"{n} {BODY}") for n in range(2))
    many = "".join(_function(f"g{n}", "Return the value of this thing.", f"{n} {BODY}") for n in range(6))
    _install(tmp_path, monkeypatch, {"toy/a.py": two + many})
    source = _source()
    assert len(list(source.documents())) == 8
    [query] = source.queries()
    assert query.text == "Compute the same quantity twice."
    assert [(j.query_id, j.document_id, j.grade) for j in source.judgments()] == [
        (query.query_id, "toy.a.f0", 1),
        (query.query_id, "toy.a.f1", 1),
    ]


def test_copies_are_taken_once_under_the_smallest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _function("close", "Close the connection for good.")
    _install(tmp_path, monkeypatch, {"toy/b.py": text, "toy/a.py": text})
    assert [document.document_id for document in _source().documents()] == ["toy.a.close"]


def test_sample_is_stable_as_the_corpus_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(_function(f"f{n}", f"Compute the quantity number {n} of it.", f"{n} {BODY}") for n in range(60))
    _install(tmp_path, monkeypatch, {"toy/a.py": text})
    all_names = [document.document_id for document in _source().documents()]
    few = [document.document_id for document in _source(max_documents=20).documents()]
    more = [document.document_id for document in _source(max_documents=30).documents()]
    assert len(all_names) == 60
    assert (len(few), few) == (20, sorted(few))
    assert set(few) < set(more) < set(all_names)


def test_bodies_are_cut_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _function("f", "Compute something of great length.", "A sentence of six words here. " * 50)
    _install(tmp_path, monkeypatch, {"toy/a.py": text})
    [document] = _source(max_body_characters=100).documents()
    assert document.text == "A sentence of six words here. " * 2 + "A sentence of six words here."


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [
        ("short", 10, "short"),
        ("One line.\nAnother line", 15, "One line."),
        ("One two three four five", 15, "One two three"),
        ("abcdefghijklmnop", 10, "abcdefghij"),
        ("It ends. Here it is", 8, "It ends."),
    ],
)
def test_shorten_prefers_boundaries(text: str, limit: int, cut: str) -> None:
    assert shorten(text, limit) == cut


@pytest.mark.parametrize(
    ("docstring", "summary", "body"),
    [
        ("Return the sum of it all. More here.\n\n    Rest.", "Return the sum of it all.", "More here.\n\nRest."),
        ("Wrap :class:`~a.Thing` in ``x``\n    over lines.\n\n    Rest.", "Wrap a.Thing in x over lines.", "Rest."),
        ("Use it for links, e.g. to a page. More.", "Use it for links, e.g. to a page.", "More."),
        ("No stop here", "No stop here", ""),
    ],
)
def test_summaries_are_split_off(docstring: str, summary: str, body: str) -> None:
    assert split_docstring(docstring) == (summary, body)


@pytest.mark.parametrize(
    "summary",
    [
        "Parameters ---------- x : array of floats",
        "Some Title of This ------------------",
        "fit(x, y, sample_weight=None, **kwargs) -> self",
        "scipy.stats.norm(loc, scale, a, b)",
        ".. deprecated:: 1.2 use the other",
        ">>> f(1) + f(2) + f(3)",
        "Too short.",
        "word " * 41,
    ],
)
def test_what_is_no_sentence_asks_nothing(summary: str) -> None:
    assert not is_sentence(summary)


@pytest.mark.parametrize("summary", ["Compute f(x) for each x.", "Parametersets are merged into one here."])
def test_sentences_are_kept(summary: str) -> None:
    assert is_sentence(summary)


def test_a_package_that_is_not_installed_is_named() -> None:
    settings = CorpusSettings(python_docs=PythonDocsSettings(packages=["no-such-package-here"]))
    source = open_source(settings, Path())
    with pytest.raises(SourceError, match=r"corpus\.python_docs\.packages: 'no-such-package-here' is not installed"):
        source.fingerprint()
    with pytest.raises(SourceError, match=r"corpus\.python_docs\.packages"):
        list(source.documents())


def test_fingerprint_follows_the_settings() -> None:
    first = PythonDocsSource(PythonDocsSettings(packages=["pydantic"]))
    assert first.fingerprint() == PythonDocsSource(PythonDocsSettings(packages=["pydantic"])).fingerprint()
    assert first.fingerprint() != PythonDocsSource(PythonDocsSettings(packages=["pydantic", "fsspec"])).fingerprint()
    cut = PythonDocsSettings(packages=["pydantic"], max_body_characters=10)
    assert first.fingerprint() != PythonDocsSource(cut).fingerprint()


def _docstrings(text: str) -> list[tuple[str, str, str]]:
    """(name, arguments, docstring) of every class and function outside of functions."""
    result: list[tuple[str, str, str]] = []
    pending: list[ast.AST] = [ast.parse(text)]
    while pending:
        for node in ast.iter_child_nodes(pending.pop()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                result.append((node.name, ast.unparse(node.args), ast.get_docstring(node) or ""))
            elif isinstance(node, ast.ClassDef):
                result.append((node.name, "", ast.get_docstring(node) or ""))
                pending.append(node)
    return sorted(result)


TRICKY = '''"""Module text:

def not_code():
    pass
"""
import functools

class A:
    """A class.

    def example(self):
        return 1
    """

    @property
    def size(self) -> dict[str, int]:  # comment: here
        # a comment before the docstring
        """The size, with a backslash \\\\ and "quotes" inside."""
        text = """
dedented text
"""
        return {text: 1}

    async def later(
        self,
        items: list[int] = [1, 2],
        *, key=lambda value: value,
    ) -> None:
        r\'\'\'Single quotes """ around.\'\'\'
        def inner():
            """Inner."""
        await inner()

    def bare(self): return "def x(): pass"

class B:
    def stub(self) -> int: ...

class C:
    """Shown as::

        def example(self):
            return 2
    """

def last(a=":", b=(
    1, 2)):
    x = 1
    # dedented comment
    return x
'''


def test_stripped_source_keeps_every_docstring_and_signature() -> None:
    try:
        stripped = _docstrings(strip_bodies(TRICKY.replace('"""\ndedented text\n"""', '"kept"')))
    except SyntaxError:
        pytest.fail("stripped source does not parse")
    assert stripped == _docstrings(TRICKY)


@pytest.mark.parametrize("package", ["networkx", "pydantic"])
def test_stripping_loses_nothing_in_real_packages(package: str) -> None:
    compared = shorter = 0
    for path in installed_files(package)[1][:60]:
        text = path.read_text(encoding="utf-8")
        try:
            result = _docstrings(strip_bodies(text))
        except SyntaxError:
            continue
        compared += 1
        shorter += len(strip_bodies(text)) < len(text)
        assert result == _docstrings(text), path
    assert compared > 45
    assert shorter > 20


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_docstring_that_is_never_closed_takes_no_time_to_give_up(quotes: str) -> None:
    """With all the ways to cut it up tried in turn, this would not end."""
    text = f"def f():\n    {quotes}" + "word \"x\" and 'y' \\n " * 200
    assert strip_bodies(text).startswith("def f():")
