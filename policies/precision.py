"""Products in bfloat16: eight bits of mantissa for the factors, float32 for the sums.

A CPU with avx512_bf16 or AMX does several such multiplications in the time of one in float32. What is learnt stays in
float32: weights, Adam's moments, log-probabilities, targets (Micikevicius et al. 2018, "Mixed precision training",
sec. 3.1). bfloat16 has float32's range, so no loss needs scaling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import UsageError

PRECISIONS = ("fp32", "bf16")
CHOICES = ("auto", *PRECISIONS)
PAYS_FROM = (
    2**21
)  # numbers in a hidden layer, rows times width, from which a GPU's product takes longer than its launch


def chosen_precision(wish: str, device: torch.device, rows: int, width: int) -> str:
    """fp32 or bf16, for products of so many rows and hidden units.

    auto: bf16 on a GPU that has it, where products are large. On a CPU it takes asking for, as does everything that
    changes what is learned there.

    Raises:
        UsageError: bf16 was asked for, and is not done in hardware here.
    """
    if wish == "bf16":
        require_bf16(device)
    if wish != "auto":
        return wish
    large = device.type == "cuda" and rows * width >= PAYS_FROM
    return "bf16" if large and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def require_bf16(device: torch.device) -> None:
    """Raise UsageError where bfloat16 is not done in hardware: it would be slower than float32 there."""
    if device.type == "cpu":
        able = torch.backends.mkldnn.is_available() and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
        lacks = "this CPU has no avx512_bf16"
    else:
        able, lacks = torch.cuda.is_bf16_supported(including_emulation=False), "this GPU has no bfloat16"
    if not able:
        raise UsageError(f"setting precision = 'bf16': {lacks}; use precision=fp32")


def bf16_product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b (K, ., .) in float32, of factors rounded to bfloat16."""
    if torch.compiler.is_compiling() or not a.is_cpu:
        return torch.bmm(a.bfloat16(), b.bfloat16()).float()
    # oneDNN rounds while it packs the factors, which saves three passes over memory
    matmul = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        return torch.bmm(a, b, out=out)
    finally:
        matmul.fp32_precision = before


@contextmanager
def bf16_products(device: torch.device) -> Iterator[None]:
    """Inside, every product and convolution rounds its factors to bfloat16 and sums in float32.

    Their gradients too. On a GPU this is torch's autocast, whose results are rounded as well.
    """
    if device.type != "cpu":
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):  # a CUDA graph cannot hold the cache
            yield
        return
    mkldnn = torch.backends.mkldnn
    parts = (mkldnn.matmul, mkldnn.conv)  # pyright: ignore[reportAttributeAccessIssue]
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = "bf16"
    try:
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
