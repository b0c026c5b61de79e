"""What cameras see differs, keyed and exactly as drawn; physics never notices."""

import mujoco
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.errors import UsageError
from poise.sim.appearance import Appearance, decorate
from poise.sim.randomization import Randomization, Term
from poise.sim.task import Key
from poise.sim.task_env import TaskEnv
from poise.sim.tasks.planar import PlanarReach

from .two_link import TwoLink


class Lit(PlanarReach):
    """reach/planar with a lamp."""

    def model(self):
        spec = super().model()
        spec.worldbody.add_light(name="lamp", pos=[0.5, 0.5, 1.5], dir=[-0.2, -0.4, -1.0], diffuse=[0.4, 0.4, 0.4],
                                 castshadow=False)  # fmt: skip
        return spec


LOOKS = (
    Term("colour", "geom_color", "*", range=(0.0, 1.0), operation="set"),
    Term("pattern", "geom_pattern", "*", distribution="integer", range=(0, 7), operation="set"),
    Term("place", "light_pos", "lamp", range=(-0.5, 0.5), operation="add"),
    Term("aim", "light_dir", "lamp", range=(-0.3, 0.3), operation="add"),
    Term("bright", "light_diffuse", ("lamp", "headlight"), range=(0.5, 1.2)),
    Term("camera", "camera_pos", "camera", range=(-0.05, 0.05), operation="add"),
    Term("turn", "camera_rot", "camera", range=(-0.1, 0.1), operation="add"),
    Term("zoom", "camera_fovy", "camera", range=(0.9, 1.1)),
    Term(
        "things", "distractor", range=(0.02, 0.05), operation="set", count=3, box=((-0.1, -0.4, 0.0), (0.6, 0.4, 0.1))
    ),
)
LATE = (Term("late", "obs_delay", "camera", range=(0.0, 0.1), operation="set"),
        Term("drop", "obs_dropout", ("camera", "tool_pos"), range=(0.0, 0.3), operation="set"))  # fmt: skip
DAMPING = Term("damping", "joint_damping", "*", range=(0.5, 2.0))


def test_the_contract_of_a_vec_env_holds_with_every_look():
    check_vec_env(lambda n: TaskEnv(Lit(), n, Randomization((*LOOKS, *LATE, DAMPING)), threads=1), longest=60)


def test_looks_change_frames_and_nothing_else_to_the_bit():
    plain, looked = (TaskEnv(Lit(), 3, Randomization(terms), threads=1) for terms in ((DAMPING,), (*LOOKS, DAMPING)))
    a, b = plain.reset(0), looked.reset(0)
    assert not torch.equal(a["camera"], b["camera"])
    for t in range(60):  # beyond the first episode
        action = torch.full((3, 2), 0.8 - 0.02 * t)
        a, b = plain.step(action), looked.step(action)
        assert torch.equal(a.obs["state"], b.obs["state"]) and torch.equal(a.reward, b.reward)
    assert plain.episodes.min() == 1 and plain.engine.state.tobytes() == looked.engine.state.tobytes()


def test_every_world_and_episode_looks_different_and_the_same_when_played_again():
    env = TaskEnv(Lit(), 4, Randomization(LOOKS), threads=1)
    frames = env.reset(0)["camera"]
    second = TaskEnv(Lit(), 1, Randomization(LOOKS), threads=1).reset(0, worlds=2, episodes=0)["camera"]
    assert torch.equal(frames[2], second[0])
    everywhere = (frames[:, None].float() - frames[None].float()).abs().mean(dim=(2, 3, 4))
    assert everywhere[~torch.eye(4, dtype=torch.bool)].min() > 5
    other = TaskEnv(Lit(), 1, Randomization(LOOKS), threads=1).reset(0, worlds=2, episodes=1)["camera"]
    assert (other.float() - second.float()).abs().mean() > 5


def test_a_look_drawn_at_start_stays():
    start = tuple(Term(t.name, t.what, t.target, t.distribution, t.range, operation=t.operation, when="start",
                       count=t.count, box=t.box) for t in LOOKS)  # fmt: skip
    env = TaskEnv(Lit(), 2, Randomization(start), threads=1)
    env.reset(0)
    looks = {f: v.copy() for f, v in env._cameras._appearance._looks.items()}
    for _ in range(51):
        env.step(torch.zeros(2, 2))
    assert env.episodes.min() == 1
    assert all(np.array_equal(v, looks[f]) for f, v in env._cameras._appearance._looks.items())
    assert not np.array_equal(looks["geom_pos"][0], looks["geom_pos"][1])


