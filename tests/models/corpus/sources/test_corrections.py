from __future__ import annotations

from typing import Any

from models.contracts.rows import Document, RejectedRow
from models.corpus.sources.base import rejected, row_digest
from models.corpus.sources.corrections import CorrectedSource, Correction, Corrections

FIXED = {"_id": "d", "text": "Fixed."}


def _broken(line: str, position: str) -> RejectedRow:
    return rejected("documents", "not JSON", position, line, rule="malformed")


def _correction(position: str, content: object, name: str = "c-1", row: Any = FIXED) -> Correction:
    return Correction(name, "documents", position, row_digest(content), row)


def _states(corrections: Corrections) -> list[tuple[str, str]]:
    return [(result.correction_id, result.state) for result in corrections.outcomes()]


def test_a_row_is_read_in_place_of_the_one_that_it_corrects_as_often_as_the_source_is_read() -> None:
    record = {"_id": "e", "text": ""}
    corrections = Corrections([_correction("a:2", "{x"), _correction("a:3", record, "c-2", {"_id": "e", "text": "E"})])
    good = ("a:1", {"_id": "c", "text": "Good."})
    rows: list[Any] = [good, _broken("{x", "a:2"), ("a:3", record)]
    for _ in range(2):
        assert list(corrections.over("documents", rows)) == [good, ("a:2", FIXED), ("a:3", {"_id": "e", "text": "E"})]
        assert _states(corrections) == [("c-1", "applied"), ("c-2", "applied")]
    assert list(corrections.over("queries", rows)) == rows


def test_a_correction_lapses_when_the_source_has_another_row_there_and_holds_again_when_it_is_back() -> None:
    corrections = Corrections([_correction("a:2", "{x")])
    mended: list[Any] = [("a:2", {"_id": "d", "text": "Mended in the source."})]
    assert list(corrections.over("documents", mended)) == mended
    assert _states(corrections) == [("c-1", "lapsed")]
    assert corrections.outcomes()[0].message == "a:2 has another row now"
    worse = [_broken("{y", "a:2")]
    assert list(corrections.over("documents", worse)) == worse
    assert list(corrections.over("documents", [_broken("{x", "a:2")])) == [("a:2", FIXED)]
    assert _states(corrections) == [("c-1", "applied")]


def test_a_correction_of_a_row_that_is_gone_says_so() -> None:
    corrections = Corrections([_correction("a:2", "{x")])
    assert list(corrections.over("documents", [])) == []
    assert corrections.outcomes()[0].state == "lapsed"
    assert corrections.outcomes()[0].message == "the source has no such row any more"


def test_a_line_that_moved_in_its_file_is_found_again_and_in_another_file_is_not() -> None:
    corrections = Corrections([_correction("a.jsonl:2", "{x")])
    rows: list[Any] = [_broken("{other", "a.jsonl:2"), _broken("{x", "a.jsonl:3"), _broken("{x", "a.jsonl:4")]
    assert list(corrections.over("documents", rows)) == [rows[0], rows[2], ("a.jsonl:3", FIXED)]
    assert _states(corrections) == [("c-1", "moved")]
    elsewhere = [_broken("{x", "b.jsonl:9")]
    assert list(Corrections([_correction("a.jsonl:2", "{x")]).over("documents", elsewhere)) == elsewhere


def test_of_rows_that_look_alike_the_one_in_its_place_is_taken() -> None:
    corrections = Corrections([_correction("a:5", "{x")])
    rows = [_broken("{x", f"a:{number}") for number in (4, 5, 6)]
    result = list(corrections.over("documents", rows))
    assert ("a:5", FIXED) in result
    assert sorted(row.position for row in result if isinstance(row, RejectedRow)) == ["a:4", "a:6"]


class _Source:
    def fingerprint(self) -> str:
        return "0" * 64

    def documents(self) -> Any:
        return iter([Document("d", "", "x", "s")])

    queries = judgments = documents


def test_corrections_are_a_part_of_the_fingerprint_by_what_they_say() -> None:
    def fingerprint(**changes: Any) -> str:
        built = {
            "correction_id": "c-1",
            "table": "documents",
            "position": "a:2",
            "digest": "0",
            "row": FIXED,
            **changes,
        }
        return CorrectedSource(_Source(), Corrections([Correction(**built)])).fingerprint()

    assert fingerprint() == fingerprint(correction_id="c-2")
    others = {fingerprint(), fingerprint(row={"_id": "d", "text": "Other."}), fingerprint(position="a:3"), "0" * 64}
    assert len(others) == 4
