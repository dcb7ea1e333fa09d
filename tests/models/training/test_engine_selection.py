"""Engines against the models that they were made from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertForSequenceClassification, set_seed

from models.cross_encoder.bfloat16 import Bfloat16Scorer, multiplies_bfloat16
from models.cross_encoder.engines import Kind, OnnxScorer, load_engine
from models.cross_encoder.int8 import SMOOTHING, Int8Scorer
from models.cross_encoder.onnx_session import FACTS, MODEL, is_graph
from models.cross_encoder.scorer import CrossEncoderScorer
from models.errors import ArtifactError
from models.evaluation.evaluation_set import split_of
from models.settings import EngineSettings
from models.training import engine_selection
from models.training.engine_selection import (
    Parity,
    ParitySample,
    build_engine,
    compare,
    export_model,
    parity_sample,
    write_facts,
)
from tests.small_bundle import Small
from tests.tiny_cross_encoder import TINY, add_tokenizer

MAX_TOKENS = 64

needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU does not multiply bfloat16")


@pytest.fixture(scope="module")
def sample(small: Small) -> ParitySample:
    queries, judgments = split_of(small.artifacts["corpus/evaluation_set"], "dev")
    candidates = small.artifacts["index/candidates"].read_table("candidates.parquet")
    passages = small.artifacts["corpus/passages"].read_table("passages.parquet")
    return parity_sample(candidates, queries, passages, judgments, 6)


@pytest.fixture(scope="module")
def exported(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    kinds: tuple[Kind, ...] = ("int8", "fp32")
    folders: dict[str, Path] = {}
    for kind in kinds:
        folders[kind] = tmp_path_factory.mktemp(kind)
        export_model(small.first.compact.folder, folders[kind], kind)
    return folders


@pytest.fixture(autouse=True)
def _exported_once(request: pytest.FixtureRequest, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of the compact model are built from the export that the module has: it would be the same bytes again."""

    def export(model: Path, folder: Path, kind: Kind) -> None:
        if model == small.first.compact.folder:
            shutil.copytree(request.getfixturevalue("exported")[kind], folder, dirs_exist_ok=True)
        else:
            export_model(model, folder, kind)

    monkeypatch.setattr(engine_selection, "export_model", export)


@pytest.fixture(scope="module")
def reference(small: Small, sample: ParitySample) -> np.ndarray:
    return CrossEncoderScorer.load(small.first.compact.folder, MAX_TOKENS).logits(sample.pairs)


def test_fp32_gives_the_scores_of_pytorch(
    exported: Mapping[str, Path], sample: ParitySample, reference: np.ndarray
) -> None:
    result = OnnxScorer.load(exported["fp32"], MAX_TOKENS).logits(sample.pairs)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference, atol=1e-3)


def test_int8_ranks_as_pytorch_does(exported: Mapping[str, Path], sample: ParitySample, reference: np.ndarray) -> None:
    assert (exported["int8"] / MODEL).stat().st_size < (exported["fp32"] / MODEL).stat().st_size
    result = compare(reference, OnnxScorer.load(exported["int8"], MAX_TOKENS).logits(sample.pairs), sample)
    assert result.queries == 6
    assert result.largest_difference > 0
    assert result.kendall_tau > 0.9


def scorer(kind: Kind, small: Small, exported: Mapping[str, Path], threads: int) -> Bfloat16Scorer | OnnxScorer:
    if kind == "bf16":
        return Bfloat16Scorer.load(small.first.compact.folder, MAX_TOKENS, threads)
    return OnnxScorer.load(exported[kind], MAX_TOKENS, threads)


@pytest.mark.parametrize("kind", ["int8", pytest.param("bf16", marks=needs_bfloat16)])
def test_the_score_of_a_pair_is_its_own(
    kind: Kind, small: Small, exported: Mapping[str, Path], sample: ParitySample
) -> None:
    first, many = (scorer(kind, small, exported, count) for count in (1, 3))
    together = many.logits(sample.pairs)
    alone = np.concatenate([first.logits([pair]) for pair in sample.pairs])
    assert together.tolist() == alone.tolist()
    assert many.logits(sample.pairs[::-1]).tolist() == together[::-1].tolist()
    assert first.logits([]).shape == (0,)


@needs_bfloat16
def test_bfloat16_is_close_to_pytorch_in_float32(small: Small, sample: ParitySample, reference: np.ndarray) -> None:
    result = Bfloat16Scorer.load(small.first.compact.folder, MAX_TOKENS).logits(sample.pairs)
    assert result.dtype == np.float32
    assert 0 < np.abs(result - reference).max() < 0.02 * np.ptp(reference)
    assert len(np.unique(result)) > 0.95 * len(np.unique(reference))  # the head has all bits of float32


