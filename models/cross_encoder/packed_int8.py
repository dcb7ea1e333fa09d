"""Linear layers in 8 bits that rank as the model does (docs/decisions/0027).

Rows of activations have a scale each, output channels of weights have theirs, and input channels are smoothed:
divided by what the weights are multiplied by (SmoothQuant, Xiao et al. 2023). Imported only where a model is loaded,
so torch stands at module level here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu as gelu_of
from torch.nn.functional import linear, pad

from models.cross_encoder.packed_product import FloatProduct, Product

_MOST, _MOST_OF_TWO = 127, 127
"""Largest weight, and largest sum of two that follow each other and have the same sign. CPUs without VNNI add the
products of two inputs in 16 bits: 255 times 128 is within these, and 127 becomes 128 where both are rounded up."""

_CENTRE, _STEPS = 128, 127
_LEAST_OF_GELU = 0.17
"""GELU never falls below minus this. With it on top, its values use the bits of the sign too."""

_ROUNDED = (".projected", ".up", ".down")
"""Products in 8 bits. That behind attention is a twelfth of the work and a quarter of what rounding changes."""

_BLOCK = 128
"""Rows that are scaled and rounded at a time: 1,536 columns of them stay in a core's own cache."""

_EXPONENTS = (None, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Shares of the range that smoothing leaves to the weights; None is no smoothing."""

_TINY = 1e-9


class Int8Product:
    """A linear layer over rows of float32, multiplied in 8 bits; oneDNN's, its weights laid out once.

    Sums are of whole numbers, so that a row has the same bits among any others.
    """

    def __init__(
        self, smoothed: Tensor, name: str, layers: Sequence[Any], gelu: bool = False, adds: bool = False
    ) -> None:
        """See `MakeProduct`. `smoothed` is float32 [inputs], of `Calibration.smoothing`."""
        weights = torch.cat([layer.weight.data for layer in layers]).float()
        bias = torch.cat([layer.bias.data for layer in layers]).float()
        self._divided, self._raised = 1 / smoothed, _raised(name, smoothed)
        whole, self._scales = round_weights(weights * smoothed)
        self.shape = (int(weights.shape[0]), int(weights.shape[1]), int(gelu), int(adds))
        self.pieces: dict[int, int] = {}
        # What was raised is taken off again behind the product.
        self._bias = bias if self._raised is None else bias - (whole.float() * self._scales[:, None]) @ self._raised
        self._weights = torch.ops.onednn.qlinear_prepack(whole, [_BLOCK, weights.shape[1]])
        self._no_points = torch.zeros(len(weights), dtype=torch.int64)
        self._gelu = gelu

    def __call__(self, rows: Tensor, added: Tensor | None = None) -> Tensor:
        """See `Product`."""
        whole, scales = torch.empty(rows.shape, dtype=torch.uint8), rows.new_empty(len(rows), 1)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            _round_rows(rows[block], self._divided, self._raised, whole[block], scales[block])
        sums = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, _CENTRE if self._raised is None else 0, self._weights, self._scales, self._no_points, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            part = torch.addcmul(self._bias, sums[block], scales[block], out=sums[block])
            if added is not None:
                part.add_(added[block])
            if self._gelu:
                torch.ops.aten.gelu.out(part, out=part)
        return sums

    def plan(self) -> dict[int, int]:
        """None: each number of rows is multiplied as it is."""
        return {}


def make_product(
    smoothing: Mapping[str, Tensor], name: str, layers: Sequence[Any], gelu: bool = False, adds: bool = False
) -> Product:
    """In 8 bits where there is smoothing of it, else in float32."""
    if name not in smoothing:
        return FloatProduct(name, layers, gelu, adds)
    return Int8Product(smoothing[name], name, layers, gelu, adds)


class Calibration:
    """Makes products of float32 that remember what they are given, and smoothing of it."""

    def __init__(self) -> None:
        self._products: dict[str, _WatchedProduct] = {}

    def __call__(self, name: str, layers: Sequence[Any], gelu: bool = False, adds: bool = False) -> Product:
        """See `MakeProduct`."""
        if not name.endswith(_ROUNDED):
            return FloatProduct(name, layers, gelu, adds)
        self._products[name] = _WatchedProduct(layers, gelu, adds)
        return self._products[name]

    def smoothing(self) -> dict[str, Tensor]:
        """For each product float32 [inputs]: of some exponents, what changes its outputs least when both are rounded.

        A channel's factor is its largest activation to an exponent by its largest weight to the rest of it.
        """
        return {name: _best_smoothing(name, product) for name, product in self._products.items()}


class _WatchedProduct:
    def __init__(self, layers: Sequence[Any], gelu: bool, adds: bool) -> None:
        self.weights = torch.cat([layer.weight.data for layer in layers]).float()
        self._bias = torch.cat([layer.bias.data for layer in layers]).float()
        self._gelu = gelu
        self.shape = (int(self.weights.shape[0]), int(self.weights.shape[1]), int(gelu), int(adds))
        self.pieces: dict[int, int] = {}
        self.largest = torch.zeros(self.shape[1])
        self.rows: list[Tensor] = []

    def __call__(self, rows: Tensor, added: Tensor | None = None) -> Tensor:
        self.largest = torch.maximum(self.largest, rows.abs().amax(0))
        self.rows.append(rows[::7].clone())
        product = linear(rows, self.weights, self._bias)
        product = product if added is None else product + added
        return gelu_of(product) if self._gelu else product

    def plan(self) -> dict[int, int]:
        return {}


def _best_smoothing(name: str, product: _WatchedProduct) -> Tensor:
    rows = torch.cat(product.rows)
    expected = rows @ product.weights.T
    errors = []
    for exponent in _EXPONENTS:
        smoothed = _smoothing(product, exponent)
        whole, scales = round_weights(product.weights * smoothed)
        raised = _raised(name, smoothed)
        values, by_row = torch.empty(rows.shape, dtype=torch.uint8), rows.new_empty(len(rows), 1)
        _round_rows(rows, 1 / smoothed, raised, values, by_row)
        back = (values.float() - _CENTRE) * by_row if raised is None else values.float() * by_row - raised
        change = back @ (whole.float() * scales[:, None]).T - expected
        errors.append((float(change.square().mean()), smoothed))
    return min(errors, key=lambda error: error[0])[1]


def _smoothing(product: _WatchedProduct, exponent: float | None) -> Tensor:
    if exponent is None:
        return torch.ones(product.shape[1])
    largest = product.largest.clamp_min(1e-5), product.weights.abs().amax(0).clamp_min(1e-5)
    return largest[0] ** exponent / largest[1] ** (1 - exponent)


def _raised(name: str, smoothed: Tensor) -> Tensor | None:
    """What is added to smoothed activations, so that none is negative; None where they have either sign."""
    return _LEAST_OF_GELU / smoothed if name.endswith(".down") else None


def round_weights(weights: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [outputs, inputs] and the scale of each output."""
    two = pad(weights, (0, weights.shape[1] % 2)).view(len(weights), -1, 2)
    of_two = torch.maximum(two.clamp_min(0).sum(2).amax(1), two.clamp_max(0).sum(2).amin(1).neg())
    scales = torch.maximum(weights.abs().amax(1) / _MOST, of_two / _MOST_OF_TWO).clamp_min(_TINY)
    return (weights / scales[:, None]).round().to(torch.int8), scales


def _round_rows(rows: Tensor, divided: Tensor, raised: Tensor | None, whole: Tensor, scales: Tensor) -> None:
    """Fill `whole`, uint8 like `rows`, and `scales` [rows, 1]."""
    if raised is None:
        values, steps, half = rows * divided, _STEPS, _CENTRE + 0.5
        largest = torch.maximum(values.amax(1, keepdim=True), values.amin(1, keepdim=True).neg_())
    else:
        values, steps, half = torch.addcmul(raised, rows, divided), 2 * _STEPS + 1, 0.5
        largest = values.amax(1, keepdim=True)
    torch.div(largest.clamp_min_(_TINY), steps, out=scales)
    whole.copy_(values.mul_(scales.reciprocal()).add_(half))  # the half, since what is behind the point is cut
