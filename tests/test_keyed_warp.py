"""The kernel's numbers are those of torch, bit for bit, however the requests are keyed."""

from __future__ import annotations

import numpy as np
import torch

from poise import keyed_tensors
from poise.sim.warp_device import require_warp
from tests.capturable import only_capturable


def test_the_kernel_writes_what_torch_computes(monkeypatch):
    require_warp("cpu")
    from poise import keyed_warp

    rng = np.random.default_rng(0)
    world, episode, step = (torch.from_numpy(rng.integers(0, 2**32, 50)) for _ in range(3))
    requests = [((0, 0), world, episode, 9, 0), ((2**32 - 1, 2**32 - 1), world, 0, 4, step),
                ((0xA4093822, 0x299F31D0), world, episode, 1, torch.tensor([7])), ((5, 6), world, 3, 6, 2**31)]  # fmt: skip
    written = keyed_tensors.uniforms(requests)
    with only_capturable():
        again = keyed_tensors.uniforms(requests)
    monkeypatch.setattr(keyed_warp, "numbers", None)
    monkeypatch.setattr(keyed_tensors, "serve", lambda device, dtype: False)
    computed = keyed_tensors.uniforms(requests)
    for one, other, expected in zip(written, again, computed, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, expected, rtol=0, atol=0)
        torch.testing.assert_close(other, expected, rtol=0, atol=0)