@needs_bfloat16
def test_pairs_that_are_read_together_keep_their_places(
    small: Small, sample: ParitySample, reference: np.ndarray
) -> None:
    folder = small.first.compact.folder
    alone, together = (
        Bfloat16Scorer(CrossEncoderScorer.load(folder, MAX_TOKENS), 2, grouped, packed=False)
        for grouped in (False, True)
    )
    said: list[tuple[int, int]] = []
    result = together.logits(sample.pairs, progress=lambda done, total: said.append((done, total)))
    bound = 0.02 * np.ptp(reference)
    assert np.abs(result - alone.logits(sample.pairs)).max() < bound
    assert np.abs(result[::-1] - together.logits(sample.pairs[::-1])).max() < bound
    assert said[-1] == (len(sample.pairs), len(sample.pairs))
    assert together.logits([]).shape == (0,)


@needs_bfloat16
def test_bfloat16_leaves_the_callers_threads_as_they_were(small: Small) -> None:
    before = torch.get_num_threads()
    Bfloat16Scorer.load(small.first.compact.folder, MAX_TOKENS, threads=2).logits([("what", "A valve.")])
    assert torch.get_num_threads() == before
    result: list[int] = []
    later = Thread(target=lambda: result.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert result == [before]


def test_an_export_is_the_same_bytes_again(small: Small, exported: Mapping[str, Path], tmp_path: Path) -> None:
    export_model(small.first.compact.folder, tmp_path, "int8")
    assert (tmp_path / MODEL).read_bytes() == (exported["int8"] / MODEL).read_bytes()


def test_progress_ends_with_all(exported: Mapping[str, Path], sample: ParitySample) -> None:
    told: list[tuple[int, int]] = []
    OnnxScorer.load(exported["int8"], MAX_TOKENS).logits(sample.pairs, 10, lambda done, of: told.append((done, of)))
    assert told[-1] == (len(sample.pairs), len(sample.pairs))
    assert len(told) == -(-len(sample.pairs) // 10)


def test_a_classification_head_is_exported_too(tmp_path: Path) -> None:
    set_seed(1)
    config = deepcopy(TINY)
    config.num_labels = 1
    model = tmp_path / "model"
    BertForSequenceClassification(config).save_pretrained(model)
    add_tokenizer(model)
    engine = tmp_path / "engine"
    engine.mkdir()
    export_model(model, engine, "fp32")
    pairs = [("what moves water", "A pump moves water."), ("what", "A valve stops a flow.")]
    expected = CrossEncoderScorer.load(model, 32).logits(pairs)
    np.testing.assert_allclose(OnnxScorer.load(engine, 32).logits(pairs), expected, atol=1e-4)
    if multiplies_bfloat16():
        result = Bfloat16Scorer.load(model, 32).logits(pairs)
        np.testing.assert_allclose(result, expected, atol=2e-2)
        # Not rounded to 8 bits, as the logits of a head in bfloat16 are.
        assert (result != torch.from_numpy(result).bfloat16().float().numpy()).any()


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        # Of this toy int8 ranks as the model does less than a real one, and is slower than PyTorch.
        ({}, "bf16") if multiplies_bfloat16() else ({}, "fp32"),
        ({"kind": "int8", "min_kendall_tau": 0.5, "max_ndcg_loss": 1.0}, "int8"),
        ({"kind": "fp32"}, "fp32"),
    ],
)
def test_the_settings_choose_what_is_built(
    small: Small, sample: ParitySample, tmp_path: Path, limits: dict[str, Any], kind: str
) -> None:
    model = small.first.compact.folder
    facts = build_engine(model, MAX_TOKENS, "cpu", EngineSettings(**limits), sample, tmp_path / "compact")
    assert facts["kind"] == kind
    assert (facts["bytes"] > 0) == (kind != "bf16")
    files = {file.name for file in (tmp_path / "compact").iterdir()} - {FACTS}
    assert (files == {SMOOTHING}, MODEL in files) == (kind == "int8", kind == "fp32")
    loaded = load_engine(tmp_path, model, "compact", MAX_TOKENS)
    assert isinstance(loaded, {"bf16": Bfloat16Scorer, "int8": Int8Scorer, "fp32": OnnxScorer}[kind])


def test_of_two_that_rank_as_the_model_does_the_faster_one_is_taken(
    small: Small, sample: ParitySample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_selection, "_seconds", lambda engine, *_: 1.0 if isinstance(engine, Int8Scorer) else 2.0)
    settings = EngineSettings(min_kendall_tau=0.5, max_ndcg_loss=1.0)
    folder = tmp_path / "compact"
    assert build_engine(small.first.compact.folder, MAX_TOKENS, "cpu", settings, sample, folder)["kind"] == "int8"
    monkeypatch.setattr(engine_selection, "_seconds", lambda engine, *_: 2.0 if isinstance(engine, Int8Scorer) else 1.0)
    facts = build_engine(small.first.compact.folder, MAX_TOKENS, "cpu", settings, sample, folder)
    assert facts["kind"] == ("bf16" if multiplies_bfloat16() else "fp32")
    assert not (folder / SMOOTHING).exists()


