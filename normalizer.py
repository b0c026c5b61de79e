"""Running mean and variance of observations, in double precision.

Normalizing happens inside Policy and Learner only; buffers and files hold raw observations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pool = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]  # of count (), mean (k,) and variance (k,)


class Normalizer:
    """(x - mean) / std, clipped; statistics merged batch by batch (Chan et al. 1979, pairwise update)."""

    def __init__(self, dim: int, clip: float = 10.0, device: torch.device | str = "cpu", pool: Pool | None = None):
        """`pool` makes of a batch's moments those of all processes that see a part of it, where there are several."""
        self.clip, self._pool = clip, pool
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.var = torch.ones(dim, dtype=torch.float64, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        # what acting and the policy file use
        self.mean32, self.std32 = torch.zeros(dim, device=device), torch.ones(dim, device=device)

    def update(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Merge the statistics of x (..., dim); rows where `mask` (...) is False do not count."""
        rows = x.reshape(-1, x.shape[-1]).double()
        masked = mask is not None and not rows.is_cpu  # a device would be waited for, to know how many rows are left
        if mask is not None and not masked:
            rows = rows[mask.reshape(-1)]
        if self._pool is not None or masked:
            n, mean, var = _moments(rows, mask if masked else None)
            if self._pool is not None:
                n, mean, var = self._pool(n, mean, var)
                n = n[0]
            n = n.clamp_min(1e-300)  # no row anywhere leaves what there is
        elif len(rows) == 0:
            return
        else:
            mean, var, n = rows.mean(0), rows.var(0, unbiased=False), len(rows)
        total = self.count + n
        delta = mean - self.mean
        # in place: a CUDA graph reads these very tensors
        torch.div(self.var * self.count + var * n + delta**2 * self.count * n / total, total, out=self.var)
        torch.add(self.mean, delta * n / total, out=self.mean)
        self.count.copy_(total)
        self._refresh()

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., dim) normalized, float32."""
        return ((x - self.mean32) / self.std32).clamp(-self.clip, self.clip)

    def _refresh(self) -> None:
        # an input that has been constant keeps its scale instead of exploding
        self.mean32.copy_(self.mean)
        self.std32.copy_(torch.where(self.var > 1e-12, self.var, 1.0).sqrt())

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean.clone(), "var": self.var.clone(), "count": self.count.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for kept, name in ((self.mean, "mean"), (self.var, "var"), (self.count, "count")):
            kept.copy_(state[name])
        self._refresh()


def _moments(rows: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Count (), mean (k,) and variance (k,) of rows (n, k), of which there may be none, or of those in `mask` (n)."""
    if mask is not None:
        counts = mask.reshape(-1, 1)
        n = counts.sum(dtype=rows.dtype)
        mean = torch.where(counts, rows, 0.0).sum(0) / n.clamp_min(1.0)
        return n, mean, torch.where(counts, rows - mean, 0.0).square().sum(0) / n.clamp_min(1.0)
    n = torch.full((), float(len(rows)), dtype=rows.dtype, device=rows.device)
    mean = rows.sum(0) / n.clamp_min(1.0)
    return n, mean, (rows - mean).square().sum(0) / n.clamp_min(1.0)
