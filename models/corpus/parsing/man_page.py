"""The text of manual pages: requests and macros of roff as man(7) and mdoc(7) use them, without running roff.

What only changes the look goes, headings stand on lines of their own, tables become lines of cells. Conditions are read
as for a terminal. Pages that define macros of their own lose what these would have written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_GLYPHS = {
    "em": "—", "en": "–", "hy": "-", "mi": "-", "bu": "•", "aq": "'", "cq": "’", "oq": "‘", "dq": '"', "lq": "“",
    "rq": "”", "Bq": "„", "Fo": "«", "Fc": "»", "ga": "`", "ha": "^", "ti": "~", "rs": "\\", "co": "©", "rg": "®",
    "tm": "™", "de": "°", "mu": "×", "+-": "±", "->": "→", "<-": "←", "ua": "↑", "da": "↓", "<=": "≤", ">=": "≥",
    "!=": "≠", "==": "≡", "ss": "ß", ":a": "ä", ":o": "ö", ":u": "ü", ":A": "Ä", ":O": "Ö", ":U": "Ü", "'e": "é",
    "`e": "è", "'a": "á", "`a": "à", "'i": "í", "'o": "ó", "'u": "ú", "~n": "ñ", ",c": "ç", "^e": "ê", "^a": "â",
    "at": "@", "sh": "#", "Do": "$", "sl": "/", "ba": "|", "br": "|", "or": "|", "lB": "[", "rB": "]", "lC": "{",
    "rC": "}", "la": "⟨", "ra": "⟩", "Eu": "€", "12": "½", "14": "¼", "34": "¾", "*m": "μ", "*a": "α", "*b": "β",
}  # fmt: skip
_STRINGS = {"R": "®", "Tm": "™", "lq": "“", "rq": "”", "Aq": "'", 'L"': '"', 'R"': '"', "--": "—", "C`": "", "C'": ""}

_ESCAPE = re.compile(
    r"""\\(?:
      (?P<comment>["\#].*)
    | [fFgkmMnVY](?:\((?:..)|\[[^\]]*\]|[+-]?.)                # fonts, registers, colours
    | s(?:[+-]?\((?:..)|[+-]?\[[^\]]*\]|[+-]?\d|[+-]?'[^']*')  # sizes
    | [bDhHlLoRSvwxXZ]'[^']*'                                  # motions and drawings
    | \*(?:\((?P<string2>..)|\[(?P<string>[^\]]*)\]|(?P<string1>.))
    | \((?P<glyph2>..)
    | \[(?P<glyph>[^\]]*)\]
    | N'(?P<number>\d+)'
    | C'(?P<name>[^']*)'
    | (?P<other>.)
    )""",
    re.X,
)
_SPACES, _PLAIN = " 0~t", {"-": "-", "e": "\\", "\\": "\\", ".": ".", "'": "'", "`": "`", "_": "_", "E": "\\"}
_ARGUMENT = re.compile(r'\s*(?:"((?:[^"]|"")*)"?|((?:\\ |\S)+))')
_REQUEST = re.compile(r"[.']\s*([^\s\\]*|\\[}{]?)\s*(.*)")

_JOINED = {"BR", "BI", "IB", "IR", "RB", "RI", "SY"}
_SPACED = {"B", "I", "R", "SM", "SB", "CW", "UR", "MT", "ME", "UE", "MR", "OP", "YS"}
_BREAKS = {"PP", "P", "LP", "HP", "sp", "Pp", "Bd", "Ed", "Bl", "El", "Lp", "RS", "RE"}
_LINES = {"TP", "TQ", "br", "IP", "It"}
_HEADINGS = {"SH", "SS", "Sh", "Ss"}
_IGNORED_BLOCKS = {"de": "..", "de1": "..", "am": "..", "ig": "..", "EQ": ".EN", "PS": ".PE", "GS": ".GE"}
_MDOC = re.compile(r"[A-Z][a-z]{1,2}|%[A-Z]")
_MDOC_SKIPPED = {"Dd", "Dt", "Os", "Bk", "Ek", "Sm", "Xo", "Xc", "Pf", "Ns", "Fo", "Fc"}
_NAME = re.compile(r"(?P<names>\S.*?)(?:\s+[-–—−]+\s+|\s*[—–]\s*|\s+[-–—−]+(?=[^\s\d-]))(?P<summary>\S.*)", re.S)


class ManPage(NamedTuple):
    """A page: what it is called, what it is for in one sentence, and its text without that."""

    name: str
    section: str
    summary: str
    body: str


def parse_man_page(source: str) -> ManPage | None:
    """Read a page; None for what is none, points to another page, or does not say what it is for."""
    name = section = ""
    if match := re.search(r"^[.'](?:TH|Dt)[ \t]+(.*)", source, re.M):
        header = [plain(word) for word in _arguments(match[1])]
        name, section = (*header, "", "")[:2]
    sections = list(_sections(source))
    if not name or not sections:
        return None
    match = _NAME.fullmatch(" ".join(sections[0][1].split()))
    if match is None:
        return None
    # The page is called as its name section has it: headers are often in capitals.
    called = match["names"].split(",")[0].strip()
    body = "\n\n".join(f"{heading}\n{text}" if heading else text for heading, text in sections[1:])
    return ManPage(called or name, section, match["summary"].strip(), body.strip())


def plain(text: str) -> str:
    """Text without escapes."""
    return _ESCAPE.sub(_unescaped, text) if "\\" in text else text


def _unescaped(match: re.Match[str]) -> str:
    if (other := match["other"]) is not None:
        return " " if other in _SPACES else _PLAIN.get(other, "")
    if (glyph := match["glyph2"] or match["glyph"] or match["name"]) is not None:
        if re.fullmatch(r"u[0-9A-F]{4,5}", glyph):
            return chr(int(glyph[1:], 16))
        return _GLYPHS.get(glyph, "")
    if (number := match["number"]) is not None:
        return chr(int(number) % 0x110000)
    string = match["string2"] or match["string"] or match["string1"]
    return _STRINGS.get(string, "") if string else ""


def _arguments(text: str) -> list[str]:
    text = re.sub(r'\\["#].*', "", text)
    return [match[1].replace('""', '"') if match[1] is not None else match[2] for match in _ARGUMENT.finditer(text)]


def _sections(source: str) -> Iterator[tuple[str, str]]:
    """Heading and text of each section; the first is the name section."""
    heading, lines, begun = "", [], False
    for kind, text in _lines(source):
        if kind == "heading":
            if begun:
                yield heading, _tidy(lines)
            heading, lines, begun = text, [], True
        elif begun:
            lines.append(text)
    if begun:
        yield heading, _tidy(lines)


def _tidy(lines: list[str]) -> str:
    text = "\n".join(line.rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _lines(source: str) -> Iterator[tuple[str, str]]:
    lines = iter(source.replace("\\\n", "").split("\n"))
    end_of_block, hidden, layout = "", 0, False
    for line in lines:
        if end_of_block:
            end_of_block = "" if line.rstrip().replace(" ", "") == end_of_block else end_of_block
            continue
        if hidden:  # within braces of what is not for terminals
            hidden += line.count("\\{") - line.count("\\}")
            continue
        if layout:  # the columns of a table, up to a line that ends with a dot
            layout = not plain(line).rstrip().endswith(".")
            continue
        if not line.startswith((".", "'")):
            yield "text", plain(line).replace("\t", " ").removeprefix("T}").removesuffix("T{").strip()
            continue
        match = _REQUEST.match(line)
        if match is None:
            continue
        request, rest = match.groups()
        if request in _IGNORED_BLOCKS:
            end_of_block = _IGNORED_BLOCKS[request]
        elif request in ("if", "ie", "while"):
            condition, _, action = rest.partition(" ")
            if condition != "n":
                hidden = max(rest.count("\\{") - rest.count("\\}"), 0)
            elif action.strip() and not action.startswith("\\{"):
                yield "text", plain(action)
        elif request == "el":
            hidden = max(rest.count("\\{") - rest.count("\\}"), 0)
        elif request == "TS":
            layout = True
        elif request in _HEADINGS:
            words = _arguments(rest) or [next(lines, "")]
            yield "heading" if request in ("SH", "Sh") else "text", plain(" ".join(words)).strip()
        else:
            yield from (("text", text) for text in _macro(request, rest))


def _macro(request: str, rest: str) -> Iterator[str]:
    words = _arguments(rest)
    if request in _BREAKS:
        yield ""
    if request in _JOINED:
        yield plain("".join(words))
    elif request in _SPACED:
        yield plain(" ".join(words))
    elif request == "IP" and words:
        yield ""
        yield plain(words[0])
    elif request in _LINES and request != "It":
        yield ""
    elif _MDOC.fullmatch(request) and request not in _MDOC_SKIPPED and request not in _BREAKS:
        if request == "It":
            yield ""
        yield from filter(None, [_mdoc(request, words)])


def _mdoc(request: str, words: list[str]) -> str:
    """A line of mdoc: its macros, which may stand within it, without their names."""
    if request == "Nd":
        return f"— {plain(' '.join(words))}"
    written: list[str] = []
    for word in (request, *words):
        if _MDOC.fullmatch(word):
            written += ["-"] if word == "Fl" else []
        elif written and written[-1] == "-":
            written[-1] = f"-{plain(word)}"
        else:
            written.append(plain(word))
    return " ".join(written)
