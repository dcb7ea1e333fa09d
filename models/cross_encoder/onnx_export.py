"""Cross-encoders as ONNX graphs for ONNX Runtime: fused attention and GELU, and matrices in 8 bits.

Imported only where a model is exported, so torch and onnx stand at module level here.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from sentence_transformers.cross_encoder import CrossEncoder
from torch import Tensor, nn

from models.cross_encoder.architecture import logits, transformer
from models.errors import ExportError

_OPSET = 17
_MOST_BYTES = 2**31
"""What the format of the file, protobuf, holds."""

_BODY = "/model/model.0/"
"""How the names of the transformer's nodes begin: the first module of a cross-encoder."""

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_FUSED = {"bert": "bert", "roberta": "bert", "xlm-roberta": "bert", "camembert": "bert", "distilbert": "bert"}
"""Architectures whose attention ONNX Runtime's optimizer knows, and the name that it has for them."""


class _Scorer(nn.Module):
    """Token ids in, logits [pairs] out."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        return logits(self.model, dict(zip(_INPUTS, inputs, strict=False)))


def export(model: CrossEncoder, inputs: list[str], path: Path, *, int8: bool) -> None:
    """Write a cross-encoder of `models.cross_encoder.architecture` to `path`.

    `inputs` are the names of what the tokenizer gives. The graph takes int64 [pairs, tokens] and gives `logits`
    [pairs]. With `int8` the matrices of the transformer are quantized per output channel to 7 of 8 bits, so that the
    sums of 16 bits of CPUs without VNNI cannot overflow and every CPU gets the same scores; activations get their
    scale from the batch as it runs (dynamic quantization, ONNX Runtime). What heads multiply stays in float32, and so
    does the second product of each feed-forward layer: behind GELU a few values are so large that the others would
    share a few steps.

    Raises `ExportError` for more than 2 GB of weights, and for a model that PyTorch cannot trace.
    """
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > _MOST_BYTES:
        raise ExportError(f"its {size / 1e9:.1f} GB of weights are more than the 2 GB of one file")
    body = transformer(model)
    body.config._attn_implementation = "eager"  # the form of attention that the optimizer finds
    scorer = _Scorer(model.float().cpu()).eval()
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        raw = Path(scratch) / "raw.onnx"
        example = [torch.ones(2, 16, dtype=torch.int64) for _ in inputs]
        example[-1].zero_() if "token_type_ids" in inputs else None
        try:
            torch.onnx.export(
                scorer,
                tuple(example),
                str(raw),
                input_names=inputs,
                output_names=["logits"],
                dynamic_axes={**{name: {0: "pairs", 1: "tokens"} for name in inputs}, "logits": {0: "pairs"}},
                opset_version=_OPSET,
                dynamo=False,  # its graphs are not among those that the optimizer knows
            )
        except Exception as error:  # what a model cannot be traced for has many types
            raise ExportError(f"it cannot be traced ({type(error).__name__}: {str(error).splitlines()[0]})") from error
        fused = _fuse(raw, body.config)
        if int8:
            _quantize(fused, path)
        else:
            shutil.copyfile(fused, path)


def _fuse(raw: Path, config: Any) -> Path:
    from onnxruntime.transformers.optimizer import optimize_model

    kind = _FUSED.get(config.model_type)
    if kind is None:
        return raw
    heads, size = int(config.num_attention_heads), int(config.hidden_size)
    fused = raw.with_name("fused.onnx")
    optimize_model(str(raw), model_type=kind, num_heads=heads, hidden_size=size, opt_level=0).save_model_to_file(
        str(fused)
    )
    return fused


def _quantize(graph: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    loaded = onnx.load(str(graph)).graph
    shapes = {weights.name: tuple(weights.dims) for weights in loaded.initializer}
    kept = [
        node.name
        for node in loaded.node
        if node.op_type == "MatMul" and (not node.name.startswith(_BODY) or _narrows(shapes.get(node.input[1])))
    ]
    quantize_dynamic(
        str(graph),
        str(path),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["MatMul", "Attention"],
        nodes_to_exclude=kept,
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _narrows(shape: tuple[int, ...] | None) -> bool:
    """Whether weights of this shape [in, out] go back from the width of a feed-forward layer."""
    return shape is not None and len(shape) == 2 and shape[0] > shape[1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of the exporter (of itself, for the newer one) and of the quantizer (of its hints)."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
