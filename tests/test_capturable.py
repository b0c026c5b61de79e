"""What only_capturable refuses, and what it lets pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .capturable import only_capturable

X = torch.linspace(-1.0, 1.0, 6).reshape(3, 2)
ROW = torch.tensor([1])

REFUSED = {
    "item": lambda: X[0, 0].item(),
    "float": lambda: float(X[0, 0]),
    "an if": lambda: 1 if (X > 0).any() else 0,
    "nonzero": lambda: (X > 0).nonzero(),
    "where of one": lambda: torch.where(X > 0),
    "a mask as an index": lambda: X[X > 0],
    "writing by a mask": lambda: X.clone().__setitem__(X > 0, X[0, 0]),
    "masked_select": lambda: X.masked_select(X > 0),
    "unique": lambda: X.unique(),
    "equal": lambda: torch.equal(X, X),
    "repeats": lambda: X.repeat_interleave(ROW, 0),
    "a list": lambda: torch.tensor([1.0, 2.0]),
    "a list as an index": lambda: X[:, [0, 1]],
    "an array": lambda: torch.as_tensor(np.zeros(3), dtype=torch.float32),
    "an array's memory": lambda: torch.from_numpy(np.zeros(3)),
    "a number": lambda: torch.tensor(0.5),
    "a number like it": lambda: X.new_tensor(0.5),
    "another device": lambda: X.to("meta"),
    "cpu": lambda: X.cpu(),
    "numpy": lambda: X.numpy(),
    "an array of it": lambda: np.asarray(X),
    "tolist": lambda: X.tolist(),
}  # fmt: skip
LET_PASS = {
    "arithmetic": lambda: 2.0 * X + X.sum(-1, keepdim=True) - X.amax(),
    "where": lambda: torch.where(X > 0, X, 0.5),
    "clip": lambda: X.clip(0.0, 1.0),
    "an index on the device": lambda: X[ROW],
    "a slice": lambda: X[:, 1:].clone(),
    "another dtype": lambda: X.to(torch.float64) + X.long(),
    "new ones": lambda: (torch.zeros_like(X), X.new_zeros(2), torch.full((2,), 0.5), torch.arange(3)),
    "writing a number": lambda: X.clone().__setitem__((slice(None), 0), 0.5),
    "a tensor as it is": lambda: torch.as_tensor(X),
    "in place": lambda: X.clone()[:, 0].fill_(0.5),
    "matmul": lambda: X @ X.T,
    "gather": lambda: X.gather(1, X.argmax(1, keepdim=True)),
    "repeats of one count": lambda: X.repeat_interleave(2, 0),
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_a_graph_cannot_record_is_refused(call):
    with only_capturable(), pytest.raises(AssertionError, match=r"device|host|copy|mask"):
        call()
    call()  # and only there


@pytest.mark.parametrize("call", LET_PASS.values(), ids=LET_PASS)
def test_what_a_graph_records_passes(call):
    with only_capturable():
        call()


def test_so_does_a_gradient_step():
    weight = torch.ones(2, 2, requires_grad=True)
    with only_capturable():
        (X @ weight).square().mean().backward()
