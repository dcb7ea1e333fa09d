"""Markdown, HTML, PDF and plain text turned into a title and plain text, with what a front matter says.

These functions trust nothing: they may take long, take much memory or crash on files made to do so, and are therefore
called in a process of their own (`models.corpus.parsing.process`).
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.contracts.rows import Rule

if TYPE_CHECKING:
    from markdown_it.token import Token
    from selectolax.lexbor import LexborNode

KINDS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
}
"""How a file is parsed by the end of its name; as plain text where it is not listed."""

PARSER_MODULES = ("markdown_it", "selectolax.lexbor", "pypdf", "yaml")
"""What this module imports when it is needed: the extra `sources`."""

TITLE_CHARACTERS = 300
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.{0,65536}?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.S | re.M)
_UNCLOSED = re.compile(r"---[ \t]*\r?\n\s*[\w-]+:")
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.I)
_META_BYTES = 2048
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_LEFT_OUT = "script, style, template, noscript, svg, nav, footer, head"
_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure "
    "form h1 h2 h3 h4 h5 h6 header hr html legend li main ol option p pre section summary table tbody tfoot thead tr "
    "ul".split()
)
_SET_APART = frozenset(["heading_close", "bullet_list_close", "ordered_list_close", "table_close"])


class ParseError(Exception):
    """The file cannot be parsed; the message says why, and `rule` what it breaks."""

    def __init__(self, message: str, rule: Rule = "malformed") -> None:
        super().__init__(message)
        self.rule: Rule = rule


@dataclass(frozen=True)
class Parsed:
    """What a file says. `title` is empty where it says none; `front` holds the front matter's values as they stand."""

    title: str
    text: str
    front: Mapping[str, Any] = field(default_factory=dict)


