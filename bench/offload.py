"""Training on a machine that has a GPU and not the application, in three steps:

    python -m bench.offload pack FOLDER NAME         here, once for each deployment to train (RERANKOPS_HOME and so on)
    python -m bench.offload train FOLDER OUT         there: both models of every job, and their logits
    python -m bench.offload report FOLDER OUT        here: docs/benchmarks/quality.json

The middle step needs this checkout, PyTorch, sentence-transformers, datasets, pandas and pydantic. It runs
`models.training.fine_tuning` as the assets do; FOLDER/jobs is all that it reads, so the rest need not travel. What it
has done it finds done when it is called again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.folders import FIGURES, ROOT

RESULTS = FIGURES / "quality.json"
_TEXTS = "texts.parquet"
_BATCH = 256


def main() -> None:
    """One of the steps."""
    parser = argparse.ArgumentParser(description="Training on another machine.")
    steps = parser.add_subparsers(dest="step", required=True)
    pack_step = steps.add_parser("pack", help="put the current deployment's training into FOLDER")
    pack_step.add_argument("folder", type=Path)
    pack_step.add_argument("name", help="name of the job, as in squad-seed0")
    pack_step.add_argument("--base", default="", help="job whose large model this one starts from")
    pack_step.add_argument("--teacher", default="", help="job whose large model is taken as it is, to learn from")
    pack_step.add_argument("--large-only", action="store_true", help="train no compact model")
    train_step = steps.add_parser("train", help="train and score what FOLDER holds")
    train_step.add_argument("folder", type=Path)
    train_step.add_argument("out", type=Path)
    train_step.add_argument("jobs", nargs="*", help="names of jobs, in the order to run; default all")
    train_step.add_argument("--workers", type=int, default=1, help="jobs at a time")
    train_step.add_argument("--seconds", type=float, default=float("inf"), help="start nothing after so long")
    train_step.add_argument("--models", type=Path, help="where trained models are kept; default OUT/models")
    report_step = steps.add_parser("report", help="evaluate what OUT holds")
    report_step.add_argument("folder", type=Path)
    report_step.add_argument("out", type=Path)
    report_step.add_argument("--candidates", type=int, default=0, help="rerank so many instead of all that were scored")
    options = parser.parse_args()
    if options.step == "pack":
        pack(options)
    elif options.step == "report":
        report(options.folder, options.out, options.candidates)
    else:
        models = options.models or options.out / "models"
        names = options.jobs or sorted(path.stem for path in (options.folder / "jobs").glob("*.json"))
        if len(names) == 1:
            train(options.folder / "jobs", names[0], options.out, models)
        else:
            train_all(options.folder, names, options.out, models, options.workers, options.seconds)


def pack(options: argparse.Namespace) -> None:
    """Write a job: settings, examples and the pairs to score, of the current deployment.

    Texts stand once in FOLDER/jobs/texts.parquet, and in all tables as their number there.
    """
    from models.cross_encoder.candidate_scores import candidate_pairs
    from models.settings import load_settings
    from models.store.artifacts import ArtifactStore
    from models.training.corpus_defaults import settings_in_force

    settings = load_settings()
    store = ArtifactStore.of(settings)
    settings = settings_in_force(store, settings)
    parts = ("training/training_examples", "corpus/evaluation_set", "index/candidates", "corpus/passages")
    examples, evaluation_set, candidates, passages = (store.require(part) for part in parts)
    jobs = options.folder / "jobs"
    tables = jobs / "tables" / f"{examples.data_version}-{candidates.data_version}"
    stays = options.folder / "evaluation" / candidates.data_version
    queries = evaluation_set.read_table("queries.parquet")
    if not tables.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        texts = _Texts(jobs / _TEXTS)
        work = Path(tempfile.mkdtemp(dir=options.folder, prefix=".packing-"))
        for kind in ("training_examples", "development_lists"):
            rows = examples.read_table(f"{kind}.parquet")
            columns = [column for column in ("query_id", "label", "kind") if column in rows]
            numbered = rows[columns].assign(query=texts.numbers(rows["query"]), passage=texts.numbers(rows["passage"]))
            numbered.to_parquet(work / f"{kind}.parquet", compression="zstd")
        table = candidates.read_table("candidates.parquet")
        table = table[table["query_id"].isin(queries["query_id"])].reset_index(drop=True)
        read = passages.read_table("passages.parquet", ["passage_id", "title", "text"])
        pairs = candidate_pairs(table, queries, read)
        numbers = {
            "query": texts.numbers([query for query, _ in pairs]),
            "passage": texts.numbers([passage for _, passage in pairs]),
        }
        pd.DataFrame(numbers).to_parquet(work / "pairs.parquet", compression="zstd")
        texts.save()
        stays.mkdir(parents=True, exist_ok=True)
        table.to_parquet(stays / "candidates.parquet")
        queries.to_parquet(stays / "queries.parquet")
        evaluation_set.read_table("judgments.parquet").to_parquet(stays / "judgments.parquet")
        candidates.read_table("first_stage.parquet").to_parquet(stays / "first_stage.parquet")
        tables.parent.mkdir(parents=True, exist_ok=True)
        work.replace(tables)
    facts = {
        "base": options.base,
        "teacher": options.teacher,
        "tables": tables.name,
        "sizes": ["compact"] if options.teacher else ["large"] if options.large_only else ["large", "compact"],
        "corpus": Path(settings.corpus.path).name if settings.corpus.path else settings.corpus.source,
        "preset": settings.preset,
        "candidates": candidates.data_version,
        "examples": examples.data_version,
        "training": settings.training.model_dump(),
        "tiers": settings.tiers.model_dump(),
        "evaluation": settings.evaluation.model_dump(),
    }
    (jobs / f"{options.name}.json").write_text(json.dumps(facts, indent=1))
    print(f"{options.name}: {facts['corpus']}, {settings.preset}, tables {tables.name}")


class _Texts:
    """Numbers for texts, each stored once."""

    def __init__(self, path: Path) -> None:
        self._place = path
        known = pd.read_parquet(path)["text"].tolist() if path.exists() else []
        self._number = {text: number for number, text in enumerate(known)}

    def numbers(self, texts: Sequence[str] | pd.Series) -> np.ndarray:
        """int32 [n], new numbers for new texts."""
        return np.array([self._number.setdefault(text, len(self._number)) for text in texts], dtype=np.int32)

    def save(self) -> None:
        """Write them all."""
        self._place.parent.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame({"text": list(self._number)})
        table.to_parquet(self._place, compression="zstd", compression_level=15, use_dictionary=False)


def train_all(folder: Path, names: Sequence[str], out: Path, models: Path, workers: int, seconds: float) -> None:
    """Each job in a process of its own, `workers` at a time; one that starts from another's model waits for it."""
    began = time.monotonic()
    finished: dict[str, int] = {}

    def run(name: str) -> None:
        facts = json.loads((folder / "jobs" / f"{name}.json").read_text())
        awaited = {facts["base"], facts["teacher"]} & set(names)
        while not awaited <= set(finished):
            time.sleep(0.2)
        if time.monotonic() - began > seconds:
            finished[name] = -1
            return
        log = out / f"{name}.log"
        command = [sys.executable, "-m", "bench.offload", "train", str(folder), str(out), name, "--models", str(models)]
        with log.open("wb") as file:
            ended = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, check=False)
        finished[name] = ended.returncode
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        print(f"{time.monotonic() - began:6.1f} s  {name}: {last}", flush=True)
        if ended.returncode == 0:
            log.unlink()

    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, _awaited_first(folder / "jobs", names)))
    failed = [name for name, code in finished.items() if code > 0]
    skipped = [name for name, code in finished.items() if code < 0]
    print(f"{len(names) - len(failed) - len(skipped)} done; failed: {failed}; not started: {skipped}")


