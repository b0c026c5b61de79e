"""Files that are wrong in more than two hundred ways, made from small sound ones of every layout under one seed."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from poise.datasets.layouts import d4rl, minari, npz, robomimic, robosuite_raw
from poise.datasets.log import Episode, Log

HERE = Path(__file__).parent / "data"
FLIPS = 28  # mutations of each layout by chance


def sound_log() -> Log:
    episodes = []
    for i, t in enumerate((6, 4, 5)):
        rng = np.random.default_rng(i)
        last = np.eye(t, dtype=bool)[-1]
        columns = {
            "obs/state": rng.normal(size=(t, 3)).astype(np.float32), "next_obs/state": rng.normal(size=(t, 3)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (t, 2)).astype(np.float32), "rewards": rng.normal(size=t).astype(np.float32),
            "terminations": last & bool(i % 2), "truncations": last & (i % 2 == 0), "states": rng.normal(size=(t, 4)),
        }  # fmt: skip
        episodes.append(Episode(f"demo_{i}", columns, {"success": True, "num_samples": t}))
    return Log(
        Path("sound"),
        "robomimic",
        episodes,
        {"env_args": json.dumps({"env_name": "x", "type": 2})},
        {"train": ("demo_0",)},
    )


def sound_files(folder: Path) -> dict[str, Path]:
    """One small file or folder of every layout."""
    log = sound_log()
    files = {name: folder / f"{name}.hdf5" for name in ("robomimic", "d4rl", "robosuite")} | {
        "npz": folder / "npz.npz",
        "minari": folder / "set-v0",
    }
    robomimic.write(files["robomimic"], log)
    d4rl.write(files["d4rl"], log)
    npz.write(files["npz"], log)
    minari.write(files["minari"], log)
    robosuite_raw.write(
        files["robosuite"],
        Log(
            log.path,
            "robosuite",
            [Episode(e.name, {"states": e.columns["states"]}, {"model_file": "<m/>"}) for e in log.episodes],
        ),
    )
    paths = [
        {"observations": e.columns["obs/state"], "actions": e.columns["actions"], "rewards": e.columns["rewards"]}
        for e in log.episodes
    ]
    files["pickled"] = folder / "pickled.pkl"
    files["pickled"].write_bytes(pickle.dumps([{k: np.asarray(v) for k, v in p.items()} for p in paths]))
    files["lerobot"] = folder / "lerobot"
    shutil.copytree(HERE / "lerobot_g1", files["lerobot"])
    return files


def by_chance(files: dict[str, Path], folder: Path) -> Iterator[Path]:
    """Truncated, zeroed and flipped, in headers more often than in numbers."""
    rng = random.Random(7)
    for name, source in files.items():
        for i in range(FLIPS):
            target = folder / f"{name}-{i}{source.suffix}" if source.is_file() else folder / f"{name}-{i}" / source.name
            if source.is_dir():
                shutil.copytree(source, target)
                victim = rng.choice(sorted(p for p in target.rglob("*") if p.is_file()))
            else:
                victim = Path(shutil.copy(source, target))
            data = bytearray(victim.read_bytes())
            kind = ("cut", "zero", "flip", "flip", "flip")[i % 5]
            if kind == "cut":
                del data[rng.randrange(len(data)) :]
            elif kind == "zero":
                start = rng.randrange(len(data))
                data[start : start + rng.randrange(1, 200)] = b""
            else:
                for _ in range(rng.choice((1, 3, 30))):
                    data[rng.randrange(min(len(data), rng.choice((len(data), 4000))))] ^= 1 << rng.randrange(8)
            victim.write_bytes(data)
            yield target


def _hdf5(change: Callable[[h5py.File], object]) -> Callable[[Path, dict[str, Path]], object]:
    def make(path: Path, files: dict[str, Path]) -> None:
        shutil.copy(files["robomimic"], path)
        with h5py.File(path, "r+") as h5:
            change(h5)

    return make


def _d4rl(change: Callable[[h5py.File], object]) -> Callable[[Path, dict[str, Path]], object]:
    def make(path: Path, files: dict[str, Path]) -> None:
        shutil.copy(files["d4rl"], path)
        with h5py.File(path, "r+") as h5:
            change(h5)

    return make


def _replace(h5, name: str, value) -> None:
    del h5[name]
    h5[name] = value


def _external(h5) -> None:
    del h5["data/demo_0/actions"]
    h5["data/demo_0"].create_dataset("actions", (6, 2), "f4", external=[("/etc/hostname", 0, 48)])


def _virtual(h5) -> None:
    del h5["data/demo_0/actions"]
    layout = h5py.VirtualLayout((6, 2), "f4")
    layout[:] = h5py.VirtualSource("robomimic.hdf5", "data/demo_1/actions", (6, 2))
    h5["data/demo_0"].create_virtual_dataset("actions", layout)


def _huge(h5) -> None:
    del h5["data/demo_0/actions"]
    h5["data/demo_0"].create_dataset("actions", (1 << 40, 64), "f8", chunks=(1024, 64), compression="gzip")


def _bomb(h5) -> None:
    del h5["data/demo_0/obs/state"]
    h5["data/demo_0/obs"].create_dataset(
        "state", data=np.zeros((200_000, 300), np.float32), chunks=(50_000, 300), compression="gzip", compression_opts=9
    )


def _objects(h5) -> None:
    del h5["data/demo_0/actions"]
    h5["data/demo_0"].create_dataset("actions", (6,), h5py.vlen_dtype(np.float32))


def _record(h5) -> None:
    _replace(h5, "data/demo_0/actions", np.zeros(6, [("a", "f4"), ("b", "i8")]))


def _deep(h5) -> None:
    group = h5["data/demo_0"]
    for _ in range(300):
        group = group.create_group("g")


def _zip(
    members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> Callable[[Path, dict[str, Path]], object]:
    def make(path: Path, files: dict[str, Path]) -> None:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return make


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _bytes(content: bytes) -> Callable[[Path, dict[str, Path]], object]:
    return lambda path, files: path.write_bytes(content)


def _array(value) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(value))
    return buffer.getvalue()


class Runs:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def _minari(change: Callable[[Path], object]) -> Callable[[Path, dict[str, Path]], object]:
    def make(path: Path, files: dict[str, Path]) -> None:
        shutil.copytree(files["minari"], path)
        change(path / "data")

    return make


def _lerobot(change: Callable[[Path], object]) -> Callable[[Path, dict[str, Path]], object]:
    def make(path: Path, files: dict[str, Path]) -> None:
        shutil.copytree(files["lerobot"], path)
        change(path)

    return make


def _edited(name: str, **changes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(data | changes))

    return change


BY_HAND: dict[str, Callable[[Path, dict[str, Path]], object]] = {
    "a.hdf5": _hdf5(lambda h5: h5.__delitem__("data")),
    "b.hdf5": _hdf5(lambda h5: h5.__delitem__("data/demo_0/actions")),
    "c.hdf5": _hdf5(lambda h5: _replace(h5, "data/demo_0", np.zeros(3))),
    "d.hdf5": _hdf5(lambda h5: _replace(h5, "data/demo_0/obs", np.zeros(3))),
    "e.hdf5": _hdf5(lambda h5: h5.move("data/demo_0", "data/demo_x")),
    "f.hdf5": _hdf5(lambda h5: h5.move("data/demo_0", "data/demo_-1")),
    "g.hdf5": _hdf5(lambda h5: h5.move("data/demo_0", "data/demo_99999999999999999999999")),
    "h.hdf5": _hdf5(lambda h5: h5["data/demo_0"].attrs.__setitem__("num_samples", -5)),
    "i.hdf5": _hdf5(lambda h5: h5["data/demo_0"].attrs.__setitem__("num_samples", "many")),
    "j.hdf5": _hdf5(lambda h5: h5["data/demo_0"].attrs.__setitem__("num_samples", np.zeros((2, 2)))),
    "k.hdf5": _hdf5(lambda h5: h5["data"].attrs.__setitem__("env_args", b"\xff\xfe")),
    "l.hdf5": _hdf5(lambda h5: h5["data"].attrs.__setitem__("total", h5py.Empty("f4"))),
    "m.hdf5": _hdf5(lambda h5: h5["data"].attrs.__setitem__("poise_made", "{")),
    "n.hdf5": _hdf5(lambda h5: h5["data"].attrs.__setitem__("poise_json:x", "{'")),
    "o.hdf5": _hdf5(lambda h5: h5["data"].attrs.__setitem__("poise_json:x", '{"dtype": "O", "shape": [1], "base64": ""}')),
    "p.hdf5": _hdf5(lambda h5: _replace(h5, "mask/train", np.zeros((2, 2)))),
    "q.hdf5": _hdf5(lambda h5: _replace(h5, "mask/train", np.array([b"\xff\xfe"]))),
    "r.hdf5": _hdf5(_external),
    "s.hdf5": _hdf5(_virtual),
    "t.hdf5": _hdf5(_huge),
    "u.hdf5": _hdf5(_bomb),
    "v.hdf5": _hdf5(_objects),
    "w.hdf5": _hdf5(_record),
    "x.hdf5": _hdf5(_deep),
    "y.hdf5": _hdf5(lambda h5: h5["data"].__setitem__("demo_9", h5["data"])),
    "z.hdf5": _hdf5(lambda h5: h5["data"].__setitem__("demo_9", h5py.SoftLink("/data"))),
    "aa.hdf5": _hdf5(lambda h5: h5["data"].__setitem__("demo_9", h5py.ExternalLink("/etc/passwd", "/"))),
    "ab.hdf5": _hdf5(lambda h5: h5["data/demo_0"].__setitem__("x", h5py.SoftLink("/nowhere"))),
    "ac.hdf5": _hdf5(lambda h5: _replace(h5, "data/demo_0/rewards", np.zeros((6, 0)))),
    "ad.hdf5": _hdf5(lambda h5: _replace(h5, "data/demo_0/actions", np.float32(3))),
    "ae.hdf5": _hdf5(lambda h5: _replace(h5, "data/demo_0/actions", np.zeros((6, 2), np.complex64))),
    "ba.hdf5": _d4rl(lambda h5: h5.__delitem__("observations")),
    "bb.hdf5": _d4rl(lambda h5: h5.__delitem__("terminals")),
    "bc.hdf5": _d4rl(lambda h5: _replace(h5, "rewards", np.zeros(3))),
    "bd.hdf5": _d4rl(lambda h5: _replace(h5, "timeouts", np.zeros((15, 4)))),
    "be.hdf5": _d4rl(lambda h5: _replace(h5, "observations", np.zeros((15, 1)))),
    "bf.hdf5": _d4rl(lambda h5: _replace(h5, "metadata/poise/log", "{")),
    "bg.hdf5": _d4rl(lambda h5: _replace(h5, "metadata/poise/log", json.dumps({"format": 99}))),
    "bh.hdf5": _d4rl(lambda h5: _replace(h5, "metadata/poise/log", json.dumps({"format": 1, "episodes": [], "columns": 3}))),
    "ca.npz": _bytes(b""),
    "cb.npz": _bytes(b"PK\x05\x06" + bytes(18)),
    "cc.npz": _zip({"actions.npy": b""}),
    "cd.npz": _zip({"actions.npy": _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }")}),
    "ce.npz": _zip({"actions.npy": _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps(Runs()))}),
    "cf.npz": _zip({"actions.npy": _npy("__import__('os').system('touch pwned')")}),
    "cg.npz": _zip({"actions.npy": _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", bytes(8))}),
    "ch.npz": _zip({"actions.npy": bytes(200_000_000)}),
    "ci.npz": _zip({"../../actions.npy": _array(np.zeros((3, 1)))}),
    "cj.npz": _zip({"actions.npy": _array(np.zeros((3, 1))), "observations.npy": _array(np.zeros((4, 1)))}),
    "ck.npz": _zip({"poise_log.npy": _array(np.zeros(4, np.uint8)), "episode_ends.npy": _array(np.array([5]))}),
    "cl.npz": _zip({"obs.npy": _array(np.zeros((9, 2))), "acts.npy": _array(np.zeros(5)), "indices.npy": _array(np.array([7])), "terminal.npy": _array(np.zeros(2, bool))}),
    "da.pkl": _bytes(pickle.dumps([{"actions": Runs()}])),
    "db.pkl": _bytes(b"\x80\x04]r\xff\xff\xff\xff."),
    "dc.pkl": _bytes(b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x."),
    "dd.pkl": _bytes(b"\x80\x04](" + b"](" * 50_000 + b"."),
    "de.pkl": _bytes(pickle.dumps(["a", "b"])),
    "df.pkl": _bytes(pickle.dumps([{"actions": [np.zeros(2), np.zeros(3)]}])),
    "dg.pkl": _bytes(pickle.dumps([{"actions": np.array([{}], object)}])),
    "dh.pkl": _bytes(pickle.dumps([{"observations": np.zeros((3, 2))}])),
    "ea": _minari(lambda data: (data / "metadata.json").write_text("{")),
    "eb": _minari(lambda data: (data / "metadata.json").unlink()),
    "ec": _minari(lambda data: (data / "main_data.hdf5").unlink()),
    "ed": _minari(lambda data: (data / "main_data.hdf5").write_bytes(b"hello")),
    "ee": _minari(_edited("metadata.json", data_format="zarr")),
    "ef": _minari(_edited("metadata.json", observation_space='{"type": "Sphere"}')),
    "eg": _minari(_edited("metadata.json", total_episodes=-4)),
    "eh": _minari(_edited("metadata.json", observation_space="[" * 5000)),
    "fa": _lerobot(lambda folder: (folder / "meta" / "info.json").write_text("[]")),
    "fb": _lerobot(lambda folder: shutil.rmtree(folder / "data")),
    "fc": _lerobot(_edited("meta/info.json", data_path="../../../etc/passwd")),
    "fd": _lerobot(_edited("meta/info.json", fps=0)),
    "fe": _lerobot(_edited("meta/info.json", features={})),
    "ff": _lerobot(_edited("meta/info.json", codebase_version="v9.0")),
    "ga.hdf5": _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
    "gb.hdf5": _bytes(b""),
    "gc.hdf5": _bytes(b"\x89HDF\r\n\x1a\n" + bytes(4000)),
    "gd.hdf5": lambda path, files: path.mkdir(),
    "ge.hdf5": lambda path, files: path.symlink_to("nowhere"),
    "gf.hdf5": lambda path, files: path.symlink_to(path),
    "gg.hdf5": lambda path, files: os.mkfifo(path),
}  # fmt: skip


def by_hand(files: dict[str, Path], folder: Path) -> Iterator[Path]:
    """Each wrong in one way that somebody thought of."""
    for name, make in BY_HAND.items():
        make(folder / name, files)
        yield folder / name
