"""The hand-written passes against autograd."""

import pytest
import torch

from poise.policies.stacked_mlp import ACTIVATIONS, Workspace, draw, forward, input_gradient, parameter_gradient

CASES = [(1, [3, 5, 4, 2]), (2, [6, 8, 8, 1]), (3, [2, 7, 1]), (2, [4, 6, 6, 6, 3])]


def plain(params, x, activation=torch.relu):
    """The same perceptrons in the words of a textbook: (K, B, O)."""
    outs = []
    for k in range(len(params[0])):
        h = x
        for i in range(len(params) // 2 - 1):
            h = activation(h @ params[2 * i][k] + params[2 * i + 1][k])
        outs.append(h @ params[-2][k].T + params[-1][k])
    return torch.stack(outs)


def drawn(networks, sizes, rows=9):
    generator = torch.Generator().manual_seed(4)
    params = [p.double() for p in draw(networks, sizes, generator)]
    x = torch.randn(rows, sizes[0], generator=generator, dtype=torch.float64)
    return params, x, torch.randn(networks, rows, sizes[-1], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(("networks", "sizes"), CASES)
def test_outputs_and_gradients_equal_autograd(networks, sizes, kept, activation):
    params, x, d_out = drawn(networks, sizes)
    work = Workspace.kept(params, 9, 9) if kept else Workspace.none(params)
    leaves, at = [p.clone().requires_grad_() for p in params], x.clone().requires_grad_()
    expected = plain(leaves, at, getattr(torch.nn.functional, activation))
    wanted = torch.autograd.grad(expected, [*leaves, at], d_out)
    for _ in range(2):  # a workspace used before gives the same
        out, hidden = forward(params, x, work, activation)
        torch.testing.assert_close(out, expected.detach())
        found = [t.clone() for t in parameter_gradient(params, x, hidden, d_out, work, activation)]
        out, hidden = forward(params, x, work, activation)
        tail = input_gradient(params, hidden, d_out, 1, work, activation)
        torch.testing.assert_close(found, list(wanted[:-1]))
        torch.testing.assert_close(tail, wanted[-1][:, 1:])


def test_the_draw_depends_on_its_generator_alone_and_fills_the_lecun_interval():
    a, b = (draw(2, [100, 50, 1], torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert 0.09 < a[0].abs().max() <= 0.1 and 0.12 < a[2].abs().max() <= 50**-0.5
    assert not torch.equal(a[0][0], a[0][1])