def _look(term: Term, drawn: list[float]) -> tuple[mujoco.MjModel, mujoco.MjModel]:
    """The model as it is and as one draw makes it look."""
    models = []
    for _ in range(2):
        spec = Lit().model()
        decorate(spec, Randomization((term,)))
        models.append(spec.compile())
    looks = Appearance(models[1], Randomization((term,)), 2)
    looks.begin(np.array([1]), Key(0, np.array([1]), np.array([0])), {term.name: np.array([drawn])})
    looks.put(models[1], 1)
    return models[0], models[1]


def test_colours_are_set_on_the_named_geom_and_stay_within_bounds():
    plain, looked = _look(Term("t", "geom_color", "upper", range=(-1, 2), operation="add"), [0.1, -0.9, 2.0])
    upper = plain.geom("upper").id
    shown = plain.geom_rgba[upper, :3]
    np.testing.assert_allclose(
        looked.geom_rgba[upper, :3], np.clip(shown + np.array([0.1, -0.9, 2.0]), 0, 1), atol=1e-6
    )
    assert np.array_equal(np.delete(plain.geom_rgba, upper, 0), np.delete(looked.geom_rgba, upper, 0))


def test_a_pattern_is_a_material_of_the_right_kind_and_plain_is_none():
    term = Term("t", "geom_pattern", ("upper", "table"), distribution="integer", range=(0, 3), operation="set")
    _, looked = _look(term, [1.0, 2.0])
    names = [looked.mat(looked.geom_matid[looked.geom(name).id]).name for name in ("table", "upper")]
    kinds = {True: "2d", False: "cube"}
    plane = [looked.geom_type[looked.geom(name).id] == mujoco.mjtGeom.mjGEOM_PLANE for name in ("table", "upper")]
    assert names == [f"pattern/checker/{kinds[plane[0]]}", f"pattern/gradient/{kinds[plane[1]]}"]
    _, plain = _look(term, [0.0, 0.0])
    assert plain.geom_matid[plain.geom("upper").id] == -1


