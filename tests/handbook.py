"""A corpus of one document per machine, in the layout of BEIR, and a bi-encoder cut down to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.cut_model import write_cut_model

MACHINES = "oven boiler pump grinder press lathe burner filter saw baler loom kiln crane winch anvil forge".split()


def handbook() -> dict[str, str]:
    """Texts by document id."""
    return {
        f"{index:02}-{machine}": f"Clean the {machine} with soda number {index}. Then dry it with a cloth of linen."
        for index, machine in enumerate(MACHINES)
    }


def write_source(folder: Path, documents: Mapping[str, str]) -> Path:
    """A corpus in the layout of BEIR: one query per machine of the handbook, judged where its document is there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qrels").mkdir(exist_ok=True)
    lines = [json.dumps({"_id": name, "title": name[3:], "text": text}) for name, text in documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    names = sorted(handbook())
    queries = [json.dumps({"_id": f"q{name}", "text": f"how do I clean the {name[3:]}"}) for name in names]
    (folder / "queries.jsonl").write_text("\n".join(queries) + "\n")
    for split, part in (("train", names[:8]), ("dev", names[8:11]), ("test", names[11:])):
        rows = [f"q{name}\t{name}\t1" for name in part if name in documents]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


def write_encoder(folder: Path) -> Path:
    """The bundled bi-encoder with two of its layers and the word pieces of the handbook and of what is added to it."""
    from models.settings import Settings
    from models.weights import local_weights

    texts = [*handbook().values(), *handbook(), "how do I", "Note number. Another", "Rule of the house is strict."]
    return write_cut_model(local_weights(Settings().encoder.model), folder, texts, layers=2)
