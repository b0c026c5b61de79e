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
        self._refresh()

    def update(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Merge the statistics of x (..., dim); rows where `mask` (...) is False do not count."""
        rows = x.reshape(-1, x.shape[-1]).double()
        if mask is not None:
            rows = rows[mask.reshape(-1)]
        if self._pool is not None:
            n, mean, var = self._pool(*_moments(rows))
            n = n[0].clamp_min(1e-300)  # no row anywhere leaves what there is
        elif len(rows) == 0:
            return
        else:
            mean, var, n = rows.mean(0), rows.var(0, unbiased=False), len(rows)
        total = self.count + n
        delta = mean - self.mean
        self.var = (self.var * self.count + var * n + delta**2 * self.count * n / total) / total
        self.mean = self.mean + delta * n / total
        self.count = total
        self._refresh()

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., dim) normalized, float32."""
        return ((x - self.mean32) / self.std32).clamp(-self.clip, self.clip)

    def _refresh(self) -> None:
        # what acting and the policy file use; an input that has been constant keeps its scale instead of exploding
        self.mean32 = self.mean.float()
        self.std32 = torch.where(self.var > 1e-12, self.var, 1.0).sqrt().float()

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean, self.var, self.count = (state[k].to(self.mean.device).double() for k in ("mean", "var", "count"))
        self._refresh()


def _moments(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count (), mean (k,) and variance (k,) of rows (n, k), of which there may be none."""
    n = rows.new_tensor(len(rows))
    mean = rows.sum(0) / n.clamp_min(1.0)
    return n, mean, (rows - mean).square().sum(0) / n.clamp_min(1.0)
