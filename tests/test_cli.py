"""The command line: exit codes, one clear message a mistake, and the JSON line."""

import json
import subprocess
import sys

import pytest

from poise.cli import main
from poise.policies.recipes import RECIPES, recipes_of
from poise.policies.run_settings import FitSettings, RunSettings

QUICK = ["--set", "num_envs=4", "--set", "collect_steps=8", "--set", "hidden=8,8", "--set", "evaluations=1",
         "--set", "eval_episodes=2", "--steps", "128"]  # fmt: skip


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def last_json(out: str) -> dict:
    return json.loads(out.splitlines()[-1])


def test_help_teaches_and_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-m", "poise", "--help"], capture_output=True, text=True, check=True)
    assert "poise train ppo --task reach/fr3" in done.stdout and "poise deploy" in done.stdout
    code = "import sys; from poise.cli import build_parser; build_parser(); assert not {'torch', 'mujoco'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("algorithm", sorted(recipes_of(RunSettings)))
def test_train_help_prints_every_setting_with_default_and_meaning(capsys, algorithm):
    with pytest.raises(SystemExit) as exit:
        main(["train", algorithm, "--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert "learning_rate" in out and "checkpoint_seconds" in out and "discount " in out


def test_train_help_without_an_algorithm_lists_every_recipe_with_a_line(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for name in recipes_of(RunSettings):
        (line,) = [line for line in lines if line.strip().partition(" ")[0] == name]
        assert len(line.strip().removeprefix(name).strip()) > 20, f"{name} says nothing of itself"


@pytest.mark.parametrize("algorithm", sorted(RECIPES))
def test_a_learning_rate_of_nan_is_refused_by_every_recipe(capsys, algorithm):
    fits = algorithm in recipes_of(FitSettings)
    first = ("fit", algorithm, "--data", "any.hdf5") if fits else ("train", algorithm, "--task", "gym:CartPole-v1")
    code, _, err = call(capsys, *first, "--set", "learning_rate=nan")
    assert code == 2 and "learning_rate = nan" in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("algorithm", "task", "message"),
    [
        ("dqn", "gym:Pendulum-v1", "chooses one of n actions, and this task's are continuous"),
        ("dqn/nature", "reach/fr3", "chooses one of n actions"),
        ("a2c", "gym:poise/Catch-v0", "reads flat observations; this task has camera"),
        ("reinforce/total", "gym:poise/Catch-v0", "reads flat observations"),
        ("actor_critic", "gym:ALE/Pong-v5", "reads flat observations"),
        ("ppo", "gym:Blackjack-v1", "observation space Tuple"),
    ],
)
def test_an_algorithm_that_cannot_take_the_task_says_so_in_one_line(capsys, tmp_path, algorithm, task, message):
    code, _, err = call(capsys, "train", algorithm, "--task", task, "--steps", "100", "--out", "run")
    assert code == 2 and err.count("\n") == 1 and message in err, err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("algorithm", ["dqn", "dqn/nature", "sac", "sac/large", "sac/pixels"])
def test_a_batch_larger_than_the_buffer_is_refused(capsys, algorithm):
    code, _, err = call(capsys, "train", algorithm, "--task", "gym:CartPole-v1", "--set", "batch_size=64",
                        "--set", "capacity=32", "--set", "learning_starts=16")  # fmt: skip
    assert code == 2 and "64" in err and "32" in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "sac/larg", "--task", "reach/fr3"], "did you mean sac/large"),
        (["train", "ppoo", "--task", "reach/fr3"], "unknown algorithm 'ppoo'; did you mean ppo"),
        (["train", "ppo", "--task", "reech/fr3"], "did you mean reach/fr3"),
        (["train", "ppo", "--task", "gym:HalfCheeta-v5"], "HalfCheetah"),
        (["train", "ppo"], "--task"),
        (["train", "--task", "reach/fr3"], "needs an algorithm: "),
        (["train", "ppo", "--task", "reach/fr3", "--set", "learnin_rate=1"], "did you mean learning_rate"),
        (["train", "ppo", "--task", "reach/fr3", "--set", "learning_rate"], "key=value"),
        (["train", "ppo", "--task", "reach/fr3", "--set", "learning_rate=nan"], "learning_rate"),
        (["train", "ppo", "--task", "reach/fr3", "--num-envs", "0"], "num_envs"),
        (["train", "ppo", "--task", "reach/fr3", "--steps", "many"], "--steps"),
        (["train", "ppo", "--task", "reach/fr3", "--randomize", "none.json"], "none.json"),
        (["train", "--resume", "x", "--seed", "1"], "leave out --seed"),
        (["frain"], "frain"),
        (["eval"], "POLICY"),
        (["deploy", "p.safetensors"], "--robot"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_message(capsys, tmp_path, arguments, message):
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert message in err and "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([{"name": "a", "what": "joint_damping", "target": "elbow", "range": [0.5, 2]}], "elbow"),
        ([{"name": "a", "what": "joint_damping", "target": "fr3_joint1", "range": [2, 0.5]}], "is empty"),
        ([{"name": "a", "what": "joint_dampin", "target": "fr3_joint1", "range": [1, 2]}], "joint_damping"),
    ],
)
def test_a_randomization_that_cannot_be_is_named_by_its_term(capsys, tmp_path, terms, message):
    (tmp_path / "r.json").write_text(json.dumps({"terms": terms}))
    code, _, err = call(capsys, "train", "ppo", "--task", "reach/fr3", "--randomize", "r.json", *QUICK)
    assert code == 2 and "'a'" in err and message in err


