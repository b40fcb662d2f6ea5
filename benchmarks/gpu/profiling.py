"""What keeps the device busy: its kernels by kind, and how often the host waits for it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

KINDS = {
    "compiled (Triton)": r"^triton",
    "attention": r"flash|fmha|attention|sdpa",
    "matrix products": r"gemm|gemv|cutlass|nvjet|xmma|cublas|splitk",
    "optimiser and clipping": r"multi_tensor|adam|lpnorm",
    "copies and fills": r"memcpy|memset|fill|copy",
}
"""Kinds of kernels by what their names contain; the first that fits."""
OTHER = "other kernels"
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
SHOWN = 15
"""Number of kernels listed by name."""


def kind_of(kernel: str) -> str:
    """Kind of a kernel by its name."""
    return next((kind for kind, name in KINDS.items() if re.search(name, kernel, re.I)), OTHER)


def profiler(device: str) -> torch.profiler.profile:
    """A profiler of the host's calls and the device's kernels."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    return torch.profiler.profile(activities=kinds)


def read(profile: Any, steps: int, seconds: float) -> dict[str, Any]:
    """What a profile says of each step, in milliseconds and counts.

    Args:
        profile: of whole steps.
        steps: their number.
        seconds: their time.
    """
    averages = profile.key_averages()
    on_device = [each for each in averages if each.device_type == DeviceType.CUDA]
    # Ranges that libraries name, such as the optimiser's step, are no kernels of their own.
    kernels = [each for each in on_device if not each.is_user_annotation]
    each_step = 1 / (1000 * steps)
    kinds: Counter[str] = Counter()
    for kernel in kernels:
        kinds[kind_of(kernel.key)] += kernel.self_device_time_total * each_step
    largest = sorted(kernels, key=lambda each: -each.self_device_time_total)[:SHOWN]
    return {
        "step": 1000 * seconds / steps,
        "busy": sum(kinds.values()),
        "kinds": dict(kinds.most_common()),
        "launches": sum(each.count for each in kernels) / steps,
        "waits": sum(each.count for each in averages if each.key in WAITS) / steps,
        "items": sum(e.count for e in averages if e.key == "aten::_local_scalar_dense") / steps,
        "kernels": {each.key[:120]: each.self_device_time_total * each_step for each in largest},
    }
