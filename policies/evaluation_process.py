"""What scores policies beside a run: a process of its own, which simulates on the CPU and sees no GPU.

It is told of one evaluation after another (aside.py), makes them in that order, and yields its processor to whoever
trains. Its numbers are those that the run itself would have found: an evaluation is a function of the policy file, the
task, its ranges, a seed and a number of episodes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

NICE = 5  # how far training goes first


def score(order: Mapping[str, Any], policy: Any) -> Any:
    """The evaluation that an order asks for, filmed where it says so."""
    from .evaluate import evaluate

    found = evaluate(policy, order["task"], order["episodes"], order["seed"], order["randomize"],
                     threads=order["threads"])  # fmt: skip
    if order["videos"]:
        from .film import film  # which wants a way to draw

        film(policy, order["task"], order["video"], order["videos"], order["seed"], order["randomize"])
    return found


def main() -> None:
    from ..child import parent, receive, send, told

    connection = parent()
    os.nice(NICE)
    import torch

    from .policy import load_policy

    while True:
        order = receive(connection)
        torch.set_num_threads(order["torch_threads"])
        try:
            answer = {"scored": json.dumps(score(order, load_policy(order["policy"])).to_json(returns=True))}
        except Exception as error:
            answer = told(error)
        send(connection, answer)


if __name__ == "__main__":
    main()
