"""Manual pages in many languages: a corpus of every Unix, and of Debian's packages manpages-de, -fr, -ja, -zh.

Each page is a document. What its name section says it is for, taken out of the document, is the query for it, after
CodeSearchNet (Husain et al., 2019, https://arxiv.org/abs/1909.09436), as in `models.corpus.sources.python_docs`. Pages
are read as text: neither man nor groff is run.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.contracts.rows import Document, Judgment, Place, Query, RejectedRow
from models.corpus.parsing.man_page import parse_man_page
from models.corpus.sources.base import is_folder, leads_out, rejected, row_digest, unreadable
from models.corpus.sources.python_docs import shorten
from models.errors import SourceError
from models.settings import ManPagesSettings
from models.store.durable_files import digest_json
from models.text.words import words

_FILE = re.compile(r"(?P<name>.+)\.(?P<section>[1-9n]\w*?)(?P<gz>\.gz)?")
_FILE_BYTES = 2_000_000
_MIN_BODY_CHARACTERS = 80
_SUMMARY_WORDS = range(3, 81)
"""Characters where words are written without spaces."""
_MAX_SHARING = 5
"""Pages that may share one summary; more, and it asks for none of them."""
_ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class _Page:
    document_id: str
    language: str
    title: str
    summary: str
    body: str

    @property
    def place(self) -> Place:
        return Place(self.document_id, row_digest(self.summary + self.body))


class ManPagesSource:
    """Documents, queries and judgments from the manual pages below a folder, as /usr/share/man.

    Of all pages, the `max_documents` with the smallest hash of their id (`de/man1/ls.1`) are taken. Pages that point to
    another page, repeat one, or have no text behind their name section are passed over. A page and its translations
    share a group, so that they stand in one split.
    """

    def __init__(self, folder: Path, settings: ManPagesSettings) -> None:
        self.folder = folder / settings.folder
        self.settings = settings
        self._pages: list[_Page] | None = None
        self._rejected: list[RejectedRow] = []
        if not is_folder(self.folder):
            raise SourceError(
                f"corpus.man_pages.folder: no folder at {self.folder}",
                "Install pages (apt-get install manpages-de), or name the folder that has man1 or de/man1.",
            )

    def fingerprint(self) -> str:
        """Digest of the names and contents of the pages, and of the settings."""
        digest = hashlib.sha256()
        for document_id, _, path in self._files():
            try:
                digest.update(digest_json([document_id, hashlib.sha256(path.read_bytes()).hexdigest()]).encode())
            except OSError as error:
                digest.update(f"{document_id} {error.strerror}".encode())
        settings = self.settings.model_dump(exclude={"folder"})
        return digest_json({"kind": "man-pages", "files": digest.hexdigest(), "settings": settings})

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the sampled pages, ordered by id, and the files that cannot be read."""
        for page in self._load():
            body = shorten(page.body, self.settings.max_body_characters)
            yield Document(page.document_id, page.title, body, source=page.language, place=page.place)
        yield from self._rejected

    def queries(self) -> Iterator[Query]:
        """Yield one query per distinct summary of a language, grouped by page."""
        for query_id, pages in self._by_summary():
            yield Query(query_id, pages[0].summary, group=_group(pages[0]), place=pages[0].place)

    def judgments(self) -> Iterator[Judgment]:
        """Yield, for each query, every page whose summary it is, grade 1."""
        for query_id, pages in self._by_summary():
            for page in pages:
                yield Judgment(query_id, page.document_id, 1, page.place)

    def _by_summary(self) -> Iterator[tuple[str, list[_Page]]]:
        by_text: dict[tuple[str, str], list[_Page]] = {}
        for page in self._load():
            if len(words(page.summary)) in _SUMMARY_WORDS:
                text = page.summary.casefold().rstrip(".!?。")
                by_text.setdefault((page.language, text), []).append(page)
        for key, pages in by_text.items():
            if len(pages) <= _MAX_SHARING:
                yield "q-" + hashlib.sha256("\0".join(key).encode("utf-8", "replace")).hexdigest()[:16], pages

    def _load(self) -> list[_Page]:
        if self._pages is None:
            self._rejected = []
            sampled = sorted(self._files(), key=lambda file: hashlib.sha256(file[0].encode()).digest())
            pages: dict[str, _Page] = {}
            contents: set[tuple[str, str]] = set()
            for document_id, language, path in sampled:
                if len(pages) == self.settings.max_documents:
                    break
                page = self._read(document_id, language, path)
                if page is not None and (language, page.body) not in contents:
                    contents.add((language, page.body))
                    pages[document_id] = page
            if not pages and not self._rejected:
                raise SourceError(
                    f"corpus.man_pages: no manual page in {self.folder}",
                    f"Correct folder, or languages; there are: {', '.join(sorted(self._languages())) or 'none'}.",
                )
            self._pages = [pages[name] for name in sorted(pages)]
        return self._pages

    def _languages(self) -> dict[str, Path]:
        """The folder of each language; pages that have none are English."""
        try:
            names = sorted(
                entry.name
                for entry in os.scandir(self.folder)
                if entry.is_dir() and not leads_out(self.folder / entry.name, self.folder)
            )
            return {
                _ENGLISH if name.startswith("man") else name.partition(".")[0]: self.folder / name
                for name in names
                if not name.startswith("man") or re.fullmatch(r"man[1-9n]", name)
            } | ({_ENGLISH: self.folder} if any(re.fullmatch(r"man[1-9n]", name) for name in names) else {})
        except OSError as error:
            raise unreadable(self.folder, error) from error

    def _files(self) -> Iterator[tuple[str, str, Path]]:
        """Id, language and path of each page, links left out: they name pages again."""
        present = self._languages()
        wanted = self.settings.languages or list(present)
        if missing := sorted(set(wanted) - set(present)):
            raise SourceError(
                f"corpus.man_pages.languages: no pages in {', '.join(missing)} in {self.folder}",
                f"There are: {', '.join(sorted(present)) or 'none'}. On Debian: apt-get install manpages-{missing[0]}.",
            )
        for language in sorted(set(wanted)):
            for folder in sorted(present[language].glob("man[1-9n]")):
                if leads_out(folder, self.folder):
                    continue
                for path in sorted(folder.iterdir()):
                    match = _FILE.fullmatch(path.name)
                    if match and path.is_file() and not path.is_symlink():
                        yield f"{language}/{folder.name}/{match['name']}.{match['section']}", language, path

    def _read(self, document_id: str, language: str, path: Path) -> _Page | None:
        try:
            with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
                data = file.read(_FILE_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            self._rejected.append(rejected("documents", f"cannot be read: {error}", document_id, rule="unreadable"))
            return None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        page = parse_man_page(text)
        if page is None or len(page.body) < _MIN_BODY_CHARACTERS:
            return None
        title = f"{page.name}({page.section})" if page.section else page.name
        return _Page(document_id, language, title, page.summary, page.body)


def _group(page: _Page) -> str:
    return page.document_id.partition("/")[2]
