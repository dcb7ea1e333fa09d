"""The kind of machine that figures are of."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512_f", "avx2")
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY")
_MAKERS = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}


def cpu_kind() -> str:
    """Maker and best instructions of this CPU, as `intel-amx_bf16`; libraries that are limited to lesser ones by the
    environment are named too."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    best = next((name for name in _INSTRUCTIONS if capabilities.get(name)), platform.machine())
    limits = [f"{name}={value}" for name in _LIMITS if (value := os.environ.get(name))]
    return "-".join([_maker(), best, *limits])


def _maker() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("vendor_id"):
                return _MAKERS.get(line.split(":")[1].strip(), "other")
    return platform.processor() or "other"
