from __future__ import annotations

import pytest

from models.corpus.parsing.parsers import Parsed, ParseError, parse_file, split_front_matter
from tests.models.corpus.parsing.pdfs import make_bomb, make_encrypted, make_pdf

LIMIT = 1_000_000


def _markdown(text: str) -> Parsed:
    return parse_file("markdown", text.encode(), LIMIT)


def _html(text: str) -> Parsed:
    return parse_file("html", text.encode(), LIMIT)


def test_markdown_becomes_text_and_its_first_heading_the_title() -> None:
    parsed = _markdown(
        "# Pumps *and* valves\n\nOne\nparagraph with `code`, a [link](http://x),"
        " ![a drawing](y.png) &amp; <b>more</b>.\n"
        "\n"
        "- first\n- second\n  - inner\n\n| part | price |\n|---|---|\n| seal | 3 |\n\n```\nturn(left)\n```\n\n"
        "<div>raw <i>HTML</i></div>\n\n> quoted\n\n## Second\n\nLine one  \nline two\n"
    )
    assert parsed.title == "Pumps and valves"
    assert parsed.text == (
        "One paragraph with code, a link, a drawing & more.\n\n- first\n- second\n- inner\n\npart | price\nseal | 3\n"
        "\nturn(left)\n\nraw HTML\n\nquoted\n\nSecond\n\nLine one\nline two"
    )


def test_a_heading_behind_text_is_text_and_one_alone_is_both() -> None:
    assert _markdown("Some text.\n\n# Later\n") == Parsed("", "Some text.\n\nLater")
    assert _markdown("# Alone\n") == Parsed("Alone", "Alone")


def test_html_becomes_a_line_for_each_block() -> None:
    parsed = _html(
        "<!doctype html><html><head><title>The  \n title</title><style>x{}</style></head><body><nav>Home</nav>"
        "<main><h1>Pumps</h1><p>One <b>bold</b>word<br>next</p><ul><li>a<li>b <i>c</i></ul>"
        "<table><tr><td>1</td><td>2</td></tr><tr><td>3<td>4</table><pre>if x:\n    y</pre>tail &lt;3"
        "<script>alert(1)</script></main><footer>©</footer></body></html>"
    )
    assert parsed == Parsed("The title", "Pumps\nOne boldword\nnext\n- a\n- b c\n1 2\n3 4\nif x:\n    y\ntail <3")


def test_html_without_title_or_main_takes_h1_and_body() -> None:
    assert _html("<h1>Head</h1><p>Body") == Parsed("Head", "Head\nBody")
    assert _html("just text") == Parsed("", "just text")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'<meta charset="windows-1252"><p>caf\xe9', "café"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"><p>\x80uro', "€uro"),
        (b'<meta charset="shift_jis"><p>\x93\xfa\x96{', "日本"),
        (b'<meta charset="utf-16"><p>plain', "plain"),
        (b"\xff\xfe" + "<p>wide".encode("utf-16-le"), "wide"),
        (b"\xef\xbb\xbf<p>marked", "marked"),
    ],
)
def test_html_is_decoded_as_it_says(data: bytes, text: str) -> None:
    assert parse_file("html", data, LIMIT).text == text


@pytest.mark.parametrize("kind", ["markdown", "html", "text"])
def test_wrong_encodings_are_named(kind: str) -> None:
    with pytest.raises(ParseError, match="not UTF-8 at byte 5"):
        parse_file(kind, b"caf\xc3\xa9\xe9", LIMIT)
    with pytest.raises(ParseError, match="charset 'klingon' is unknown"):
        parse_file("html", b"<meta charset=klingon>", LIMIT)


def test_front_matter_is_taken_off_and_its_scalars_are_text() -> None:
    parsed = _markdown(
        "---\ntitle: Pumps\naccess: [staff, 7]\nupdated_at: 2024-05-01\ndraft: no\n---\n# Head\n\nBody\n"
    )
    assert parsed == Parsed(
        "Pumps", "Body", {"title": "Pumps", "access": ["staff", "7"], "updated_at": "2024-05-01", "draft": "no"}
    )
    assert split_front_matter("---\r\na: b\r\n---\r\nrest") == ({"a": "b"}, "rest")


@pytest.mark.parametrize(
    "text", ["---\nSome text\n---\nmore", "no front matter", "---\nnever closed", "\n---\na: b\n---\n"]
)
def test_a_line_is_no_front_matter(text: str) -> None:
    assert split_front_matter(text) == ({}, text if "Some text" not in text else "---\nSome text\n---\nmore")


def test_front_matter_without_an_end_is_refused_as_it_may_hold_labels() -> None:
    for text in ("---\naccess: [board]\n\nText", "---\n\naccess: board", "---\na: b\n" + "x" * 70_000 + "\n---\n"):
        with pytest.raises(ParseError, match="its front matter has no end"):
            split_front_matter(text)


@pytest.mark.parametrize(
    "front", ["access: [a", "a: *b", "x: &a [1]\ny: *a", "a: b: c", "\t- x", "[" * 5000, "? {[}]: 1"]
)
def test_front_matter_that_cannot_be_read_is_refused_as_it_may_hold_labels(front: str) -> None:
    with pytest.raises(ParseError, match="its front matter is not YAML"):
        split_front_matter(f"---\n{front}\n---\ntext")


def test_pdf_pages_are_joined_and_the_metadata_has_the_title() -> None:
    parsed = parse_file("pdf", make_pdf(["First page.", "Second page."], title="A  manual"), LIMIT)
    assert parsed == Parsed("A manual", "First page.\n\nSecond page.")
    assert parse_file("pdf", make_pdf(["Untitled."]), LIMIT).title == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a PDF that can be read"),
        (b"%PDF-1.4\nnothing", "not a PDF that can be read"),
        (make_pdf(["cut short"])[:200], "not a PDF that can be read"),
        (make_pdf([""]), "it has no text; a scan must be recognized"),
        (make_pdf(["x" * 200] * 20), "its text is longer than 1,000 characters"),
        (make_encrypted(), "it is encrypted"),
    ],
)
def test_pdf_files_that_cannot_be_read_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse_file("pdf", data, 1000)


def test_a_pdf_that_expands_to_more_than_pypdf_allows_is_refused() -> None:
    with pytest.raises(ParseError, match="not a PDF that can be read"):
        parse_file("pdf", make_bomb(100), LIMIT)
