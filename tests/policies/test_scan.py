"""The scans against a plain loop over time."""

import pytest
import torch

from poise.policies.scan import scan_backward, scan_forward


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 13, 100])
def test_both_directions_equal_a_loop(steps):
    g = torch.Generator().manual_seed(steps)
    x = torch.randn(3, steps, generator=g, dtype=torch.float64)
    carry = torch.rand(3, steps, generator=g, dtype=torch.float64) * (torch.rand(3, steps, generator=g) > 0.2)
    forward, backward = x.clone(), x.clone()
    for t in range(1, steps):
        forward[:, t] += carry[:, t] * forward[:, t - 1]
        backward[:, -1 - t] += carry[:, -1 - t] * backward[:, -t]
    before = x.clone(), carry.clone()
    torch.testing.assert_close(scan_forward(x, carry), forward)
    torch.testing.assert_close(scan_backward(x, carry), backward)
    assert torch.equal(x, before[0]) and torch.equal(carry, before[1])