def _awaited_first(jobs: Path, names: Sequence[str]) -> list[str]:
    """The names in their order, but for those that others wait for, which come before them."""
    ordered: dict[str, None] = {}

    def add(name: str) -> None:
        facts = json.loads((jobs / f"{name}.json").read_text())
        for other in (facts["base"], facts["teacher"]):
            if other in names and other not in ordered:
                add(other)
        ordered.setdefault(name)

    for name in names:
        add(name)
    return list(ordered)


def train(jobs: Path, name: str, out: Path, models: Path) -> None:
    """Both models of a job, kept in MODELS/NAME, and the logits of its pairs, in OUT/NAME.npz."""
    import torch

    from models.cross_encoder.scorer import CrossEncoderScorer, resolve_device
    from models.settings import TrainingSettings, chosen
    from models.training.fine_tuning import mixed_precision, train_large, train_student

    if (out / f"{name}.npz").exists():
        print("done before")
        return
    facts = json.loads((jobs / f"{name}.json").read_text())
    settings = TrainingSettings.model_validate(facts["training"])
    if facts["base"]:
        settings = settings.model_copy(update={"base_model": str((models / facts["base"] / "large").resolve())})
    large, tables = models / (facts["teacher"] or name) / "large", jobs / "tables" / facts["tables"]
    texts = np.array(pd.read_parquet(jobs / _TEXTS)["text"].tolist(), dtype=object)
    examples, development = (
        _with_texts(pd.read_parquet(tables / f"{kind}.parquet"), texts)
        for kind in ("training_examples", "development_lists")
    )
    table = pd.read_parquet(tables / "pairs.parquet")
    pairs = list(zip(texts[table["query"]], texts[table["passage"]], strict=True))
    device = resolve_device(settings.device)
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "torch": torch.__version__,
        "precision": mixed_precision(settings),
    }
    logits: dict[str, np.ndarray] = {}
    for size in facts["sizes"]:
        model_folder = models / name / size
        began = time.perf_counter()
        if size == "large":
            outcome = train_large(examples, settings, model_folder, _progress(size), development=development)
        else:
            outcome = train_student(
                size, examples, large, settings, model_folder, _progress(size), development=development
            )
        trained = time.perf_counter()
        scorer = CrossEncoderScorer.load(model_folder, chosen(settings.max_tokens), device)
        logits[size] = scorer.logits(pairs, batch_size=_BATCH if device == "cuda" else 32)
        figures[size] = {
            "training": outcome.to_dict(),
            "seconds": round(trained - began, 2),
            "pairs_per_second": round(outcome.pairs / (trained - began), 1),
            "pairs_scored_per_second": round(len(pairs) / (time.perf_counter() - trained), 1),
        }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(figures))
    written = {size: values.astype(np.float32) for size, values in logits.items()}
    np.savez(out / f"{name}.new.npz", allow_pickle=False, **written)
    os.replace(out / f"{name}.new.npz", out / f"{name}.npz")
    told = ", ".join(f"{size} {figures[size]['pairs_per_second']:.0f} pairs/s" for size in logits)
    print(told + "".join(f", {figures[size]['training']['development'][-3:]}" for size in logits))


