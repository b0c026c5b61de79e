"""What a browser shows of one simulated world: a MuJoCo model's geoms as viser's shapes, or a picture.

Every body is a frame whose shapes hang below it, so a step sends two numbers a body and no meshes. Shapes are
drawn from the compiled model alone; there is no OpenGL here, the browser draws.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import trimesh

GROUPS = 3  # geoms and sites of groups 0, 1 and 2 are shown, as in MuJoCo's own viewer
DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0], np.float32)
FLOOR = (233, 236, 240)  # the colour of planes that no randomization painted
_GEOM = mujoco.mjtGeom
_WORLD = "/world"


class MujocoScene:
    """The shapes of a model in a viser server; `update` moves them."""

    def __init__(self, server: Any, model: mujoco.MjModel, root: str = _WORLD, ghost: Any = None):
        """root: the scene's name in the server; ghost: a colour, to show moving shapes alone, and these as a shade."""
        self.server, self.model, self._name, self._ghost = server, model, root, ghost
        self._follows = travelling_body(model)
        self._root = server.scene.add_frame(root, show_axes=False)
        self._moving = [i for i in range(1, model.nbody) if model.body_weldid[i] != 0 or model.body_mocapid[i] >= 0]
        self._frames: dict[int, Any] = {}
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        for body in range(1, model.nbody):
            self._frames[body] = server.scene.add_frame(
                f"{root}/{body}", show_axes=False, position=data.xpos[body], wxyz=data.xquat[body]
            )
        self._floor: Any = FLOOR
        self._shown = {g: _appearance(model, g) for g in range(model.ngeom) if model.geom_group[g] < GROUPS}
        for geom in self._shown:
            self._add_geom(geom)
        self._goal = None
        for site in range(model.nsite):
            if model.site_group[site] < GROUPS:
                handle = self._add(f"site{site}", model.site_bodyid[site], int(model.site_type[site]),
                                   model.site_size[site], model.site_pos[site], model.site_quat[site],
                                   model.site_rgba[site])  # fmt: skip
                if model.site(site).name == "target":
                    self._goal = handle
        if not ghost:
            mujoco.mj_camlight(model, data)
            self._look(data)

    def update(self, data: mujoco.MjData, target_pos: Any = None) -> None:
        """Show the positions in `data`, and the site `target` at target_pos (3,) [m] where one is given."""
        with self.server.atomic():
            for body in self._moving:
                self._frames[body].position = data.xpos[body]
                self._frames[body].wxyz = data.xquat[body]
            if self._goal is not None and target_pos is not None:
                self._goal.position = target_pos
            if self._follows:  # the world passes by, and the camera needs not be told
                self._root.position = (-data.xpos[self._follows][0], -data.xpos[self._follows][1], 0.0)

    def repaint(self) -> None:
        """Show the model's colours, sizes and shapes anew, where they changed."""
        self._floor = None
        with self.server.atomic():
            for geom, before in self._shown.items():
                if before != (now := _appearance(self.model, geom)):
                    self._shown[geom] = now
                    self._add_geom(geom)

    def _add_geom(self, geom: int) -> None:
        """A geom's shape, in the place of the one of this name that there may be."""
        model = self.model
        self._add(f"geom{geom}", model.geom_bodyid[geom], int(model.geom_type[geom]), model.geom_size[geom],
                  model.geom_pos[geom], model.geom_quat[geom], geom_rgba(model, geom),
                  int(model.geom_dataid[geom]))  # fmt: skip

    def _add(self, name: str, body: int, kind: int, size: np.ndarray, position: np.ndarray, wxyz: np.ndarray,
             rgba: np.ndarray, mesh: int = -1) -> Any:  # fmt: skip
        scene = self.server.scene
        path = f"{self._name}/{name}" if body == 0 else f"{self._name}/{body}/{name}"
        place: dict[str, Any] = {"position": position, "wxyz": wxyz}
        color = tuple(round(255 * float(c)) for c in np.clip(rgba[:3], 0, 1))
        look = {"color": color, "opacity": None if rgba[3] >= 1 else float(rgba[3])}
        if rgba[3] == 0 or (self._ghost and body not in self._moving):
            return None
        if self._ghost:
            look = {"color": self._ghost, "opacity": 0.25}
        if kind == _GEOM.mjGEOM_PLANE:
            return self._add_plane(path, size, place, self._floor or color)
        if kind == _GEOM.mjGEOM_SPHERE:
            return scene.add_icosphere(path, float(size[0]), **look, **place)
        if kind == _GEOM.mjGEOM_ELLIPSOID:
            return scene.add_icosphere(path, 1.0, scale=tuple(float(x) for x in size), **look, **place)
        if kind == _GEOM.mjGEOM_BOX:
            return scene.add_box(path, dimensions=tuple(2.0 * float(x) for x in size), **look, **place)
        if kind == _GEOM.mjGEOM_CYLINDER:
            return scene.add_cylinder(path, float(size[0]), 2.0 * float(size[1]), **look, **place)
        if (shape := _shape(self.model, kind, size, mesh)) is None:
            return None
        flat = kind != _GEOM.mjGEOM_CAPSULE
        return scene.add_mesh_simple(path, *shape, flat_shading=flat, **look, **place)

    def _add_plane(self, path: str, size: np.ndarray, place: dict[str, Any], color: Any) -> Any:
        """A floor: a grid, since a plane of one colour shows no movement."""
        width, height = (2.0 * float(x) if 0 < x < 20 else 40.0 for x in size[:2])
        return self.server.scene.add_grid(
            path, width, height, cell_size=0.25, section_size=1.0, cell_color=(205, 210, 216), cell_thickness=0.8,
            section_color=(172, 180, 190), plane_color=color, plane_opacity=1.0, shadow_opacity=0.25,
            fade_distance=30.0, **place,
        )  # fmt: skip

    def _look(self, data: mujoco.MjData) -> None:
        """Start where the model's first camera stands, if it stands still, else a little above and aside."""
        camera = self.server.initial_camera
        low, high = self._bounds(data)
        center, away = (low + high) / 2, np.array([0.7, -1.3, 0.6]) * max(1.2 * float(np.linalg.norm(high - low)), 0.1)
        if self.model.ncam and self.model.cam_bodyid[0] == 0 and not self._follows:
            position, axis = np.array(data.cam_xpos[0]), -data.cam_xmat[0].reshape(3, 3)[:, 2]
            center = position + axis * float(np.linalg.norm(center - position))
            away = position - center
            camera.fov = float(np.deg2rad(self.model.cam_fovy[0]))
        camera.position, camera.look_at = center + away, center

    def _bounds(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """The corners of a box around everything that moves; a floor says nothing about where to look."""
        moving = np.isin(self.model.geom_bodyid, self._moving)
        if not moving.any():
            center, half = np.array(self.model.stat.center), float(self.model.stat.extent) / 2
            return center - half, center + half
        at, radius = data.geom_xpos[moving], self.model.geom_rbound[moving, None]
        return (at - radius).min(0), (at + radius).max(0)


class PictureScene:
    """Frames that a simulator drew itself, on a board in front of the camera."""

    def __init__(self, server: Any, frame: np.ndarray):
        height, width = frame.shape[:2]
        facing = (np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0)  # upright, its face to -y
        self._image = server.scene.add_image(
            f"{_WORLD}/picture", frame, 2.0 * width / height, 2.0, wxyz=facing, position=(0.0, 0.0, 1.0)
        )
        server.initial_camera.position, server.initial_camera.look_at = (0.0, -2.6, 1.0), (0.0, 0.0, 1.0)

    def update(self, frame: np.ndarray) -> None:
        self._image.image = frame


def travelling_body(model: mujoco.MjModel) -> int:
    """The body that a camera should follow, 0 for none: the first, if it is free to leave or slides along two axes."""
    if model.njnt == 0:
        return 0
    body = int(model.jnt_bodyid[0])
    kinds = [int(model.jnt_type[j]) for j in range(model.njnt) if model.jnt_bodyid[j] == body]
    leaves = int(mujoco.mjtJoint.mjJNT_FREE) in kinds or kinds.count(int(mujoco.mjtJoint.mjJNT_SLIDE)) >= 2
    return body if leaves else 0


def geom_rgba(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """A geom's colour: its own, else its material's, as MuJoCo chooses."""
    material = int(model.geom_matid[geom])
    own = model.geom_rgba[geom]
    return own if material < 0 or not np.array_equal(own, DEFAULT_RGBA) else model.mat_rgba[material]


def _appearance(model: mujoco.MjModel, geom: int) -> bytes:
    """What a randomization may change of a geom's looks, to compare."""
    parts = (geom_rgba(model, geom), model.geom_type[geom], model.geom_size[geom], model.geom_pos[geom],
             model.geom_quat[geom])  # fmt: skip
    return b"".join(np.asarray(part).tobytes() for part in parts)


def _shape(model: mujoco.MjModel, kind: int, size: np.ndarray, mesh: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices (n, 3) and faces (m, 3) of a capsule or a mesh; None for what is not drawn (height fields, SDFs)."""
    if kind == _GEOM.mjGEOM_CAPSULE:
        capsule = trimesh.creation.capsule(height=2.0 * float(size[1]), radius=float(size[0]), count=(24, 24))
        capsule.vertices -= capsule.bounds.mean(0)
        return np.asarray(capsule.vertices, np.float32), np.asarray(capsule.faces)
    if kind == _GEOM.mjGEOM_MESH and mesh >= 0:
        v, n = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        f, m = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        return np.array(model.mesh_vert[v : v + n]), np.array(model.mesh_face[f : f + m])
    return None