def test_int8_of_older_bundles_and_other_architectures_is_a_graph(
    small: Small, exported: Mapping[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(exported["int8"], tmp_path / "compact")
    write_facts(tmp_path / "compact", "int8")
    assert is_graph(tmp_path / "compact")
    assert isinstance(load_engine(tmp_path, small.first.compact.folder, "compact", MAX_TOKENS), OnnxScorer)


def test_an_engine_that_is_not_close_enough_makes_room_for_a_slower_one(
    small: Small, sample: ParitySample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    settings = EngineSettings(min_kendall_tau=0.9999)
    model = small.first.compact.folder
    assert build_engine(model, MAX_TOKENS, "cpu", settings, sample, tmp_path / "compact")["kind"] == "fp32"


def test_bfloat16_is_refused_where_the_cpu_has_none(
    small: Small, sample: ParitySample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    model = small.first.compact.folder
    settings = EngineSettings(kind="bf16")
    with pytest.raises(ArtifactError, match="the scoring engine is in bfloat16, which this CPU does not multiply"):
        build_engine(model, MAX_TOKENS, "cpu", settings, sample, tmp_path / "compact")
    write_facts(tmp_path / "compact", "bf16")
    with pytest.raises(ArtifactError, match="the compact engine is in bfloat16"):
        load_engine(tmp_path, model, "compact", MAX_TOKENS)
    assert build_engine(model, MAX_TOKENS, "cpu", EngineSettings(), sample, tmp_path / "other")["kind"] != "bf16"


def test_an_engine_that_ranks_otherwise_is_refused(small: Small, sample: ParitySample, tmp_path: Path) -> None:
    settings = EngineSettings(kind="int8", min_kendall_tau=1.0)
    with pytest.raises(ArtifactError, match=r"no engine of the compact model ranks as the model does \(int8: Kendall"):
        build_engine(small.first.compact.folder, MAX_TOKENS, "cpu", settings, sample, tmp_path / "compact")
    assert not (tmp_path / "compact" / FACTS).exists()


def test_torch_needs_no_file(small: Small, sample: ParitySample, tmp_path: Path) -> None:
    model = small.first.compact.folder
    settings = EngineSettings(kind="torch")
    assert build_engine(model, MAX_TOKENS, "cpu", settings, sample, tmp_path / "compact") == {"kind": "torch"}
    assert isinstance(load_engine(tmp_path, model, "compact", MAX_TOKENS), CrossEncoderScorer)
    assert isinstance(load_engine(tmp_path, model, "large", MAX_TOKENS), CrossEncoderScorer)


def test_parity_is_counted_by_query() -> None:
    candidates = pd.DataFrame(
        {
            "query_id": ["a", "a", "a", "b", "b"],
            "passage_id": ["p1", "p2", "p3", "p1", "p2"],
            "document_id": ["d1", "d2", "d3", "d1", "d2"],
        }
    )
    judgments = pd.DataFrame({"query_id": ["a", "b"], "document_id": ["d1", "d2"], "grade": [1, 1]})
    sample = ParitySample([("", "")] * 5, candidates, judgments, [])
    reference = np.array([3, 2, 1, 1, 2], dtype=np.float32)
    result = np.array([2, 3, 1, 1, 2.5], dtype=np.float32)
    parity = compare(reference, result, sample)
    # Query a has one of three pairs of passages turned round, and its relevant document falls to rank 2.
    assert parity.kendall_tau == pytest.approx((1 / 3 + 1) / 2)
    assert parity.ndcg_change == pytest.approx((1 / np.log2(3) - 1) / 2)
    assert parity.ndcg_error == pytest.approx((1 - 1 / np.log2(3)) / 2)
    assert parity.largest_difference == 1
    assert parity.top_10_overlap == 1
    assert not parity.accepted(EngineSettings())
    assert Parity(1, 1, 0.0, 0.98, 1.0, 0.0).accepted(EngineSettings())


def test_a_loss_of_ndcg_counts_where_it_is_more_than_chance() -> None:
    limits = EngineSettings()
    assert not Parity(60, 1200, 0.1, 0.996, 1.0, -0.012, 0.004).accepted(limits)
    assert Parity(60, 1200, 0.1, 0.996, 1.0, -0.012, 0.009).accepted(limits)
    assert not Parity(60, 1200, 0.1, 0.9, 1.0, -0.012, 0.009).accepted(limits), "whatever nDCG says, the order differs"
