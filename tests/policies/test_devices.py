"""Which device is chosen and what is said of it, with torch's answers made up: there need be no GPU."""

import json
import logging
import warnings

import pytest
import torch

import poise
from poise.errors import UsageError
from poise.policies.devices import LARGE, Work, choose_device, gpu_lack
from poise.policies.ppo_config import PPOConfig
from poise.policies.sac_config import SACConfig

GIB = 2**30


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a good GPU; called with what differs from it."""

    def pretend(cuda="12.8", count=1, error="", capability=(9, 0), archs=("sm_75", "sm_90"), free=70 * GIB):
        def init():
            if error:
                warnings.warn(error, stacklevel=2)
                raise RuntimeError(error)

        monkeypatch.setattr(torch.version, "cuda", cuda)
        answers = {"init": init, "device_count": lambda: count, "get_device_name": lambda device: "NVIDIA H200",
                   "get_device_capability": lambda device: capability, "get_arch_list": lambda: list(archs),
                   "mem_get_info": lambda device: (free, 80 * GIB)}  # fmt: skip
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    pretend()
    return pretend


NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"
OLD_DRIVER = ("The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by "
              "downloading and installing a new version from the URL: http://www.nvidia.com")  # fmt: skip
LACKS = {
    "torch without CUDA": ({"cuda": None}, r"this torch \(.*\) is built without CUDA"),
    "no driver": ({"error": NO_DRIVER}, "there is no NVIDIA driver"),
    "old driver": ({"error": OLD_DRIVER}, r"the NVIDIA driver is too old, which serves CUDA up to 11.4; .* 12.8"),
    "hidden": ({"error": "No CUDA GPUs are available"}, "CUDA_VISIBLE_DEVICES"),
    "no GPU": ({"count": 0}, "torch finds no NVIDIA GPU"),
    "old GPU": ({"capability": (6, 1)}, r"\(compute capability 6.1\) is not one that torch .* \(7.5 and later"),
    "new GPU": ({"capability": (12, 0)}, r"\(compute capability 12.0\) is not one"),
    "full": ({"free": GIB // 2}, "has 0.5 of 80.0 GiB free, and at least 1 GiB"),
    "broken": ({"error": "CUDA unknown error\nand much more"}, "CUDA does not start: CUDA unknown error$"),
}


@pytest.mark.parametrize(("machine", "said"), LACKS.values(), ids=LACKS.keys())
def test_what_a_gpu_lacks_is_said_in_one_line_by_cuda_and_by_auto(gpu, machine, said):
    gpu(**machine)
    with pytest.raises(UsageError, match=said.removesuffix("$")) as refused:
        choose_device("cuda")
    assert "\n" not in str(refused.value) and "--device cpu" in str(refused.value)
    chosen = choose_device("auto", Work(worlds_there=True))
    assert chosen.device.type == "cpu" and "chosen by auto, since" in str(chosen) and "\n" not in str(chosen)
    assert choose_device("cpu").why == "asked for"  # and asks no GPU


def test_code_for_an_earlier_gpu_serves_as_ptx_or_within_its_major_version(gpu):
    gpu(capability=(8, 9), archs=("sm_80",))
    assert gpu_lack() == ""
    gpu(capability=(12, 0), archs=("sm_90a", "compute_90"))
    assert gpu_lack() == ""
    gpu(capability=(8, 0), archs=("sm_86",))
    assert gpu_lack() != ""


def test_auto_takes_the_gpu_for_worlds_that_live_there_cameras_and_large_steps_alone(gpu):
    small = Work.of(SACConfig())
    assert small.rows * small.weights == LARGE / 8
    assert choose_device("auto", small).device.type == "cpu"
    assert "small gradient steps on data from the CPU are faster here" in choose_device("auto", small).why
    large = Work.of(SACConfig(batch_size=2048, learning_starts=2048))
    for work, why in ((large, "2,048 rows"), (Work.of(SACConfig(), pictures=True), "camera"),
                      (Work.of(SACConfig(), worlds_there=True), "simulated there")):  # fmt: skip
        assert choose_device("auto", work).device.type == "cuda" and why in choose_device("auto", work).why
    assert choose_device("cuda", small).device.type == "cuda"


def test_auto_asks_no_gpu_where_the_cpu_is_the_sensible_choice(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "init", lambda: pytest.fail("it takes a second and memory"))
    assert choose_device("auto", Work.of(SACConfig())).device.type == "cpu"


def test_a_step_of_ppo_is_a_minibatch_of_its_rollout():
    config = PPOConfig(collect_steps=32, minibatches=4, hidden=(512, 256, 128))
    assert Work.of(config, num_envs=1024) == Work(8192, 512 * 256 + 256 * 128)


def test_a_run_says_its_device_once_and_keeps_it(tmp_path, caplog):
    settings = {"num_envs": 4, "collect_steps": 8, "hidden": (8, 8), "evaluations": 0, "steps": 32}
    with caplog.at_level(logging.INFO, logger="poise.device"):
        poise.train("ppo", "reach/planar-state", tmp_path / "run", settings=settings)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("device cpu: chosen by auto, since ")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert f"device {config['device']}: {config['device_reason']}" == caplog.messages[0]