def test_lights_move_turn_and_dim():
    plain, looked = _look(Term("t", "light_pos", "lamp", range=(-1, 1), operation="add"), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(looked.light_pos[0] - plain.light_pos[0], [0.1, 0.2, 0.3])
    _, looked = _look(Term("t", "light_dir", "lamp", range=(-1, 1), operation="add"), [0.5, 0.0, 0.0])
    wanted = np.array([-0.2, -0.4, -1.0]) / np.linalg.norm([-0.2, -0.4, -1.0]) + [0.5, 0, 0]
    np.testing.assert_allclose(looked.light_dir[0], wanted / np.linalg.norm(wanted))
    plain, looked = _look(Term("t", "light_diffuse", ("lamp", "headlight"), range=(0, 2)), [0.5, 1, 2, 0.1, 1, 1])
    np.testing.assert_allclose(looked.light_diffuse[0], [0.2, 0.4, 0.8], rtol=1e-6)
    np.testing.assert_allclose(looked.vis.headlight.diffuse, plain.vis.headlight.diffuse * [0.1, 1, 1], rtol=1e-6)


def test_a_camera_moves_turns_about_its_own_axes_and_zooms():
    plain, looked = _look(Term("t", "camera_pos", "camera", range=(-1, 1), operation="add"), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(looked.cam_pos[0] - plain.cam_pos[0], [0.1, 0.2, 0.3])
    plain, looked = _look(Term("t", "camera_rot", "camera", range=(-2, 2), operation="add"), [0.0, 0.0, np.pi / 2])
    before, after = np.zeros(9), np.zeros(9)
    mujoco.mju_quat2Mat(before, plain.cam_quat[0])
    mujoco.mju_quat2Mat(after, looked.cam_quat[0])
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # a quarter about the line of sight
    np.testing.assert_allclose(after.reshape(3, 3), before.reshape(3, 3) @ turn, atol=1e-12)
    plain, looked = _look(Term("t", "camera_fovy", "camera", range=(0.5, 2)), [1.5])
    assert looked.cam_fovy[0] == pytest.approx(1.5 * plain.cam_fovy[0])


def test_pictures_come_late_or_not_at_all():
    late = Term("late", "obs_delay", "camera", range=(0.1, 0.1), operation="set")  # two control steps
    drop = Term("drop", "obs_dropout", "camera", range=(0.4, 0.4), operation="set")
    prompt, delayed, dropped = (TaskEnv(Lit(), 2, Randomization(t), threads=1) for t in ((), (late,), (drop,)))
    seen = [[env.reset(0)["camera"]] for env in (prompt, delayed, dropped)]
    for t in range(30):
        for env, frames in zip((prompt, delayed, dropped), seen, strict=True):
            frames.append(env.step(torch.full((2, 2), 0.9 - 0.06 * t)).next_obs["camera"])
    assert all(torch.equal(seen[1][t], seen[0][max(t - 2, 0)]) for t in range(31))
    held = [[torch.equal(seen[2][t][w], seen[2][t - 1][w]) for t in range(1, 31)] for w in range(2)]
    moved = [[not torch.equal(seen[0][t][w], seen[0][t - 1][w]) for t in range(1, 31)] for w in range(2)]
    assert 4 < np.sum(held) < 40 and np.sum(moved) > 50 and held[0] != held[1]
    assert all(held[w][t] or torch.equal(seen[2][t + 1][w], seen[0][t + 1][w]) for w in range(2) for t in range(30))


def test_cameras_see_the_sizes_that_physics_has():
    term = Term("t", "geom_size", "ball", range=(0.5, 2.0))

    class Balls(Lit):
        def model(self):
            spec = super().model()
            body = spec.worldbody.add_body(name="ball", pos=[0.3, 0.3, 0.5])
            body.add_geom(name="ball", size=[0.05, 0, 0], mass=1.0, contype=0, conaffinity=0)
            return spec

    env = TaskEnv(Balls(), 3, Randomization((term,)), threads=1)
    frames = env.reset(0)["camera"]
    sizes = [env._cameras._appearance._looks["geom_size"][w, -1, 0] for w in range(3)]
    np.testing.assert_allclose(sizes, [m.geom("ball").size[0] for m in env.engine.models])
    np.testing.assert_allclose(sizes, 0.05 * env.params["t"][:, 0])
    assert not torch.equal(frames[0], frames[1])


def test_distractors_lie_in_their_box_with_their_size_and_touch_nothing():
    term = LOOKS[-1]
    _, looked = _look(term, [0.02, 0.03, 0.05])
    rows = [looked.geom(f"distractor/things/{i}").id for i in range(3)]
    assert (looked.geom_pos[rows] >= term.box[0]).all() and (looked.geom_pos[rows] <= term.box[1]).all()
    assert (looked.geom_size[rows].T <= [0.02, 0.03, 0.05]).all() and looked.geom_size[rows].min() >= 0.01
    assert not looked.geom_contype[rows].any() and not looked.geom_conaffinity[rows].any()
    data = mujoco.MjData(looked)
    mujoco.mj_forward(looked, data)
    np.testing.assert_allclose(data.geom_xpos[rows], looked.geom_pos[rows])


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term("t", "camera_fovy", "camra", range=(1, 2)), "'t': unknown camera 'camra'; did you mean camera"),
        (Term("t", "light_diffuse", "headlite", range=(1, 2)), "'t': unknown light 'headlite'; did you mean headlight"),
        (Term("t", "geom_color", "tabel", range=(0, 1)), "'t': unknown geom 'tabel'; did you mean table"),
    ],
)
def test_what_is_not_there_is_refused(term, message):
    with pytest.raises(UsageError, match=message):
        TaskEnv(Lit(), 1, Randomization((term,)))


def test_looks_without_a_camera_or_of_a_camera_that_follows_are_refused():
    with pytest.raises(UsageError, match="'colour': there is no camera that could see its geom_color"):
        TaskEnv(TwoLink(), 1, Randomization(LOOKS[:1]))

    class Following(Lit):
        def model(self):
            spec = super().model()
            spec.cameras[0].mode = mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY
            spec.cameras[0].targetbody = spec.bodies[1].name
            return spec

    with pytest.raises(UsageError, match="'turn': camera 'camera' follows something"):
        TaskEnv(Following(), 1, Randomization((LOOKS[6],)))
