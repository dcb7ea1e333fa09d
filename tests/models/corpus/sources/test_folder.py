from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources import open_source
from models.corpus.sources.folder import FolderSource
from models.errors import SourceError
from models.settings import CorpusSettings, FolderSettings
from tests.models.corpus.parsing.pdfs import make_bomb, make_pdf

MODIFIED = 1_714_550_400  # 2024-05-01T08:00:00Z


def _folder(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.utime(path, (MODIFIED, MODIFIED))
    return folder


def _refused(source: FolderSource) -> dict[str, str]:
    return {row.position: row.reason for row in source.documents() if isinstance(row, RejectedRow)}


def _kept(source: FolderSource) -> dict[str, Document]:
    return {row.document_id: row for row in source.documents() if isinstance(row, Document)}


def test_each_kind_of_file_is_a_document_in_the_order_of_the_paths(tmp_path: Path) -> None:
    source = FolderSource(
        _folder(
            tmp_path / "kb",
            {
                "b/guide.md": "# The guide\n\nHow to.",
                "a.html": "<title>A page</title><p>Text.",
                "b/manual.PDF": make_pdf(["Turn the valve."], title="The manual"),
                "notes.txt": "Only notes.\n",
                "image.png": b"\x89PNG",
                ".hidden.md": "no",
                ".git/readme.md": "no",
                "b/a/deep.markdown": "Deep.",
            },
        ),
        FolderSettings(),
    )
    when = "2024-05-01T08:00:00+00:00"
    assert list(source.documents()) == [
        Document("a.html", "A page", "Text.", "kb", (), when),
        Document("notes.txt", "notes", "Only notes.", "kb", (), when),
        Document("b/guide.md", "The guide", "How to.", "kb", (), when),
        Document("b/manual.PDF", "The manual", "Turn the valve.", "kb", (), when),
        Document("b/a/deep.markdown", "deep", "Deep.", "kb", (), when),
    ]
    assert list(source.documents()) == list(source.documents())
    assert not list(source.queries())
    assert not list(source.judgments())


def test_front_matter_states_title_labels_source_and_time(tmp_path: Path) -> None:
    source = FolderSource(
        _folder(
            tmp_path,
            {
                "a.md": "---\ntitle: Named\naccess: [staff, board]\nsource: wiki\nupdated_at: 2023-01-02\n---\nx",
                "b.md": "---\naccess: staff, board\n---\nx",
                "c.md": "---\naccess: []\n---\nx",
                "d.md": "---\naccess:\n---\nx",
                "e.txt": "x",
            },
        ),
        FolderSettings(access=["everyone"], modified_times=False),
    )
    kept = _kept(source)
    assert kept["a.md"] == Document("a.md", "Named", "x", "wiki", ("staff", "board"), "2023-01-02T00:00:00+00:00")
    assert {name: row.access for name, row in kept.items()} == {
        "a.md": ("staff", "board"),
        "b.md": ("staff", "board"),
        "c.md": (),
        "d.md": ("everyone",),
        "e.txt": ("everyone",),
    }
    assert kept["e.txt"].updated_at is None


@pytest.mark.parametrize(
    "front", ["access: [a, {b: c}]", "access: {a: b}", "access: [[]]", "access: [''", "updated_at: soon"]
)
def test_front_matter_that_is_not_understood_is_refused_and_never_public(tmp_path: Path, front: str) -> None:
    source = FolderSource(_folder(tmp_path, {"a.md": f"---\n{front}\n---\ntext", "b.md": "good"}), FolderSettings())
    assert set(_refused(source)) == {"a.md"}
    assert set(_kept(source)) == {"b.md"}


def test_links_are_not_followed_and_one_that_leads_out_is_named(tmp_path: Path) -> None:
    outside = _folder(tmp_path / "outside", {"secret.md": "secret", "more/secret.md": "secret"})
    inside = _folder(tmp_path / "inside", {"a.md": "text", "sub/b.md": "text"})
    (inside / "out.md").symlink_to(outside / "secret.md")
    (inside / "out").symlink_to(outside / "more")
    (inside / "within.md").symlink_to(inside / "a.md")
    (inside / "sub" / "loop").symlink_to(inside)
    (inside / "self.md").symlink_to("self.md")
    (inside / "broken.md").symlink_to(tmp_path / "nowhere.md")
    (inside / "up.md").symlink_to("../outside/secret.md")
    source = FolderSource(inside, FolderSettings())
    assert set(_kept(source)) == {"a.md", "sub/b.md"}
    reason = "a link that leads out of the folder is not followed"
    assert _refused(source) == dict.fromkeys(["broken.md", "out", "out.md", "up.md"], reason)
    (tmp_path / "alias").symlink_to(inside)
    assert set(_kept(FolderSource(tmp_path / "alias", FolderSettings()))) == {"a.md", "sub/b.md"}


@pytest.mark.parametrize("table", ["queries", "judgments"])
def test_a_table_that_is_a_link_out_of_the_folder_is_not_read(tmp_path: Path, table: str) -> None:
    folder = _folder(tmp_path / "inside", {"a.md": "text"})
    (tmp_path / "secret").write_text("secret\n", encoding="utf-8")
    (folder / f"{table}.jsonl").symlink_to("../secret")
    with pytest.raises(SourceError, match=f"corpus.folder.{table}: .* leads out of {folder}"):
        FolderSource(folder, FolderSettings())


def test_files_that_cannot_be_parsed_cost_only_themselves(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        {
            "bomb.pdf": make_bomb(100),
            "broken.pdf": b"%PDF-1.7 broken",
            "empty.md": "",
            "latin.txt": b"caf\xe9",
            "large.txt": b"x" * 3000,
            "good.md": "good",
            "nul.txt": b"a\0b",
            "slow.md": "[a](<b" * 1_500_000,
        },
    )
    os.mkfifo(folder / "pipe.md")
    settings = FolderSettings(max_file_bytes=10_000_000, max_text_characters=2000, parse_seconds=1)
    rows = list(FolderSource(folder, settings).documents())
    refused = {row.position: row.reason for row in rows if isinstance(row, RejectedRow)}
    assert {name: reason.partition(":")[0] for name, reason in refused.items()} == {
        "bomb.pdf": "not a PDF that can be read",
        "broken.pdf": "not a PDF that can be read",
        "empty.md": "text",
        "latin.txt": "not UTF-8 at byte 3",
        "large.txt": "its text is longer than 2,000 characters",
        "slow.md": "it takes longer than 1 seconds to parse",
    }
    assert {row.document_id for row in rows if isinstance(row, Document)} == {"good.md", "nul.txt"}
    small = FolderSource(folder, FolderSettings(suffixes=[".txt"], max_file_bytes=2999))
    assert _refused(small)["large.txt"] == "3,000 bytes are more than corpus.folder.max_file_bytes = 2,999"


def test_what_may_not_be_read_is_a_rejected_file_or_a_source_error(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "kb", {"good.md": "good", "locked.md": "no"})
    (folder / "locked.md").chmod(0)
    code = (
        "import sys; from models.settings import FolderSettings\n"
        "from models.corpus.sources.folder import FolderSource\n"
        "from pathlib import Path\n"
        "source = FolderSource(Path(sys.argv[1]), FolderSettings())\n"
        "print(len(source.fingerprint())); print(*source.documents(), sep='\\n')"
    )

    # Root may read everything, unless it gives up that capability.
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []

    def run() -> str:
        command = [*powerless, sys.executable, "-c", code, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[4])
        return done.stdout + done.stderr

    output = run()
    assert "RejectedRow(table='documents', reason='cannot be read: Permission denied', position='locked.md'" in output
    assert "document_id='good.md'" in output
    (folder / "sub").mkdir(mode=0)
    assert f"SourceError: {folder / 'sub'} cannot be read: [Errno 13] Permission denied" in run()


def test_queries_and_judgments_are_tables_beside_the_files(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        {
            "a.md": "text",
            "queries.jsonl": json.dumps({"query_id": "q", "text": "Which?", "split": "test"}),
            "judgments.jsonl": json.dumps({"query_id": "q", "file": "a.md", "grade": 1}),
        },
    )
    source = FolderSource(folder, FolderSettings(columns={"judgments.document_id": "file"}))
    assert list(source.queries()) == [Query("q", "Which?", "test")]
    assert list(source.judgments()) == [Judgment("q", "a.md", 1)]
    assert set(_kept(source)) == {"a.md"}
    (folder / "qrels.csv").write_text("query_id,document_id,grade\nq,a.md,2\n")
    named = FolderSource(folder, FolderSettings(judgments="qrels.csv"))
    assert list(named.judgments()) == [Judgment("q", "a.md", 2)]


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"corpus\.path: no folder at"):
        open_source(CorpusSettings(source="folder", path="x"), tmp_path / "x")
    with pytest.raises(SourceError, match=r"corpus\.folder\.queries: no file q\.csv in"):
        FolderSource(tmp_path, FolderSettings(queries="q.csv"))
    with pytest.raises(SourceError, match=r"corpus\.folder\.judgments: .*j\.xlsx is of no known kind"):
        FolderSource(tmp_path, FolderSettings(judgments="j.xlsx"))
    with pytest.raises(SourceError, match=r"corpus\.folder\.suffixes: 'md' does not begin with a dot"):
        FolderSource(tmp_path, FolderSettings(suffixes=["md"]))
    with pytest.raises(SourceError, match=r"no file that ends in \.md, \.markdown"):
        list(FolderSource(tmp_path, FolderSettings()).documents())