def parse_file(kind: str, data: bytes, max_characters: int) -> Parsed:
    """Parse the content of a file of a `kind` of `KINDS`, or `text`. Raises `ParseError`."""
    if kind == "pdf":
        return _parse_pdf(data, max_characters)
    front, text = split_front_matter(_decode(data, html=kind == "html"))
    title, text = {"markdown": _parse_markdown, "html": _parse_html}.get(kind, _parse_text)(text)
    return Parsed(_one_line(front.get("title")) or _one_line(title), text.strip(), front)


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The YAML mapping between two lines of `---` at the start of a text, with scalars as text, and the rest.

    Raises `ParseError` when there is one that cannot be read: it may hold access labels.
    """
    import yaml

    class Loader(yaml.BaseLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not allowed")
            return super().compose_node(parent, index)

    match = _FRONT_MATTER.match(text)
    if match is None:
        if _UNCLOSED.match(text):
            raise ParseError("its front matter has no end: a line of --- within 64 KB")
        return {}, text
    try:
        value = yaml.load(match[1], Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParseError(f"its front matter is not YAML: {_one_line(str(error))}") from error
    return (value, text[match.end() :]) if isinstance(value, dict) else ({}, text)


def _decode(data: bytes, *, html: bool) -> str:
    encoding = "utf-8"
    if data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif html and (named := _META_CHARSET.search(data, 0, _META_BYTES)):
        encoding = _text_encoding(named[1].decode("ascii"))
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ParseError(f"not {encoding.upper()} at byte {error.start}", "encoding") from error


def _text_encoding(name: str) -> str:
    """Python's name of a charset; for the browsers' sake ISO 8859-1 is Windows-1252 (https://encoding.spec.whatwg.org)."""
    try:
        b"".decode(name)
        known = codecs.lookup(name).name
    except LookupError as error:
        raise ParseError(f"charset {name!r} is unknown", "encoding") from error
    if known.startswith(("utf-16", "utf-32", "idna", "punycode", "unicode", "raw")):
        return "utf-8"  # What names itself in ASCII is no UTF-16, and the others are no charsets.
    return "cp1252" if known in ("iso8859-1", "ascii") else known


def _parse_text(text: str) -> tuple[str, str]:
    return "", text


def _parse_markdown(text: str) -> tuple[str, str]:
    """The first heading, and the text without it and without markup; list items and table cells keep a mark."""
    from markdown_it import MarkdownIt

    title = ""
    blocks: list[str] = []
    heading = False
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        if token.type == "heading_open":
            heading = True
        elif token.type == "heading_close":
            heading = False
        elif token.type == "list_item_open":
            blocks.append("- ")
        elif token.type in ("th_close", "td_close"):
            blocks.append(" | ")
        elif token.type in ("fence", "code_block"):
            blocks.append(f"{token.content.rstrip()}\n\n")
        elif token.type == "html_block":
            blocks.append(f"{_parse_html(token.content)[1]}\n\n")
        elif token.type == "inline":
            content = "".join(_inline_text(token))
            if heading and not title and not "".join(blocks).strip():
                title = content
            else:
                blocks.append(content)
        elif token.type in ("paragraph_close", "tr_close"):
            blocks.append("\n" if token.hidden or token.type == "tr_close" else "\n\n")
        if token.type in _SET_APART and token.level == 0:
            blocks.append("\n\n")
    body = re.sub(r"\n{3,}", "\n\n", "".join(blocks).replace(" | \n", "\n")).strip()
    return title, body or title


def _inline_text(token: Token) -> Iterator[str]:
    for child in token.children or ():
        if child.type == "softbreak":
            yield " "
        elif child.type == "hardbreak":
            yield "\n"
        elif child.type == "image":
            yield from _inline_text(child)
        elif child.type in ("text", "code_inline", "text_special"):
            yield child.content


def _parse_html(text: str) -> tuple[str, str]:
    """The title, else the first h1, and the text of main, else of the body, a line for each block."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    titles = [node for tag in ("title", "h1") if (node := tree.css_first(tag)) is not None]
    title = next((line for node in titles if (line := _one_line(node.text()))), "")
    for node in tree.css(_LEFT_OUT):
        node.decompose()
    root = tree.css_first("main") or tree.body
    return title, _html_text(root) if root is not None else ""


def _html_text(root: LexborNode) -> str:
    block_of: dict[int, tuple[int, bool]] = {root.mem_id: (root.mem_id, False)}
    parts: list[str] = []
    last: int | None = None
    for node in root.traverse(include_text=True):
        parent = node.parent
        block, keeps_space = block_of.get(parent.mem_id, (0, False)) if parent is not None else (0, False)
        if node.tag == "-text":
            content = node.text_content or ""
            content = content if keeps_space else re.sub(r"\s+", " ", content)
            if not content.strip() and (block != last or (keeps_space is False and not parts)):
                continue
            if block != last and parts:
                parts.append("\n")
            parts.append(content)
            last = block
        elif node.tag in ("br", "hr"):
            parts.append("\n")
        else:
            own = node.mem_id if node.tag in _BLOCKS else block
            block_of[node.mem_id] = (own, keeps_space or node.tag in ("pre", "textarea"))
            if node.tag == "li":
                parts.append("\n- ")
                last = own
            elif node.tag in ("td", "th"):
                parts.append(" ")
    lines = (line.strip() if not line.startswith("    ") else line.rstrip() for line in "".join(parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _parse_pdf(data: bytes, max_characters: int) -> Parsed:
    """The title of its metadata, and the text of its pages. A scan without a text layer has none."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ParseError("it is encrypted")
        title = _one_line(reader.metadata.title if reader.metadata else "")
        pages: list[str] = []
        characters = 0
        for page in reader.pages:
            pages.append(_NO_TEXT.sub(" ", page.extract_text()).strip())
            characters += len(pages[-1])
            if characters > max_characters:
                raise ParseError(f"its text is longer than {max_characters:,} characters", "too_long")
    except DependencyError as error:
        raise ParseError(f"it is encrypted: {error}") from error
    except (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, OSError) as error:
        # pypdf raises what its parser meets in a malformed file.
        raise ParseError(f"not a PDF that can be read: {type(error).__name__}: {_one_line(str(error))}") from error
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise ParseError("it has no text; a scan must be recognized (OCR) first", "missing")
    return Parsed(title, text)


def _one_line(value: object) -> str:
    """Text on one line, cut to what a title may have."""
    return " ".join(value.split())[:TITLE_CHARACTERS] if isinstance(value, str) else ""
