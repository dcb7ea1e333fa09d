"""Small PDF files made by hand, good and bad ones."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence


def make_pdf(pages: Sequence[str], title: str = "", content: bytes | None = None, filters: str = "") -> bytes:
    """A PDF with a line of text on each page; `content` instead is the stream of the first page as it stands."""
    streams = [f"BT /F1 12 Tf 72 720 Td ({page}) Tj ET".encode("latin-1") for page in pages]
    if content is not None:
        streams[0] = content
    first = 4
    kids = " ".join(f"{first + 2 * n} 0 R" for n in range(len(streams)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(streams)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, stream in enumerate(streams):
        resources = "<< /Font << /F1 3 0 R >> >>"
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {first + 2 * number + 1} 0 R"
        objects.append(f"{page} /Resources {resources} >>".encode())
        objects.append(
            f"<< /Length {len(stream)} {filters if not number else ''} >>\nstream\n".encode() + stream + b"\nendstream"
        )
    objects.append(f"<< /Title ({title}) >>".encode("latin-1"))
    data, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    data += "".join(f"{offset:010d} 00000 n \n" for offset in offsets).encode()
    info = f" /Info {len(objects)} 0 R" if title else ""
    data += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R{info} >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(data)


def make_bomb(megabytes: int) -> bytes:
    """A PDF whose page expands to so many MB: twice deflated spaces."""
    spaces = zlib.compress(b" " * (megabytes * 1_000_000), 9)
    return make_pdf([""], content=zlib.compress(spaces, 9), filters="/Filter [/FlateDecode /FlateDecode]")


def make_encrypted() -> bytes:
    """A PDF that opens with a password only."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(make_pdf(["secret"]))))
    writer.encrypt("password", algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()
