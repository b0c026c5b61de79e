"""The grid of realities: what a file may say, that a point is what `evaluate` scores there, and the report."""

import json

import numpy as np
import pytest
import torch

from poise.cli import main
from poise.errors import UsageError
from poise.policies.evaluate import evaluate
from poise.policies.gap import labelled
from poise.policies.grid import Axis, Grid, Group, sweep, table
from poise.policies.heat_map import draw_heat_maps
from poise.policies.train import train
from poise.sim.randomization import Randomization, Term
from poise.sim.tasks.planar import planar_spec

TASK = "reach/planar-state"
GRID = {
    "task": TASK,
    "episodes": 6,
    "seed": 5,
    "terms": [{"name": "noise", "what": "joint_pos_noise", "target": "*", "range": [0.01, 0.01], "operation": "set"}],
    "axes": [
        {"name": "gain", "what": "actuator_gain", "target": "*", "values": [0.2, 1]},
        {"name": "latency [s]", "what": "action_latency", "operation": "set", "values": [0, 0.1, 0.2]},
    ],
}


class Follow:
    """A policy that turns the first joint to one side: its return depends on gains and latency."""

    spec = planar_spec(camera=False)

    def initial_state(self, n):
        return {}

    def act(self, obs, state):
        return torch.clamp(3.0 * (0.5 - obs["state"][:, None, :2]), -1, 1), state


def test_a_point_of_the_grid_scores_what_evaluate_scores_under_that_randomization():
    grid = Grid.from_json(GRID)
    assert grid.shape == (2, 3) and [p.values for p in grid.points(TASK)][:2] == [(0.2, 0), (0.2, 0.1)]
    ended = []
    scores = sweep(Follow(), TASK, grid, ended.append)
    assert scores.measure == "success rate" and scores.scores.shape == (2, 3) and sum(ended) == 36
    noise = Term("noise", "joint_pos_noise", "*", range=(0.01, 0.01), operation="set")
    alike = Randomization((noise, Term("a", "actuator_gain", "*", range=(1, 1)),
                           Term("b", "action_latency", range=(0.2, 0.2), operation="set")))  # fmt: skip
    assert scores.scores[1, 2] == evaluate(Follow(), TASK, 6, 5, alike).success_rate


def test_realities_differ_and_episodes_do_not():
    grid = Grid.from_json({**GRID, "terms": []})
    returns = [evaluate(Follow(), p.task, 6, 5, p.randomization).returns for p in grid.points(TASK)]
    assert len(set(returns)) == 6
    assert returns[1] == evaluate(Follow(), TASK, 6, 5, grid.points(TASK)[1].randomization).returns


