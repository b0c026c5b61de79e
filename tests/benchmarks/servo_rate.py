"""How many observe-act cycles a second an arm of servos takes over a pseudo-terminal, through the maker's SDK.

    python -P tests/benchmarks/servo_rate.py [so101|vx300s] [POLICY.safetensors]

A cycle is what the control loop does in every servo period: sync read, observation and (in every fifth) the policy, the
joint target, the supervisor, sync write. The emulator runs on its virtual clock in its own process, so nothing waits for
the end of a servo period, and its physics are counted in. Beside it the line alone: one sync read, one sync write.
Without a policy file a random network of two layers of 256 stands in.
"""

from __future__ import annotations

import sys
import tempfile
import time

import numpy as np

from poise.policies.network_document import expected_tensors
from poise.policies.policy_file import PolicyFile, write_policy
from poise.policies.runner import Runner
from poise.real_robot.control_loop import ControlLoop
from poise.real_robot.drivers import driver_at
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.policy_run import run_policy
from poise.real_robot.thinking import Here
from poise.sim.make import load_task

ROUNDS, STEPS = 5, 40


def random_policy(name: str) -> str:
    """A file with a policy for `reach` that hardly moves the arm."""
    spec = load_task(f"reach/{name}").spec
    network = {"kind": "mlp", "groups": ["state"], "hidden": [256, 256], "activation": "elu", "head": "tanh"}
    rng = np.random.default_rng(0)
    tensors = {key: (0.01 * rng.normal(size=shape)).astype(np.float32)
               for key, shape in expected_tensors(spec, network).items()}  # fmt: skip
    path = f"{tempfile.mkdtemp()}/policy.safetensors"
    write_policy(path, PolicyFile(spec, "random", network, tensors, {"task": f"reach/{name}"}))
    return path


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "so101"
    runner = Runner.load(sys.argv[2] if len(sys.argv) > 2 else random_policy(name))
    goal = {"target_pos": np.array([0.25, 0.05, 0.2])}
    best_line = best_cycle = 0.0
    with start_emulator(name, virtual=True) as device:
        driver = driver_at(device.address)
        loop = ControlLoop(driver)
        loop.open()
        per_step = round(runner.spec.control_dt / driver.robot.servo_dt)
        for _ in range(ROUNDS):
            held = driver.read().joint_pos_target
            began = time.perf_counter()
            for _ in range(200):
                driver.read()
                driver.write(held)
            best_line = max(best_line, 200 / (time.perf_counter() - began))
            began = time.perf_counter()
            rows = sum("obs" in row for row in run_policy(loop, Here(runner), goal, STEPS))
            best_cycle = max(best_cycle, rows * per_step / (time.perf_counter() - began))
            loop.move_to(np.array(driver.robot.home), 0.5)
        counts = driver.counters()
        driver.close()
    print(f"{name}: line alone {best_line:.0f} cycles/s, full observe-act {best_cycle:.0f} cycles/s "
          f"(best of {ROUNDS} rounds of {STEPS * per_step}); {counts}")  # fmt: skip


if __name__ == "__main__":
    main()
