"""The embedded default corpus: the API documentation of the packages installed beside RerankOps.

Each documented class, function or method is a document (qualified name and signature as title, docstring body as text);
the docstring's summary sentence, taken out of the document, is the query for it, after CodeSearchNet (Husain et al.,
2019, https://arxiv.org/abs/1909.09436). Files are parsed, never imported.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import inspect
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from models.contracts.rows import Document, Judgment, Place, Query
from models.corpus.sources.base import row_digest, unreadable
from models.errors import SourceError
from models.settings import PythonDocsSettings
from models.store.durable_files import digest_json

_SKIPPED_PARTS = {"tests", "test", "testing", "_vendor", "vendor", "vendored_packages", "node_modules", "examples"}
_FILE_CHARACTERS = 2_000_000
_MIN_BODY_CHARACTERS = 80
_TITLE_CHARACTERS = 200
_MIN_SUMMARY_CHARACTERS = 20
_SUMMARY_WORDS = range(4, 41)
_MAX_SHARING = 5
"""Documents that may share one summary; more, and it asks for none of them."""

_SUMMARY = re.compile(r"(.+?(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\betc)(?<!\bcf)(?<!\bw\.r\.t)[.!?])(?:\s|$)", re.S)
_MARKUP = re.compile(r":[a-zA-Z:]+:`~?([^`]+)`")
_NO_SENTENCE = re.compile(
    r"parameters\b|args:|arguments:|returns?:|example|notes?:|\.\.|:|>>>|@|.*-----|.*=====|[\w.]+\(.*\)(\s*->.*)?\.?$",
    re.I,
)
_CUT = re.compile(r"\n|[.!?](?=\s)")

_STRING_OR_DEF = re.compile(r'"""|\'\'\'|^([ \t]*)(?:async[ \t]+)?def[ \t]', re.M)
_HEADER_END = re.compile(r":[ \t]*(?:#[^\n]*)?\n")
# Possessive, as every way to cut up an unclosed string would be tried otherwise: exponentially many.
_DOCSTRING = re.compile(r'(?:\s|#[^\n]*\n)*+[rRuU]?("""|\'\'\')(?:[^"\'\\]++|\\.|(?!\1)["\'])*+\1[^\n]*\n?', re.S)


@dataclass(frozen=True, slots=True)
class _Object:
    """A documented class or function: its name in its package, signature, summary sentence and the body behind it."""

    name: str
    module: str
    package: str
    signature: str
    summary: str
    body: str

    @property
    def identity(self) -> tuple[str, str]:
        """What tells it from others but for the module or class that it lives in."""
        return self.name.rpartition(".")[2] + self.signature, self.body


class PythonDocsSource:
    """Documents, queries and judgments from the docstrings of installed packages.

    Of all documented objects, the `max_documents` with the smallest hash of their name are taken: the sample is
    uniform over packages, the same on every machine with the same packages, and changes only where they change. Of
    objects that share name, signature and documentation (inherited copies), the one with the smallest id is taken.
    """

    def __init__(self, settings: PythonDocsSettings) -> None:
        self.settings = settings
        self._objects: list[_Object] | None = None

    def fingerprint(self) -> str:
        """Digest of what decides the content: package versions, Python (it writes the signatures) and the settings."""
        versions = {package: installed_files(package)[0] for package in self.settings.packages}
        python = list(sys.version_info[:2])
        return digest_json({"versions": versions, "python": python, "settings": self.settings.model_dump()})

    def documents(self) -> Iterator[Document]:
        """Yield the sampled documents, ordered by id."""
        for item in self._load():
            title = f"{item.name}{item.signature}"[:_TITLE_CHARACTERS]
            body = shorten(item.body, self.settings.max_body_characters)
            yield Document(item.name, title, body, source=item.package, place=_place(item))

    def queries(self) -> Iterator[Query]:
        """Yield one query per distinct summary that is a sentence of 4 to 40 words, grouped by module."""
        for query_id, items in self._by_summary():
            yield Query(query_id, items[0].summary, group=items[0].module, place=_place(items[0]))

    def judgments(self) -> Iterator[Judgment]:
        """Yield, for each query, every document whose summary it is, grade 1."""
        for query_id, items in self._by_summary():
            for item in items:
                yield Judgment(query_id, item.name, 1, _place(item))

    def _by_summary(self) -> Iterator[tuple[str, list[_Object]]]:
        by_text: dict[str, list[_Object]] = {}
        for item in self._load():
            if is_sentence(item.summary):
                by_text.setdefault(item.summary.casefold().rstrip(".!?"), []).append(item)
        for text, items in by_text.items():
            if len(items) <= _MAX_SHARING:
                yield "q-" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16], items

    def _load(self) -> list[_Object]:
        if self._objects is None:
            with _without_collection():
                documented = [item for package in self.settings.packages for item in _read_package(package)]
            unique = {item.identity: item for item in sorted(documented, key=lambda item: item.name, reverse=True)}
            named = {item.name: item for item in unique.values()}
            order = sorted(named, key=lambda name: hashlib.sha256(name.encode()).digest())
            self._objects = [named[name] for name in sorted(order[: self.settings.max_documents])]
        return self._objects


