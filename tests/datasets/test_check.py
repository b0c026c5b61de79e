"""Every rule fires on a log that breaks it, and none on the sound log that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from poise.cli import main
from poise.datasets.check import ERROR, RULES, check, check_log, chosen, quick_errors
from poise.datasets.log import Episode, Log
from poise.errors import UsageError

Columns = dict[str, np.ndarray]


def sound() -> list[tuple[str, Columns, dict]]:
    """Five episodes of 50 to 54 steps with everything that a rule looks at."""
    episodes = []
    for i in range(5):
        rng, t = np.random.default_rng(i), 50 + i
        path = np.cumsum(rng.normal(size=(t + 1, 3)), 0).astype(np.float32)
        quat = rng.normal(size=(t, 4))
        ends = np.eye(t, dtype=bool)[-1]
        columns = {
            "obs/pos": path[:-1], "next_obs/pos": path[1:], "obs/quat": quat / np.linalg.norm(quat, axis=1, keepdims=True),
            "obs/cam": rng.integers(0, 255, (t, 16, 16, 3), np.uint8), "actions": rng.uniform(-0.9, 0.9, (t, 2)).astype(np.float32),
            "actions_asked": rng.uniform(-1, 1, (t, 2)).astype(np.float32), "rewards": rng.normal(size=t), "terminations": ends & bool(i % 2),
            "truncations": ends & (not i % 2), "dones": ends, "t_mono": 5.0 + 0.05 * np.arange(t), "t_device": 0.05 * np.arange(t),
            "verdict": np.zeros(t, np.uint8),
        }  # fmt: skip
        episodes.append((f"demo_{i}", columns, {"num_samples": t, "success": True}))
    return episodes


def log_of(episodes, attributes=None, filters=None) -> Log:
    filters = {"train": ("demo_0", "demo_1"), "valid": ("demo_2",)} if filters is None else filters
    return Log(
        Path("x.hdf5"),
        "robomimic",
        [Episode(*e) for e in episodes],
        attributes or {"env_args": "{}", "total": 260},
        filters,
    )


def fired(log: Log) -> set[str]:
    return set(check_log(log, chosen()).counts)


def column(name: str, change: Callable[[np.ndarray], object], episode: int = 1):
    """A breaker: `change` alters a column of one episode in place, or returns another."""

    def breaks(episodes):
        columns = episodes[episode][1]
        columns[name] = np.array(columns[name])
        other = change(columns[name])
        if isinstance(other, np.ndarray):
            columns[name] = other
        return log_of(episodes)

    return breaks


def every(name: str, change):
    def breaks(episodes):
        for i in range(len(episodes)):
            column(name, change, i)(episodes)
        return log_of(episodes)

    return breaks


def put(where, value):
    def change(x):
        x[where] = value

    return change


def rows(function):
    """A breaker: every column of one episode goes through `function`."""

    def breaks(episodes):
        name, columns, attributes = episodes[1]
        changed = {k: function(k, c) for k, c in columns.items()}
        episodes[1] = (name, changed, {**attributes, "num_samples": len(changed["actions"])})
        return log_of(episodes, {"env_args": "{}", "total": sum(len(c["actions"]) for _, c, _ in episodes)})

    return breaks


def without(*names):
    def breaks(episodes):
        for _, columns, _ in episodes:
            for name in names:
                columns.pop(name)
        return log_of(episodes)

    return breaks


def attribute(name, value):
    def breaks(episodes):
        episodes[1][2][name] = value
        return log_of(episodes)

    return breaks


def of_log(**changes):
    return lambda episodes: replace(log_of(episodes), **changes)


def equal(source: int, target: int):
    def breaks(episodes):
        episodes[target] = (episodes[target][0], episodes[source][1], episodes[source][2])
        return log_of(episodes, {"env_args": "{}", "total": sum(len(c["actions"]) for _, c, _ in episodes)})

    return breaks


def of_length(steps: int):
    def breaks(episodes):
        for i, (name, columns, attributes) in enumerate(episodes):
            cut = {k: c[:steps].copy() for k, c in columns.items()}
            for k in ("terminations", "dones"):
                cut[k][-1] = True
            episodes[i] = (name, cut, {**attributes, "num_samples": steps})
        return log_of(episodes, {"env_args": "{}", "total": 5 * steps})

    return breaks


def sparse_and_late(episodes):
    for _, columns, _ in episodes:
        columns["rewards"] = np.zeros(len(columns["rewards"]))
        columns["rewards"][-2] = 1.0
    return log_of(episodes)


def never(episodes):
    for _, columns, _ in episodes:
        columns["rewards"] = np.zeros(len(columns["rewards"]))
    return log_of(episodes)


def unended(episodes):
    for name in ("truncations", "dones"):
        episodes[2][1][name][:] = False
    return log_of(episodes)


def frozen(episodes):
    for name in ("obs/pos", "obs/quat"):
        episodes[1][1][name][10:40] = episodes[1][1][name][10]
    return log_of(episodes)


def repeated(name, x):
    x = x.copy()
    if not name.startswith("t_"):
        x[21] = x[20]
    return x


BROKEN: dict[str, Callable] = {
    "no-episode": lambda episodes: log_of([], {"env_args": "{}"}, {}),
    "zero-length": rows(lambda name, x: x[:0]),
    "short-episode": rows(lambda name, x: x[-1:]),
    "no-actions": without("actions"),
    "no-observations": without("obs/pos", "obs/quat", "obs/cam"),
    "column-length": column("rewards", lambda x: x[:-1]),
    "missing-column": lambda episodes: (episodes[1][1].pop("rewards"), log_of(episodes))[1],
    "shape": column("obs/pos", lambda x: np.zeros((len(x), 7), np.float32)),
    "image-size": column("obs/cam", lambda x: np.zeros((len(x), 12, 12, 3), np.uint8)),
    "dtype-differs": column("actions", lambda x: x.astype(np.float64)),
    "dtype": every("obs/pos", lambda x: x.astype("S8")),
    "image-dtype": every("obs/cam", lambda x: x.astype(np.float32) / 255),
    "num-samples": attribute("num_samples", 400),
    "total": of_log(attributes={"total": 9}),
    "name-gap": lambda episodes: log_of([episodes[0], *episodes[2:]], {"env_args": "{}"}, {}),
    "environment": of_log(attributes={"env_args": "{not json"}),
    "empty-filter": of_log(filters={"train": ()}),
    "unknown-member": of_log(filters={"train": ("demo_9",)}),
    "filter-twice": of_log(filters={"train": ("demo_1", "demo_1")}),
    "leakage": of_log(filters={"train": ("demo_0", "demo_1"), "valid": ("demo_1",)}),
    "nan": column("obs/pos", put((7, 1), np.nan)),
    "infinite": column("rewards", put(3, np.inf)),
    "action-range": column("actions", put((4, 0), 1.5)),
    "constant-action": every("actions", put((slice(None), 1), 0.25)),
    "clipped-action": every("actions", lambda x: np.clip(2.5 * x, -0.9, 0.9)),
    "constant-observation": every("obs/pos", put((slice(None), 2), 1.0)),
    "huge": column("rewards", put(3, 1e9)),
    "outlier": column("obs/pos", put((9, 0), 9e4)),
    "quaternion": column("obs/quat", put(5, 2.0)),
    "frozen-observation": frozen,
    "duplicate-step": rows(repeated),
    "duplicate-episode": equal(0, 1),
    "equal-held-out": equal(0, 2),
    "broken-successor": column("next_obs/pos", put((8, 0), 50.0)),
    "end-inside": column("terminations", put(12, True)),
    "no-end": unended,
    "both-ends": every("terminations", put(-1, True)),
    "time-limit": of_length(50),
    "no-timeouts": without("truncations", "dones"),
    "constant-reward": never,
    "never-rewarded": never,
    "late-reward": sparse_and_late,
    "return-said": attribute("episode_return", 1e6),
    "time-backward": column("t_mono", put(9, 0.0)),
    "dropped-frame": column("t_mono", put(slice(20, None), 5.1 + 0.05 * np.arange(20, 51))),
    "time-gap": column("t_mono", put(slice(20, None), 60.0 + 0.05 * np.arange(20, 51))),
    "jitter": every("t_mono", lambda x: np.cumsum(np.random.default_rng(0).uniform(0.01, 0.09, len(x)))),
    "drift": column("t_device", lambda x: 1.05 * x),
    "verdict": column("verdict", put(4, 2)),
    "asked-range": column("actions_asked", put((4, 0), np.nan)),
    "black-image": column("obs/cam", put(0, 0)),
    "flat-image": column("obs/cam", put(0, 90)),
    "frozen-image": column("obs/cam", lambda x: np.broadcast_to(x[:1], x.shape).copy()),
}  # fmt: skip
OF_FILES = {"unreadable", "lfs-pointer", "half-copy"}


def test_there_are_more_than_thirty_rules_each_with_a_sentence_and_a_way_out_and_a_broken_log():
    names = {r.name for r in chosen()}
    assert len(names) >= 50 and names == set(BROKEN) | OF_FILES
    for one in RULES.values():
        assert one.meaning.endswith(".") and len(one.advice) > 8, one.name


def test_a_sound_log_breaks_no_rule():
    assert fired(log_of(sound())) == set()


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_log_fires_its_rule(name):
    report = check_log(BROKEN[name](sound()), chosen())
    assert name in report.counts, report.counts
    (finding, *_) = [f for f in report.findings if f.rule == name]
    assert finding.message and finding.severity == RULES[name].severity


def test_where_a_finding_is_named_by_episode_and_step():
    report = check_log(BROKEN["nan"](sound()), chosen(["nan"]))
    assert [(f.episode, f.row) for f in report.findings] == [("demo_1", 7)] and report.worst()
    assert not check_log(log_of(sound()), chosen()).worst()


def write(path: str) -> None:
    with h5py.File(path, "w") as h5:
        h5.create_group("data").attrs["env_args"] = "{}"
        for name, columns, attributes in sound():
            group = h5.create_group(f"data/{name}")
            group.attrs.update(attributes)
            for k, c in columns.items():
                group[k] = c


def test_files_that_are_none_are_told_apart():
    write("a.hdf5")
    content = Path("a.hdf5").read_bytes()
    Path("half.hdf5").write_bytes(content[: len(content) // 2])
    Path("lfs.hdf5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    Path("text.hdf5").write_text("hello")
    for file, name in (
        ("half.hdf5", "half-copy"),
        ("lfs.hdf5", "lfs-pointer"),
        ("text.hdf5", "unreadable"),
        ("none.hdf5", "unreadable"),
    ):
        assert set(check(file).counts) == {name}
    assert check("a.hdf5").counts == {}


def test_a_chunk_that_cannot_be_read_is_found():
    write("a.hdf5")
    with h5py.File("a.hdf5", "r+") as h5:
        del h5["data/demo_1/rewards"]
        h5["data/demo_1"].create_dataset(
            "rewards", data=np.random.default_rng(0).normal(size=51), chunks=(51,), compression="gzip", fletcher32=True
        )
        where = h5["data/demo_1/rewards"].id.get_chunk_info(0).byte_offset
    with open("a.hdf5", "r+b") as file:
        file.seek(where + 20)
        file.write(b"\xff" * 40)
    assert "unreadable" in check("a.hdf5").counts


def test_rules_can_be_chosen_and_left_out_and_an_unknown_one_is_refused():
    log = BROKEN["nan"](sound())
    assert set(check_log(log, chosen(["nan"])).counts) == {"nan"}
    assert "nan" not in check_log(log, chosen(ignore=["nan"])).counts
    with pytest.raises(UsageError, match="unknown rule 'nam'; did you mean nan"):
        chosen(["nam"])
    assert quick_errors(log)[0].startswith("nan: demo_1, step 7: obs/pos is NaN")
    assert all(RULES[r].severity == ERROR for r in ("nan", "leakage"))


def test_the_command_tells_counts_and_advice_and_its_code_says_whether_there_is_an_error(capsys):
    write("a.hdf5")
    assert main(["data", "check", "a.hdf5"]) == 0
    assert "a.hdf5: 5 episodes, 260 steps: sound" in capsys.readouterr().out
    with h5py.File("a.hdf5", "r+") as h5:
        h5["data/demo_1/obs/pos"][7, 1] = np.nan
        h5["data"].attrs["total"] = 3
    assert main(["data", "check", "a.hdf5"]) == 1
    out = capsys.readouterr().out
    assert "error nan (1)" in out and "demo_1, step 7" in out and "never put a zero in its place" in out
    assert main(["data", "check", "a.hdf5", "--ignore", "nan", "broken-successor"]) == 0
    assert main(["data", "check", "a.hdf5", "--only", "total", "--strict"]) == 1
    assert main(["data", "check", "a.hdf5", "--only", "x"]) == 2
    capsys.readouterr()
    assert main(["data", "check", "--rules"]) == 0
    assert all(name in capsys.readouterr().out for name in ("leakage",))


def test_the_page_lists_every_rule_as_it_is():
    page = (Path(__file__).parents[2] / "docs" / "data-check.md").read_text()
    for one in chosen():
        assert f"| `{one.name}` | {one.severity} | {one.meaning} | {one.advice} |" in page, one.name
    assert page.count("\n| `") == len(chosen())