def test_an_option_of_the_task_is_an_axis_too():
    grid = Grid((Axis("arm", ("", "b.xml"), option="mjcf"), Axis("mass", (2.0,), "link_mass", "*")))
    assert [p.task for p in grid.points("lift/fr3?camera=front")] == [
        "lift/fr3?camera=front", "lift/fr3?camera=front&mjcf=b.xml"]  # fmt: skip
    assert [len(p.randomization.terms) for p in grid.points(TASK)] == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": []}, 'a grid is a JSON object with "axes"'),
        ({"axs": 1}, "the grid: unknown field 'axs'"),
        ({"axes": [{"name": "x", "values": []}]}, "axis 'x' of the grid has no values"),
        ({"axes": [{"name": "x", "values": [1]}]}, "axis 'x' of the grid needs either what"),
        ({"axes": [{"name": "x", "values": [1], "what": "link_mas", "target": "*"}]}, "unknown what 'link_mas'"),
        (
            {"axes": [{"name": "x", "values": [0], "what": "link_mass", "target": "*"}]},
            "scale of link_mass must be above",
        ),
        ({"axes": [{"name": "x", "values": ["a"], "what": "link_mass", "target": "*"}]}, "'a' is not a number"),
        ({"axes": [{"name": "x", "value": [1]}]}, "an object with name and values"),
        ({"axes": [{"name": "x", "values": [1], "whta": ""}]}, "unknown field 'whta'"),
        ({"episodes": 0}, "episodes of the grid must be a whole number"),
        ({"axes": [{"name": "x", "values": list(range(1, 1002)), "what": "link_mass", "target": "*"}]}, "1,001 points"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        Grid.from_json({**GRID, **change})


def test_a_grid_file_that_is_none_is_named(tmp_path):
    (tmp_path / "g.json").write_text("{")
    with pytest.raises(UsageError, match=r"g\.json is not JSON"):
        Grid.load(tmp_path / "g.json")
    with pytest.raises(UsageError, match=r"cannot read the grid .*No such file"):
        Grid.load(tmp_path / "none.json")


def test_the_table_gives_means_worst_policies_and_worst_points():
    grid = Grid.from_json(GRID)
    scores = np.array([[[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]])
    lines = table(grid, [Group("adr", scores)], "success rate").splitlines()
    assert lines[0] == "success rate %, 6 episodes at each of 6 points, seed 5"
    assert lines[4] == "| adr | 2 | 62.5 | 50.0 | 75.0 | 25.0 |"
    assert lines[8] == "| 0.2 | 0 | 25.0 |" and len(lines) == 14


@pytest.mark.parametrize(("shape", "drawn"), [((3,), 1), ((3,), 0), ((2, 3), 2), ((2, 3, 2), 3), ((2, 3, 2, 2), 2)])
def test_heat_maps_are_drawn_for_any_number_of_axes(shape, drawn, tmp_path):
    axes = tuple(
        Axis(f"axis {i}", tuple(range(1, n + 1)), "link_mass", "*", draw=i < drawn) for i, n in enumerate(shape)
    )
    groups = [Group(label, np.random.default_rng(0).random((2, *shape))) for label in ("none", "adr")]
    draw_heat_maps(Grid(axes), groups, "success rate", tmp_path / "map.png")
    draw_heat_maps(Grid(axes), groups, "return", tmp_path / "return.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_labels_are_given_or_the_run_folder_s():
    assert labelled(["adr=runs/x/p.safetensors", "runs/y/p.safetensors", "adr=z=1.safetensors"]) == {
        "adr": ["runs/x/p.safetensors", "z=1.safetensors"], "y": ["runs/y/p.safetensors"]}  # fmt: skip
    with pytest.raises(UsageError, match="expected LABEL=POLICY"):
        labelled(["adr="])


def test_the_command_writes_the_report(tmp_path, capsys):
    quick = {"steps": 256, "num_envs": 4, "collect_steps": 16, "evaluations": 0, "minibatches": 2}
    policies = [
        str(train("ppo", TASK, tmp_path / f"run{seed}", settings={**quick, "seed": seed}).policy) for seed in (0, 1)
    ]
    (tmp_path / "grid.json").write_text(json.dumps(GRID))
    out = tmp_path / "report"
    arguments = ["eval", f"a={policies[0]}", f"a={policies[1]}", f"b={policies[0]}", "--grid", str(tmp_path / "grid.json"),
                 "--episodes", "4", "--out", str(out), "--json"]  # fmt: skip
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    report = json.loads(printed.splitlines()[-1])
    assert report["points"] == 6 and report["episodes"] == 4 and report["task"] == TASK
    a, b = report["groups"]
    assert (a["policies"], b["policies"]) == (2, 1) and a["scores"][0] == b["scores"][0]
    assert a["trained"][1]["seed"] == 1 and a["trained"][0]["algorithm"] == "ppo"
    assert json.loads((out / "gap.json").read_text())["groups"] == report["groups"]
    assert "| trained with |" in (out / "gap.md").read_text() and (out / "gap.png").stat().st_size > 5000
    assert main(["eval", policies[0], "--grid", str(tmp_path / "grid.json"), "--video", "x.mp4"]) == 2
    assert main(["eval", policies[0], "--out", "x"]) == 2