def installed_files(package: str) -> tuple[str, list[Path]]:
    """Version and Python files of an installed distribution, sorted by path; tests and vendored copies are left out.

    Raises `SourceError` naming the package when it is not installed.
    """
    try:
        distribution = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise SourceError(
            f"corpus.python_docs.packages: {package!r} is not installed",
            f"Install it beside RerankOps (pip install {package}) or take it off the list.",
        ) from error
    files = [
        Path(str(distribution.locate_file(entry)))
        for entry in distribution.files or []
        if entry.suffix == ".py" and entry.parts[0] != ".." and not _SKIPPED_PARTS.intersection(entry.parts)
    ]
    return distribution.version, sorted(files)


def split_docstring(docstring: str) -> tuple[str, str]:
    """The summary sentence of a docstring, on one line and without markup, and the body that follows it."""
    text = inspect.cleandoc(docstring)
    first, _, rest = text.partition("\n\n")
    first = " ".join(first.split())
    match = _SUMMARY.match(first)
    if match and len(match.group(1)) >= _MIN_SUMMARY_CHARACTERS:
        summary, remainder = match.group(1), first[match.end() :]
    else:
        summary, remainder = first, ""
    body = f"{remainder}\n\n{rest}".strip()
    return _MARKUP.sub(r"\1", summary).replace("``", "").replace("`", ""), body


def is_sentence(summary: str) -> bool:
    """Whether a summary reads like a question or statement, not like a section heading, directive or signature."""
    return len(summary.split()) in _SUMMARY_WORDS and not _NO_SENTENCE.match(summary)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, cut behind a line or sentence that ends in the second half, else a word."""
    if len(text) <= limit:
        return text
    ends = [match.end() for match in _CUT.finditer(text, limit // 2, limit + 1) if match.end() <= limit]
    if not ends:
        ends = [match.start() for match in re.finditer(r"\s", text[: limit + 1])]
    return text[: ends[-1] if ends and ends[-1] else limit].rstrip()


def strip_bodies(text: str) -> str:
    """Python source with the bodies of functions cut down to their docstring, two to three times faster to parse.

    A scan that knows strings and indentation but no grammar: source it misreads seldom parses, and callers parse the
    original then.
    """
    kept, position, start = [], 0, 0
    while match := _STRING_OR_DEF.search(text, position):
        indent = match.group(1)
        if indent is None:
            close = text.find(match.group(), match.end())
            while close > 0 and text[close - 1] == "\\":
                close = text.find(match.group(), close + 1)
            if close < 0:
                break
            position = close + 3
            continue
        header = _HEADER_END.search(text, match.end())
        if header is None:
            break
        outside = re.compile(rf"^[ \t]{{0,{len(indent)}}}[^\s#)\]}}]", re.M)
        between = (match.end(), header.start())
        if outside.search(text, *between) or _STRING_OR_DEF.search(text, *between):
            position = match.end()
            continue
        docstring = _DOCSTRING.match(text, header.end())
        body = docstring.end() if docstring else header.end()
        dedent = outside.search(text, body)
        position = dedent.start() if dedent else len(text)
        kept.append(text[start:body] + f"{indent} pass\n" if not docstring else text[start:body])
        start = position
    return "".join(kept) + text[start:]


def _place(item: _Object) -> Place:
    return Place(item.name, row_digest(item.summary + item.body))


def _read_package(package: str) -> Iterator[_Object]:
    _, files = installed_files(package)
    root = Path(str(metadata.distribution(package).locate_file("")))
    for path in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise unreadable(path, error) from error
        if len(text) > _FILE_CHARACTERS or '"""' not in text:
            continue
        tree = _parse(strip_bodies(text)) or _parse(text)
        if tree is None:
            continue
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for name, node, docstring in _documented_objects(tree):
            summary, body = split_docstring(docstring)
            if len(body) >= _MIN_BODY_CHARACTERS:
                yield _Object(f"{module}.{name}", module, package, _signature(node), summary, body)


def _parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _documented_objects(tree: ast.Module) -> Iterator[tuple[str, ast.AST, str]]:
    """Yield (qualified name inside the module, node, docstring) of public objects, outermost first."""
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        prefix, parent = pending.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") and node.name != "__init__":
                    continue
                name = f"{prefix}{node.name}"
                docstring = ast.get_docstring(node, clean=False)
                if docstring:
                    yield name, node, docstring
                if isinstance(node, ast.ClassDef):
                    pending.append((f"{name}.", node))


def _signature(node: ast.AST) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return f"({ast.unparse(node.args)})"
    return ""


@contextmanager
def _without_collection() -> Iterator[None]:
    """Syntax trees hold no garbage cycles but many objects: collecting while they are made only costs time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
