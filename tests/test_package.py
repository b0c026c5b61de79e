"""The package as its users get it: what importing costs, which way imports run, what the wheel holds."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import poise

ROOT = Path(poise.__file__).parent
NOT_SHIPPED = ("tests", "docs", "examples")


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def python(code: str, cwd: Path, **env: str) -> str:
    return run(sys.executable, "-W", "error", "-c", code, cwd=cwd, **env).strip()


def tracked_files() -> list[Path]:
    """Files of the repository, relative to it: those that git has or would have."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\n")
    return sorted({Path(name) for name in listed if name and (ROOT / name).is_file()})


def shipped_sources() -> list[Path]:
    return [p for p in tracked_files() if p.suffix == ".py" and p.parts[0] not in NOT_SHIPPED]


# ---- importing ---------------------------------------------------------------------------------


def test_importing_the_package_the_spec_or_the_robot_side_loads_neither_torch_nor_mujoco(tmp_path):
    for name in ("poise", "poise.spec", "poise.real_robot"):
        loaded = python(f"import sys, {name}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))", tmp_path)
        assert not {"torch", "mujoco", "gymnasium"} & set(loaded.split()), name


def test_the_mappings_that_the_arm_shares_with_simulation_load_no_torch(tmp_path):
    code = """
import sys
import numpy as np
from poise import action, errors, keyed, kinematics, observe, robots
q = np.zeros((2, 7))
kinematics.forward_kinematics(robots.FR3, q)
action.shape_command(q, q, q, 1.0, 1.0, 0.005)
print("torch" in sys.modules, "mujoco" in sys.modules)
"""
    assert python(code, tmp_path) == "False False"


def test_every_module_imports_on_its_own(tmp_path):
    modules = [
        ".".join(("poise", *p.with_suffix("").parts)).removesuffix(".__init__")
        for p in shipped_sources()
        if p.name != "__main__.py"
    ]
    assert {"poise", "poise.spec", "poise.sim.vec_env"} <= set(modules)
    # each in a process of its own, forked from one that holds only the heavy libraries: a circular import shows
    # only when its module comes first
    code = f"""
import importlib, os, sys, traceback
import gymnasium, h5py, mujoco, numpy, torch, warp
failed = []
for name in {modules!r}:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(*failed)
"""
    assert python(code, tmp_path) == ""


def test_every_public_name_is_listed_and_loads():
    assert set(poise.__all__) <= set(dir(poise))
    for name in poise.__all__:
        assert getattr(poise, name) is not None
    assert poise.Spec is __import__("poise.spec", fromlist=["Spec"]).Spec
    assert poise.__version__.count(".") >= 1


def test_a_name_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(AttributeError, match="no attribute 'trian'; it has Batch, Spec"):
        _ = poise.trian


# ---- the direction of imports ------------------------------------------------------------------

MAY_IMPORT = {  # part -> parts that it may import from
    "core": {"core"},
    "datasets": {"core", "datasets"},
    "sim": {"core", "sim"},
    "policies": {"core", "datasets", "sim", "policies"},
    "real_robot": {"core", "datasets", "sim", "policies", "real_robot"},
    "top": {"core", "datasets", "sim", "policies", "real_robot", "top"},
}


def part_of(path: tuple[str, ...]) -> str:
    """The part of the house that a module path inside the package (without `poise`) belongs to."""
    if not path or path[0] in ("__init__", "__main__", "envs") or path[0].partition("_")[0] == "cli":
        return "top"
    return path[0] if path[0] in MAY_IMPORT else "core"


def imported_modules(path: Path) -> list[tuple[str, ...]]:
    """Modules of the package that a file imports, as paths inside it."""
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parts[: len(path.parts) - node.level]
            module = tuple(node.module.split(".")) if node.module else ()
            # `from .. import spec` names modules, `from ..spec import Spec` names things in one
            found += [(*base, *module)] if base + module else [(alias.name,) for alias in node.names]
    return found


def test_imports_run_one_way():
    wrong = [
        f"{path} imports {'.'.join(module)}"
        for path in shipped_sources()
        for module in imported_modules(path)
        if part_of(module) not in MAY_IMPORT[part_of(path.with_suffix("").parts)]
    ]
    assert wrong == []


def test_inside_the_package_imports_are_relative():
    own = {p.parts[0] for p in shipped_sources() if len(p.parts) > 1} | {"poise"}
    absolute = []
    for path in shipped_sources():
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            absolute += [f"{path}: {name}" for name in names if name.split(".")[0] in own]
    assert absolute == []


def test_the_init_files_of_folders_are_empty():
    full = [p for p in shipped_sources() if p.name == "__init__.py" and len(p.parts) > 1 and (ROOT / p).read_text()]
    assert full == []


# ---- the wheel ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the repository's files, so that nothing left in the tree can help."""
    copy = tmp_path_factory.mktemp("copy")
    for name in tracked_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", "out", cwd=copy)
    (built,) = (copy / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-P", "-m", "pip", "install", *options, "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_brings_one_package_with_exactly_the_tracked_sources(wheel):
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    packages = {p.parts[0] for p in names if not p.parts[0].endswith(".dist-info")}
    assert packages == {"poise"}
    in_wheel = {str(Path(*p.parts[1:])) for p in names if p.parts[0] == "poise"}
    in_tree = {
        str(p)
        for p in tracked_files()
        if p.parts[0] not in NOT_SHIPPED and (p.suffix in (".py", ".xml", ".json", ".html") or p.name == "py.typed")
    }
    assert in_wheel == in_tree


def test_the_wheel_runs_outside_the_tree(installed, tmp_path):
    where = python("import poise; poise.Spec; print(poise.__file__)", tmp_path, PYTHONPATH=str(installed))
    assert Path(where).is_relative_to(installed)
    shown = run(sys.executable, "-m", "poise", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "train" in shown and "deploy" in shown


def test_the_files_that_the_package_reads_are_in_the_wheel(installed, tmp_path):
    code = """
import mujoco, poise.sim
from pathlib import Path
model = mujoco.MjModel.from_xml_path(str(Path(poise.sim.__file__).parent / "assets" / "fr3.xml"))
print(model.nq)
"""
    assert int(python(code, tmp_path, PYTHONPATH=str(installed))) >= 7


def test_another_library_named_datasets_lives_beside_poise(installed, tmp_path):
    (tmp_path / "site" / "datasets").mkdir(parents=True)
    (tmp_path / "site" / "datasets" / "__init__.py").write_text("whose = 'somebody else'\n")
    code = "import json, poise.datasets, datasets; print(json.dumps([datasets.whose, poise.datasets.__file__]))"
    for poise_at in ([str(installed)], []):  # the wheel; and the tree itself, as `make setup` installs it
        path = os.pathsep.join([*poise_at, str(tmp_path / "site")])
        whose, ours = json.loads(python(code, tmp_path, PYTHONPATH=path))
        assert whose == "somebody else"
        assert Path(ours).is_relative_to(installed if poise_at else ROOT)


def test_the_constraints_pin_every_dependency_to_one_version():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert all(line.count("==") == 1 and "+" not in line for line in lines)
    assert len(pinned) == len(lines), "a package is pinned twice"
    import re

    names = {re.split(r"[\[<>=~! ]", d)[0].lower().replace("_", "-") for d in wanted}
    assert names <= pinned
