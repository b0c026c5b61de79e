"""The documentation runs: every command and every Python block of every page, in order, in an empty folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    "docs/train.md",
    "docs/simulation.md",
    "docs/gpu.md",
    "docs/tasks.md",
    "docs/tasks-contact.md",
    "docs/tasks-walk.md",
    "docs/randomization.md",
    "docs/adapters.md",
    "docs/evaluate.md",
    "docs/gap.md",
    "docs/adr.md",
    "docs/identification.md",
    "docs/ppo.md",
    "docs/dqn.md",
    "docs/sac.md",
    "docs/demos.md",
    "docs/data.md",
    "docs/datasets.md",
    "docs/fit.md",
    "docs/policy-gradients.md",
    "docs/tabular.md",
    "docs/d4rl.md",
    "docs/minari.md",
    "docs/deploy.md",
    "docs/teleoperation.md",
    "docs/arms.md",
    "docs/safety.md",
    "docs/write-a-driver.md",
    "docs/robot-so101.md",
    "docs/robot-franka.md",
    "docs/robot-ur.md",
    "docs/robot-xarm.md",
    "docs/robot-ros2.md",
    "docs/policy-file.md",
    "docs/robosuite.md",
    "docs/offline-dataset.md",
    "docs/your-own.md",
]
BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_the_page_runs(page, tmp_path):
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    for language, title, body in blocks:
        if title:
            (tmp_path / title).write_text(body)
        elif language == "sh":
            for line in body.strip().splitlines():
                program, *arguments = shlex.split(line)
                assert program == "poise", line
                run([sys.executable, "-m", "poise", *arguments], tmp_path)
        else:
            assert language == "python", language
            run([sys.executable, "-W", "error", "-c", body], tmp_path)


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_makefile_has_what_the_readme_calls():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
