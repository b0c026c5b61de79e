"""Float32 products on a CPU, by that library in torch which is quick there.

torch multiplies by MKL, which keeps to AVX2 on AMD's CPUs. oneDNN, which torch carries as well, has AVX-512 there and
takes half the time or less, and adds bias and ReLU while the numbers are in registers. A call of it costs some 15 us
more, so small products stay with torch, and so does everything on other CPUs, on a GPU, in other types, and under
torch.compile. Which library it is depends on the machine and on shapes alone, never on a measurement, so the same seed
gives the same numbers.

Legend: K networks, B batch, I inputs, O outputs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

LARGE = 2**21  # multiplications from which the call has paid for itself
ROWS = 1024  # at a time: what comes of them stays in the cache, and memory is never asked of the system anew
FUSED = ("relu", "tanh")  # activations that oneDNN applies itself


@cache
def onednn_is_faster() -> bool:
    """Whether this is a CPU of AMD's with AVX-512, and torch was built with oneDNN."""
    facts = torch.cpu.get_capabilities()
    amd = "AMD" in str(facts.get("cpu_name", ""))
    return amd and bool(facts.get("avx512_f")) and torch.backends.mkldnn.is_available()


def takes(a: Tensor, multiplications: int) -> bool:
    """Whether a product of so many multiplications, of a tensor like `a`, is oneDNN's."""
    return (
        multiplications >= LARGE
        and a.dtype == torch.float32
        and a.is_cpu
        and not torch.compiler.is_compiling()
        and onednn_is_faster()
    )


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b (K, ., .), in `out` where that is given."""
    if not takes(a, a.shape[1] * a.shape[2] * b.shape[2]):
        return torch.bmm(a, b, out=out)
    out = a.new_empty(len(a), a.shape[1], b.shape[2]) if out is None else out
    for x, y, o in zip(a, b, out, strict=True):
        if x.shape[1] > ROWS and x.shape[0] <= ROWS:
            _sum_of_products(x, y, o)
        else:
            _by_rows(x, y.mT, None, "none", o)
    return out


def layer(x: Tensor, weight: Tensor, bias: Tensor, activation: str, out: Tensor | None = None) -> Tensor | None:
    """activation(x @ weight + bias) (K, B, O) in one pass, or None where that is no faster.

    x: (K, B, I);  weight: (K, I, O);  bias: (K, 1, O).
    """
    if activation not in FUSED or not takes(x, x.shape[1] * x.shape[2] * weight.shape[2]):
        return None
    out = x.new_empty(len(x), x.shape[1], weight.shape[2]) if out is None else out
    for h, w, b, o in zip(x, weight, bias, out, strict=True):
        _by_rows(h, w.mT, b[0], activation, o)
    return out


def _by_rows(a: Tensor, b: Tensor, bias: Tensor | None, activation: str, out: Tensor) -> None:
    """activation(a @ b.T + bias) in `out`, some rows at a time."""
    for rows, some in zip(out.split(ROWS), a.split(ROWS), strict=True):
        rows.copy_(_onednn(some, b, bias, activation))


def _sum_of_products(a: Tensor, b: Tensor, out: Tensor) -> None:
    """a @ b in `out`, of a long inner side, some of it at a time."""
    for i, (x, y) in enumerate(zip(a.split(ROWS, 1), b.split(ROWS), strict=True)):
        part = _onednn(x, y.mT, None, "none")
        out.copy_(part) if i == 0 else out.add_(part)


def _onednn(a: Tensor, b: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """activation(a @ b.T + bias)."""
    linear: Any = torch.ops.mkldnn._linear_pointwise  # what torch.compile puts in place of nn.Linear
    return linear(a, b, bias, activation, [], "")