def test_fingerprint_follows_content_paths_times_and_settings(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"a.md": "one", "b.md": "two", "other.png": "x"})
    seen = {FolderSource(folder, FolderSettings()).fingerprint()}
    (folder / "other.png").write_text("y")
    assert FolderSource(folder, FolderSettings()).fingerprint() in seen

    def is_new(settings: FolderSettings | None = None) -> bool:
        fingerprint = FolderSource(folder, settings or FolderSettings()).fingerprint()
        new = fingerprint not in seen
        seen.add(fingerprint)
        return new

    _folder(folder, {"a.md": "one!"})
    assert is_new()
    (folder / "a.md").rename(folder / "c.md")
    assert is_new()
    os.utime(folder / "c.md", (MODIFIED + 1, MODIFIED + 1))
    assert is_new()
    assert is_new(FolderSettings(modified_times=False))
    os.utime(folder / "c.md", (MODIFIED + 2, MODIFIED + 2))
    assert not is_new(FolderSettings(modified_times=False))
    assert is_new(FolderSettings(access=["a"]))
    (folder / "queries.jsonl").write_text("{}")
    assert is_new()


def test_odd_names_are_kept_or_refused_and_never_raise(tmp_path: Path) -> None:
    for name in [b"bad\xff.md", "tür 🙂.md".encode(), b"new\nline.md", b" space.md"]:
        (tmp_path / os.fsdecode(name)).write_text("text")
    source = FolderSource(tmp_path, FolderSettings())
    assert len(list(source.documents())) == 4
    assert len(source.fingerprint()) == 64
