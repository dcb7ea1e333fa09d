"""Manual pages as text."""

from __future__ import annotations

import pytest

from models.corpus.parsing.man_page import parse_man_page, plain

PAGE = r""".\" a comment
'\" t
.TH LS 1 "September 2022" "GNU coreutils 9.1"
.ie \n(.g .ds Aq \(aq
.el       .ds Aq '
.de Vb
.ft CW
..
.SH BEZEICHNUNG
ls, dir \- Verzeichnis\%inhalte
auflisten
.SH ÜBERSICHT
\fBls\fP [\fI\,OPTION\/\fP]…
.SH BESCHREIBUNG
.if t \{\
nur im Druck
.\}
.PP
Zeigt \(lqDateien\(rq \(em auch \[u00E4]ltere.\c
.TP
.BR \-a ", " \-\-all\fR=\fIWANN\fR
versteckte; siehe
.BR stat (1)
.TS
l l
l l.
eins	zwei
.TE
.SS Weitere
.IP "\(bu" 2
C:\e\&dir
"""


def test_a_page_is_its_name_what_it_is_for_and_the_rest() -> None:
    page = parse_man_page(PAGE)
    assert page is not None
    assert (page.name, page.section, page.summary) == ("ls", "1", "Verzeichnisinhalte auflisten")
    assert page.body.split("\n") == [
        "ÜBERSICHT", "ls [OPTION]…", "", "BESCHREIBUNG", "Zeigt “Dateien” — auch ältere.", "", "-a, --all=WANN",
        "versteckte; siehe", "stat(1)", "eins zwei", "Weitere", "", "•", "C:\\dir",
    ]  # fmt: skip


def test_mdoc() -> None:
    text = ".Dd May 1\n.Dt FTP 1\n.Os\n.Sh NAVN\n.Nm ftp\n.Nd overfør filer\n.Sh SYNOPSIS\n.Nm ftp\n.Op Fl v Ar host\n"
    page = parse_man_page(text)
    assert page is not None
    assert (page.name, page.section, page.summary) == ("ftp", "1", "overfør filer")
    assert page.body == "SYNOPSIS\nftp\n-v host"


@pytest.mark.parametrize("text", ["", ".so man1/ls.1", "no page", ".TH A 1\n.SH NAME\nonly a name\n", ".TH A 1\n"])
def test_what_does_not_say_what_it_is_for_is_no_page(text: str) -> None:
    assert parse_man_page(text) is None


@pytest.mark.parametrize(
    ("name_section", "summary"),
    [
        (r"tar \- 打包工具", "打包工具"),
        ("cat — списки", "списки"),
        (r"a, b \-\- two words", "two words"),
        (r"x \-tool", "tool"),
    ],
)
def test_dashes_of_name_sections(name_section: str, summary: str) -> None:
    page = parse_man_page(f".TH X 1\n.SH NAME\n{name_section}\n.SH A\nb")
    assert page is not None
    assert page.summary == summary


def test_escapes() -> None:
    assert plain(r"a\ b\~c") == "a b c"
    assert plain(r"\fBbold\fR\f[CW]x\f(CBy") == "boldxy"
    assert plain(r"\(co\[u20AC]\*(lqq\*(rq\N'65'") == "©€“q”A"
    assert plain(r"\s-1small\s0\h'1n'\v'2' \e") == "small \\"
