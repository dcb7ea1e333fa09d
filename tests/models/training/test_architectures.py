"""Every architecture from its own weights to an engine that ranks as sentence-transformers does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st
from sentence_transformers.cross_encoder import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification, set_seed

from models.cross_encoder.engines import load_engine
from models.cross_encoder.pair_template import PairTemplate
from models.cross_encoder.pair_tokenizer import PairTokenizer
from models.cross_encoder.passage_cut import PassageCut
from models.cross_encoder.scorer import CrossEncoderScorer
from models.errors import ArtifactError, ModelFileError, SettingsError
from models.settings import EngineSettings
from models.training.engine_selection import ParitySample, build_engine
from models.training.fine_tuning import train_large, train_student
from tests.tiny_architectures import SIZES, WRITERS, write_architecture
from tests.tiny_cross_encoder import TOPICS, examples, tiny_settings, weights_of

pytestmark = pytest.mark.heavy

MAX_TOKENS = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_architecture(name, tmp_path_factory.mktemp(name)) for name in WRITERS}


def sample() -> ParitySample:
    """A judged passage and four others for each of four queries."""
    rows, pairs = [], []
    for query, topic in enumerate(TOPICS[:4]):
        for number, other in enumerate((topic, *TOPICS[4:])):
            rows.append((f"q{query}", f"p{number}", f"d{number}"))
            pairs.append(
                (f"how to oil the {topic}?", f"This is {'void' * (number % 2)}: oil the {other} {number} times.")
            )
    candidates = pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id"])
    judgments = pd.DataFrame({"query_id": [f"q{query}" for query in range(4)], "document_id": "d0", "grade": 1})
    return ParitySample(pairs, candidates, judgments, pairs)


def published(folder: Path, pairs: Any) -> np.ndarray:
    """The logits of a folder's model by sentence-transformers alone."""
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    return model.predict(list(pairs), activation_fn=torch.nn.Identity())