def _with_texts(table: pd.DataFrame, texts: np.ndarray) -> pd.DataFrame:
    return table.assign(query=texts[table["query"]], passage=texts[table["passage"]])


def _progress(size: str) -> Any:
    began = time.monotonic()

    def report(done: int, total: int) -> None:
        if done % max(total // 10, 1) == 0:
            print(f"{size}: {done} of {total} steps, {time.monotonic() - began:.1f} s", flush=True)

    return report


def report(folder: Path, out: Path, candidates: int = 0) -> None:
    """Evaluate every job of OUT on the test queries, calibrated on the development ones; writes quality.json."""
    from bench.results import merge_into
    from models.settings import TrainingSettings

    for logits_file in sorted(out.glob("*.npz")):
        facts = json.loads((folder / "jobs" / f"{logits_file.stem}.json").read_text())
        logits = _logits(logits_file)
        if facts["teacher"]:
            logits["large"] = _logits(logits_file.with_name(f"{facts['teacher']}.npz"))["large"]
        trained = _trained(out, logits_file.stem)
        layers = _trained(out, facts["teacher"] or logits_file.stem)["large"]["training"]["layers"]
        evaluated = evaluate(folder / "evaluation" / facts["candidates"], facts, logits, layers, candidates)
        shown = {name: values["nDCG@10"] for name, values in evaluated["systems"].items()}
        print(logits_file.stem, evaluated["queries"], json.dumps(shown), json.dumps(evaluated["gains"]["tiered"]))
        times = {
            size: {key: value for key, value in trained[size].items() if key != "training"} for size in facts["sizes"]
        }
        device = {key: trained[key] for key in ("device", "precision")}
        default = TrainingSettings().model_dump()
        settings = {key: value for key, value in facts["training"].items() if value != default.get(key)}
        starts = {key: facts[key] for key in ("base", "teacher") if facts[key]}
        key = f"{facts['preset']}, {logits_file.stem}"
        told = {**evaluated, **device, **starts, "settings": settings, "training": times}
        merge_into(RESULTS, {facts["corpus"]: {key: told}})


def _trained(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / f"{name}.json").read_text())