@pytest.mark.parametrize("command", [["eval", "no.safetensors"], ["deploy", "no.safetensors", "--robot", "twin:fr3"],
                                     ["train", "--resume", "nowhere"]])  # fmt: skip
def test_a_missing_file_exits_with_1(capsys, command):
    code, out, err = call(capsys, *command, "--json")
    assert code == 1 and "no" in err and "Traceback" not in err
    failure = last_json(out)
    assert failure["ok"] is False and failure["command"] == command[0] and failure["error"]["message"] in err


def test_wrong_usage_also_ends_with_json_when_asked(capsys):
    code, out, _ = call(capsys, "train", "ppo", "--task", "nothing/here", "--json")
    assert code == 2 and last_json(out)["error"]["type"] == "UsageError"


def test_train_eval_deploy_on_the_command_line(capsys, tmp_path):
    code, out, err = call(capsys, "train", "ppo", "--task", "reach/fr3", "--out", "run", "--json", *QUICK)
    assert code == 0, err
    trained = last_json(out)
    assert trained["command"] == "train" and trained["ok"] and trained["steps"] == 128
    assert set(trained["eval"]) >= {"episodes", "return_mean", "success_rate"}
    for name in ("config.json", "metrics.jsonl", "policy.safetensors", "best.safetensors", "curves.png"):
        assert (tmp_path / "run" / name).exists(), name
    assert list((tmp_path / "run").glob("events.out.tfevents*"))

    code, out, err = call(capsys, "eval", trained["policy"], "--episodes", "3", "--json")
    assert code == 0, err
    assert last_json(out)["eval"]["episodes"] == 3 and last_json(out)["task"] == "reach/fr3"

    code, out, err = call(capsys, "deploy", trained["policy"], "--robot", "twin:fr3", "--episodes", "1",
                          "--record", "out.hdf5", "--json")  # fmt: skip
    assert code == 0, err
    deployed = last_json(out)
    assert deployed["episodes"] == 1 and deployed["out_of_limit"] == 0 and deployed["recording"] == "out.hdf5"
    assert set(deployed) >= {"success_rate", "commands", "clipped", "rejected"}

    code, _, err = call(capsys, "train", "ppo", "--task", "reach/fr3", "--out", "run", *QUICK)
    assert code == 1 and "already holds a run" in err and "--resume" in err

    code, out, err = call(capsys, "train", "ppo", "--task", "reach/fr3", "--config", "run/config.json",
                          "--out", "again", "--json")  # fmt: skip
    assert code == 0, err
    first, second = ((tmp_path / d / "policy.safetensors").read_bytes() for d in ("run", "again"))
    assert first[-4096:] == second[-4096:], "the same settings and seed give the same weights"

    code, out, err = call(capsys, "eval", trained["policy"], "--task", "gym:Pendulum-v1")
    assert code == 1 and "does not fit gym:Pendulum-v1" in err and "expected terms arm, found control" in err


def test_mjcf_is_another_model_of_the_tasks_arm(capsys, tmp_path):
    from poise.policies.policy import load_policy
    from poise.sim.arm_file import ASSETS

    own = ASSETS / "so101.xml"
    (tmp_path / "my arm+.xml").write_text(own.read_text().replace('kp="200"', 'kp="180"'))
    mine = ("--mjcf", "my arm+.xml")
    assert call(capsys, "train", "ppo", "--task", "reach/so101", *mine, "--out", "run", *QUICK)[0] == 0
    task = load_policy("run/policy.safetensors").provenance["task"]
    assert task == f"reach/so101?mjcf={tmp_path}/my%20arm%2B.xml"
    assert call(capsys, "eval", "run/policy.safetensors", "--episodes", "2")[0] == 0
    assert call(capsys, "eval", "run/policy.safetensors", "--episodes", "2", "--mjcf", str(own))[0] == 0
    for task, flags, message in (
        ("reach/so101", ("--mjcf", "nowhere.xml"), "there is no file"),
        ("reach/ur5e", mine, "unknown joint of ur5e"),
        ("gym:Pendulum-v1", mine, "no native task"),
        ("HalfCheetah-v5", mine, "unknown option"),
    ):
        code, _, err = call(capsys, "train", "ppo", "--task", task, *flags, *QUICK)
        assert code == 2 and message in err and len(err.splitlines()) == 1, err


def test_robot_list_names_every_joint_and_limit(capsys):
    code, out, _ = call(capsys, "robot", "list", "--json")
    assert code == 0 and "fr3_joint7" in out and "2.7437" in out
    assert last_json(out)["robots"][0]["name"] == "fr3"


def test_a_second_process_on_the_same_run_folder_is_refused(capsys, tmp_path):
    import fcntl

    assert call(capsys, "train", "ppo", "--task", "reach/fr3", "--out", "run", *QUICK)[0] == 0
    with open(tmp_path / "run" / "lock", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, _, err = call(capsys, "train", "--resume", "run", "--steps", "256")
    assert code == 1 and "another process is training" in err
    code, out, err = call(capsys, "train", "--resume", "run", "--steps", "256", "--json")
    assert code == 0 and last_json(out)["steps"] == 256, err