@pytest.mark.parametrize("name", WRITERS)
def test_weights_taken_as_they_are_score_as_sentence_transformers_does(
    name: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    """Zero-shot: nothing is trained, the engine keeps the order, and the saved model is still one of anybody's."""
    as_it_is = tiny_settings(weights[name], large_pairs=0, max_tokens=MAX_TOKENS, frozen_layers=0)
    report = train_large(examples(2), as_it_is, tmp_path / "large")
    assert (report.layers, report.steps, report.pairs) == (4, 0, 0)
    taken = sample()
    expected = published(weights[name], taken.pairs)
    np.testing.assert_allclose(published(tmp_path / "large", taken.pairs), expected, atol=1e-5)
    scorer = CrossEncoderScorer.load(tmp_path / "large", MAX_TOKENS)
    np.testing.assert_allclose(scorer.logits(taken.pairs), expected, atol=1e-5)
    loose = EngineSettings(min_kendall_tau=0.8, max_ndcg_loss=1.0)
    for kind, settings, difference in (("auto", loose, 0.1), ("fp32", EngineSettings(kind="fp32"), 1e-4)):
        facts = build_engine(tmp_path / "large", MAX_TOKENS, "cpu", settings, taken, tmp_path / "engines" / kind)
        assert facts["kind"] != "torch", facts
        logits = load_engine(tmp_path / "engines", tmp_path / "large", kind, MAX_TOKENS).logits(taken.pairs)
        assert np.abs(logits - expected).max() < difference * max(np.ptp(expected), 1)
        assert not np.array_equal(logits, expected), "by another engine"


@pytest.mark.parametrize("name", WRITERS)
def test_a_model_and_a_compact_one_of_its_layers_are_trained(
    name: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    settings = tiny_settings(
        weights[name], large_pairs=24, compact_pairs=24, max_tokens=MAX_TOKENS, learning_rate=1e-3, precision="bf16"
    )
    before = weights_of(weights[name])
    assert train_large(examples(8), settings, tmp_path / "large").steps == 2
    after = weights_of(tmp_path / "large")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {layer for key in changed for layer in range(4) if f".{layer}." in key} == {1, 2, 3}, "0 is frozen"
    assert not [key for key in changed if "embed" in key]
    report = train_student("compact", examples(8), tmp_path / "large", settings, tmp_path / "compact")
    assert report.layers == 2
    # What is loaded again, by anybody, is what was trained: a wrong kind of layer or head would score otherwise.
    taken = sample().pairs
    scores = CrossEncoderScorer.load(tmp_path / "compact", MAX_TOKENS).logits(taken)
    np.testing.assert_allclose(published(tmp_path / "compact", taken), scores, atol=1e-5)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > len(taken) / 2


def test_a_layer_that_cannot_take_the_place_of_another_is_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    """ModernBERT's first layer has no norm; another in its place would be read without its own."""
    settings = tiny_settings(weights["modernbert"], compact_layers=[1, 3], compact_pairs=0, large_pairs=0)
    train_large(examples(2), settings, tmp_path / "large")
    with pytest.raises(SettingsError, match="layer 1 of ModernBertForSequenceClassification cannot be layer 0"):
        train_student("compact", examples(2), tmp_path / "large", settings, tmp_path / "compact")


@pytest.mark.parametrize("name", ["bert", "qwen3-classifier", "qwen3-yes-no"])
def test_the_prompt_that_a_model_comes_with_is_read(name: str, weights: dict[str, Path], tmp_path: Path) -> None:
    pairs = [("how to oil the pump?", "This is valid: oil the pump 3 times."), ("oil?\n", " two words \n")]
    plain = CrossEncoderScorer.load(weights[name], MAX_TOKENS).logits(pairs)
    model = CrossEncoder(str(weights[name]), device="cpu", prompts={"oil": "Find oil: "}, default_prompt_name="oil")
    model.save_pretrained(str(tmp_path / "prompted"))
    scorer = CrossEncoderScorer.load(tmp_path / "prompted", MAX_TOKENS)
    np.testing.assert_allclose(scorer.logits(pairs), published(tmp_path / "prompted", pairs), atol=1e-5)
    assert not np.allclose(scorer.logits(pairs), plain, atol=1e-4)
    # The service and the engines read the tokenizer's folder alone.
    (tmp_path / "engine").mkdir()
    scorer.tokenizer.save(tmp_path / "engine")
    for pair in PairTokenizer.load(tmp_path / "engine", MAX_TOKENS).encode(pairs):
        assert any(np.array_equal(pair.ids, other.ids) for other in scorer.encode(pairs))


def test_a_prompt_of_the_settings_is_the_models_from_then_on(weights: dict[str, Path], tmp_path: Path) -> None:
    pairs = [("how to oil the pump?", "This is valid: oil the pump 3 times.")]
    logits = []
    for prompt in ("", "Find what is valid"):
        folder = tmp_path / (prompt or "none")
        settings = tiny_settings(weights["qwen3-yes-no"], large_pairs=0, max_tokens=MAX_TOKENS, prompt=prompt)
        train_large(examples(2), settings, folder)
        logits.append(CrossEncoderScorer.load(folder, MAX_TOKENS).logits(pairs))
        np.testing.assert_allclose(published(folder, pairs), logits[-1], atol=1e-5)
    assert abs(logits[0] - logits[1]) > 1e-3


@pytest.mark.parametrize("name", ["electra", "deberta-v3", "modernbert", "qwen3-yes-no"])
def test_what_teacher_and_student_share_is_read_once_in_every_architecture(
    name: str, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative positions and projected embeddings belong to what both share, and so stay untrained too."""
    settings = tiny_settings(weights[name], large_pairs=12, compact_pairs=12, compact_layers=[0, 1, 3], frozen_layers=2)
    train_large(examples(4), settings, tmp_path / "large")
    train_student("compact", examples(4), tmp_path / "large", settings, tmp_path / "once")
    monkeypatch.setattr("models.training.fine_tuning._read_once", lambda *args: None)
    train_student("compact", examples(4), tmp_path / "large", settings, tmp_path / "twice")
    once, twice = weights_of(tmp_path / "once"), weights_of(tmp_path / "twice")
    assert all(torch.allclose(once[key], twice[key], atol=1e-6) for key in once)


@given(query=st.text(max_size=60), passage=st.text(max_size=200), cut=st.booleans())
@with_settings(max_examples=60, deadline=None)
def test_a_template_is_read_whole_around_any_pair(query: str, passage: str, cut: bool, decoder: Any) -> None:
    fit = PassageCut.fit(["oil the pump"] * 3 + [passage]) if cut else None
    pairs = PairTokenizer(decoder.tokenizer, 24, fit, PairTemplate.of(decoder))
    (encoding,) = pairs.encode([(query, passage)])
    assert len(encoding) <= pairs.longest + 4, "and tokens that the template shares with the texts"
    text = decoder.tokenizer.decode(encoding.ids)
    assert text.startswith("<|im_start|>system\nJudge whether")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n")
    if not encoding.cut and len(encoding) < pairs.longest - 12:
        expected = decoder.preprocess([(query, passage)])["input_ids"][0]
        assert encoding.ids.tolist() == expected.tolist()


@pytest.fixture(scope="module")
def decoder(weights: dict[str, Path]) -> CrossEncoder:
    return CrossEncoder(str(weights["qwen3-yes-no"]), device="cpu", local_files_only=True)


def test_lora_trains_few_weights_and_leaves_a_model_like_any_other(weights: dict[str, Path], tmp_path: Path) -> None:
    for name in ("bert", "qwen3-yes-no"):
        settings = tiny_settings(weights[name], large_pairs=24, max_tokens=MAX_TOKENS, lora_rank=2)
        report = train_large(examples(8), settings, tmp_path / name)
        before, after = weights_of(weights[name]), weights_of(tmp_path / name)
        assert before.keys() == after.keys()
        assert report.parameters == sum(tensor.numel() for tensor in after.values())
        ranks = {
            key: int(torch.linalg.matrix_rank(after[key] - before[key], atol=1e-5))
            for key in before
            if before[key].ndim == 2
        }
        assert max(rank for key, rank in ranks.items() if "layer" in key) == 2
        assert all(rank == 0 for key, rank in ranks.items() if "embed" in key or ".0." in key), "frozen"


def test_a_model_that_cannot_be_written_as_a_graph_is_run_by_pytorch_and_says_so(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    monkeypatch.setattr("models.cross_encoder.onnx_export._MOST_BYTES", 1000)
    engines = tmp_path / "engines"
    facts = build_engine(weights["modernbert"], MAX_TOKENS, "cpu", EngineSettings(), sample(), engines / "large")
    assert facts["kind"] == "torch"
    assert facts["refused"].startswith("int8: its 0.0 GB of weights are more than the 2 GB of one file; fp32: ")
    assert isinstance(load_engine(engines, weights["modernbert"], "large", MAX_TOKENS), CrossEncoderScorer)
    with pytest.raises(ArtifactError, match="fp32: its"):
        build_engine(weights["modernbert"], MAX_TOKENS, "cpu", EngineSettings(kind="fp32"), sample(), engines / "other")


def test_what_gives_no_score_of_a_pair_is_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    set_seed(0)
    config = BertConfig(**{"vocab_size": 500, "num_labels": 3, **SIZES})
    BertForSequenceClassification(config).save_pretrained(tmp_path / "three")
    for file in weights["bert"].glob("*token*"):
        shutil.copy(file, tmp_path / "three")
    with pytest.raises(ModelFileError, match="gives 3 scores of a pair"):
        CrossEncoderScorer.load(tmp_path / "three", MAX_TOKENS)
    for number, (template, reason) in enumerate(
        [
            ("{{ messages[0]['content'] }}", "does not write the query and then the passage"),
            ("{{ messages[1].content + messages[0].content }}", "does not write the query"),
            ("{{ messages[0].content + messages[1].content + messages[0].content }}", "or the passage twice"),
            ("{{ raise_exception('no such role') }}", "no such role"),
        ]
    ):
        folder = shutil.copytree(weights["qwen3-yes-no"], tmp_path / str(number))
        (folder / "chat_template.jinja").write_text(template)
        with pytest.raises(ModelFileError, match=reason):
            CrossEncoderScorer.load(folder, MAX_TOKENS)


def test_code_of_a_model_is_never_run(weights: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(weights["bert"], tmp_path / "model")
    (folder / "attack.py").write_text(f"open({str(tmp_path / 'attacked')!r}, 'w')\nclass Head: pass\n")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Head", "type": "attack.Head"},
    ]
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelFileError, match="Custom code is never run"):
        CrossEncoderScorer.load(folder, MAX_TOKENS)
    assert not (tmp_path / "attacked").exists()


def test_more_tokens_than_a_model_reads_are_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    for name, most in (("bert", 512), ("xlm-roberta", 128)):
        with pytest.raises(SettingsError, match=f"reads {most} tokens"):
            train_large(examples(2), tiny_settings(weights[name], max_tokens=most + 1), tmp_path)
