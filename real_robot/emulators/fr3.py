"""The FR3's emulator is franka-sim, a server of Franka's control interface, in an environment of its own.

`make franka-sim` makes that environment beside Poise's; another place is named by POISE_FRANKA_SIM, the path of its
Python. This process becomes that server: what ends the one ends the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from ...errors import NotConnectedError, UsageError
from ...robots import FR3
from .arm import ASSETS, ArmOptions

PACKAGE = Path(__file__).resolve().parents[2]
# The environment has no Poise installed: the package is loaded from where it lies, whatever its folder is called.
START = """
import sys, importlib.util as util
spec = util.spec_from_file_location("poise", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
sys.modules["poise"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["poise"])
from poise.real_robot.emulators.franka_server import main
main(sys.argv[2:])
"""
OFFERED = ("mass", "damping", "friction", "friction_loss", "gain", "payload")  # franka-sim has no noise of sensors
HOW = """franka-sim is not installed, which emulates the FR3. In a checkout of Poise: make franka-sim. Elsewhere:
    python3 -m venv franka-sim && franka-sim/bin/pip install franka-sim==1.1.7
    export POISE_FRANKA_SIM=$PWD/franka-sim/bin/python"""


def interpreter() -> Path:
    """The Python of franka-sim's environment. Raises NotConnectedError where there is none, with what to do."""
    named = os.environ.get("POISE_FRANKA_SIM")
    python = Path(named) if named else Path(sys.prefix).resolve().parent / ".venv-franka" / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", "import franka_sim"], capture_output=True).returncode:
        raise NotConnectedError(HOW)
    return python


class FrankaSim:
    """What `poise robot emulate fr3` starts: it hands over to franka-sim as soon as it opens."""

    def __init__(self, host: str, options: ArmOptions, virtual: bool):
        if virtual:
            raise UsageError("franka-sim keeps the wall clock; start it without --virtual")
        default = asdict(ArmOptions())
        changed = {name: value for name, value in asdict(options).items() if value != default[name]}
        if refused := sorted(set(changed) - set(OFFERED)):
            raise UsageError(f"franka-sim has no {', '.join(refused)}; it has {', '.join(OFFERED)}")
        self.host, self.settings = host, [f"{name}={value}" for name, value in changed.items()]

    def open(self) -> NoReturn:
        """Become franka-sim, which prints the same line of JSON as other emulators once a client may come."""
        python = str(interpreter())
        home = [repr(q) for q in FR3.home]
        os.execv(python, [python, "-P", "-c", START, str(PACKAGE), "--host", self.host,
                          "--mjcf", str(ASSETS / "fr3.xml"), "--home", *home, "--set", *self.settings])  # fmt: skip