def _logits(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {size: stored[size] for size in stored.files}


def evaluate(
    inputs: Path, facts: Mapping[str, Any], logits: Mapping[str, np.ndarray], layers: int, candidates: int = 0
) -> dict[str, Any]:
    """Systems, gains and power, as `bench.quality` writes them."""
    from dataclasses import replace

    from bench.early_exits import ndcg
    from bench.quality import figures
    from models.cascade.calibration import fit_calibration
    from models.cascade.offline import pairs_per_query, rerank
    from models.cascade.window_fitting import fit_early_exit
    from models.contracts.tiers import FIRST_STAGES
    from models.evaluation.report import evaluate_systems
    from models.settings import EvaluationSettings, TiersSettings

    settings, tiers = EvaluationSettings(**facts["evaluation"]), TiersSettings(**facts["tiers"])
    kinds = ("candidates", "queries", "judgments", "first_stage")
    table, queries, judgments, stages = (pd.read_parquet(inputs / f"{kind}.parquet") for kind in kinds)
    scored = table.assign(**{f"{size}_logit": values.astype(np.float64) for size, values in logits.items()})
    if candidates:
        scored = scored[scored["rank"] <= candidates].reset_index(drop=True)
    ids = {split: queries.loc[queries["split"] == split, "query_id"] for split in ("dev", "test")}
    of_split = {
        split: (scored[scored["query_id"].isin(ids[split])], judgments[judgments["query_id"].isin(ids[split])])
        for split in ids
    }
    kept = len(facts["training"]["compact_layers"])  # layers cost alike
    costs = {"compact": kept / layers, "large": 1.0}
    calibration = fit_calibration(*of_split["dev"])
    fitted = fit_early_exit(*of_split["dev"], calibration, tiers, costs)
    calibration = replace(calibration, early_exit=fitted.early_exit)
    test, judged = of_split["test"]
    of_test = stages[stages["query_id"].isin(ids["test"])]
    reranked = rerank(test, calibration, tiers)
    rankings = {str(name): rows.drop(columns="system") for name, rows in of_test.groupby("system")}
    rankings |= reranked
    seconds = dict.fromkeys([*rankings, *FIRST_STAGES], 0.0)
    of_dev = rerank(of_split["dev"][0], calibration, tiers)["large"]
    before = stages[(stages["system"] == "hybrid") & stages["query_id"].isin(ids["dev"])]
    return {
        **figures(evaluate_systems(rankings, judged, seconds, settings).to_dict()),
        "candidates": int(scored["rank"].max()),
        "pairs_per_query": pairs_per_query(reranked["tiered"], calibration.early_exit),
        "development": {
            name: round(ndcg(ranking, of_split["dev"][1]), 4)
            for name, ranking in (("hybrid", before), ("large", of_dev))
        },
    }


if __name__ == "__main__":
    main()
