"""The card: its name, its peak, and how much of that a training uses."""

from __future__ import annotations

import torch

PEAKS = {
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.2,
}
"""Dense bfloat16 TFLOP/s by a part of the device's name, the first that fits, from NVIDIA's data
sheets; the H100's and H200's are of the SXM modules (1,979 with sparsity, half of it without)."""
SOURCE = "NVIDIA's data sheet, dense bfloat16"


def card_name(device: str) -> str:
    """Name of the measured device."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def peak_tflops(name: str) -> float | None:
    """Peak of a card in TFLOP/s; None for one that is not known."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def utilisation(flops_per_token: float, tokens_per_second: float, peak: float) -> float:
    """Model FLOPs utilisation (MFU), in [0, 1].

    ``(6 N + 12 L T d) · tokens/s / peak`` (PaLM, arXiv 2204.02311, appendix B), N being the entries
    of all matrices, the tied output layer's with them.

    Args:
        flops_per_token: of forward and backward.
        tokens_per_second: measured.
        peak: of the card, TFLOP/s.
    """
    return flops_per_token * tokens_per_second / (1e12 * peak)


def synchronise(device: str) -> None:
    """Wait until the device has done all that it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory(device: str) -> dict[str, float]:
    """Largest GPU memory of this process so far, in MB, allocated and reserved; none on a CPU."""
    if device != "cuda":
        return {}
    return {
        "allocated": torch.cuda.max_memory_allocated() / 1e6,
        "reserved": torch.cuda.max_memory_reserved() / 1e6,
    }
