"""Models that load, run and know nothing."""

from __future__ import annotations

from pathlib import Path


def shuffle_weights(folder: Path) -> None:
    """Put the values of each tensor of the model in `folder` in random places."""
    import torch
    from safetensors.torch import load_file, save_file

    random = torch.Generator().manual_seed(0)
    for path in sorted(folder.rglob("*.safetensors")):
        tensors = {
            name: tensor.flatten()[torch.randperm(tensor.numel(), generator=random)].reshape(tensor.shape)
            for name, tensor in sorted(load_file(path).items())
        }
        save_file(tensors, path, metadata={"format": "pt"})
