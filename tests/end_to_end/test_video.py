"""Films of a policy, in an environment of this file's own that paints its state: no graphics library is needed."""

import re
import subprocess
import sys

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from entroflow.commands import video
from entroflow.commands.video import record

LENGTH = 6


class Painter(gymnasium.Env):
    """The state counts up by the action; the picture's grey value is ten times the state. Sides are odd."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-9, 9, (1,), np.float64)
    fault = None

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = np.array([float(seed)]), 0
        return self.state.copy(), {}

    def step(self, action):
        self.state, self.steps = self.state + action, self.steps + 1
        return self.state.copy(), float(action[0]), False, self.steps == LENGTH, {}

    def render(self):
        if self.fault is not None:
            if isinstance(self.fault, Exception):
                raise self.fault
            return self.fault
        return np.full((121, 241, 3), 10 * int(self.state[0]), np.uint8)


class Blind(Painter):
    """Without pictures, and without the argument for them."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self):
        pass


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Both environments, for this file."""
    gymnasium.register("Painter-v0", entry_point=Painter)
    gymnasium.register("Blind-v0", entry_point=Blind)
    yield
    del gymnasium.registry["Painter-v0"], gymnasium.registry["Blind-v0"]


def act(obs):
    """Count up by two."""
    return np.full(1, 2.0) + 0 * obs


def mp4(path):
    """Grey values of the frames, their size, and the frames per second."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    facts = re.search(r"Video: h264.* (\d+)x(\d+).* (\d+) fps", done.stderr.decode())
    assert facts is not None
    width, height, fps = map(int, facts.groups())
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height * width * 3)
    return frames.mean(axis=1), (width, height), fps


def gif(path):
    with Image.open(path) as film:
        greys = []
        for i in range(film.n_frames):
            film.seek(i)
            greys.append(np.asarray(film.convert("RGB")).mean())
        return greys, film.size, film.info["duration"]


def test_an_mp4_shows_every_state(tmp_path):
    """First state, every state after a step, the next episode from the next seed; even sides; real time."""
    film = record("Painter-v0", act, tmp_path / "new" / "film.mp4", episodes=2, seed=3)
    frames, size, fps = mp4(film.path)
    states = [*range(3, 3 + 2 * LENGTH + 1, 2), *range(4, 4 + 2 * LENGTH + 1, 2)]
    np.testing.assert_allclose(frames, 10 * np.array(states), atol=4)
    assert (size, fps) == ((240, 120), 50)
    assert film.frames == len(states) and film.returns == [2.0 * LENGTH] * 2
    assert [path.name for path in film.path.parent.iterdir()] == ["film.mp4"]


def test_a_gif_needs_no_ffmpeg(tmp_path, monkeypatch):
    """Without ffmpeg the ending is chosen so; every second frame of 50 per second is kept, and shown twice as long."""
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    film = record("Painter-v0", act, tmp_path / "film", seed=1)
    assert film.path == tmp_path / "film.gif" and film.frames == LENGTH + 1
    frames, size, duration = gif(film.path)
    np.testing.assert_allclose(frames, [10, 50, 90, 130], atol=4)
    assert (size, duration) == ((241, 121), 40)
    with pytest.raises(ValueError, match=r"film.mp4' without ffmpeg, .* pip install .*\"imageio-ffmpeg>=0.6\""):
        record("Painter-v0", act, tmp_path / "film.mp4")


def test_without_an_ending_ffmpeg_is_preferred(tmp_path):
    """An MP4 where that can be written."""
    assert record("Painter-v0", act, tmp_path / "film").path == tmp_path / "film.mp4"


def test_films_have_limits(tmp_path, monkeypatch):
    """At most so many steps of an episode, and so many pixels."""
    monkeypatch.setattr(video, "STEPS", 2)
    monkeypatch.setattr(video, "SIDE", 100)
    film = record("Painter-v0", act, tmp_path / "film.mp4")
    frames, size, _ = mp4(film.path)
    assert (len(frames), size, film.frames) == (3, (100, 50), 3) and film.returns == [4.0]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("gladLoadGL error\nmore"), r"Painter-v0: got no image \(gladLoadGL error\), .*MUJOCO_GL=egl"),
        (
            gymnasium.error.DependencyNotInstalled("pygame is not installed."),
            r"no image \(pygame is not installed\), .*; run: pip install \"gymnasium\[classic-control\]>=1.4\"",
        ),
        (gymnasium.error.DependencyNotInstalled("Box2D is not there"), r"run: pip install \"gymnasium\[box2d\]>=1.4\""),
        (np.zeros((3, 4)), r"got frames of shape \(3, 4\) and type float64"),
    ],
)
def test_failing_graphics_are_explained(tmp_path, monkeypatch, fault, message):
    """One sentence with the cause and what to do, and no half of a film is left."""
    monkeypatch.setattr(Painter, "fault", fault)
    with pytest.raises(ValueError, match=message) as problem:
        record("Painter-v0", act, tmp_path / "film.gif")
    assert "\n" not in str(problem.value) and list(tmp_path.iterdir()) == []


def test_a_policy_that_fails_leaves_no_film(tmp_path):
    """Its own exception comes through; nothing is on disk."""
    with pytest.raises(ZeroDivisionError):
        record("Painter-v0", lambda obs: 1 / 0, tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("env_id", "settings", "message"),
    [
        ("Blind-v0", {}, "Blind-v0: got an environment without rendering"),
        ("entroflow/MultiGoal-v0", {}, "entroflow/MultiGoal-v0: got an environment without rendering"),
        ("Hoper-v5", {}, "env_id: got 'Hoper-v5' .*check the name"),
        ("Painter-v0", {"episodes": 0}, "episodes: got 0"),
        ("Painter-v0", {"seed": -1}, "seed: got -1, expected a whole number of at least 0"),
        ("Painter-v0", {"path": "film.avi"}, "path: got '.*film.avi', expected a name that ends with .mp4 or .gif"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path, env_id, settings, message):
    """The environment or the argument is named; nothing is written."""
    arguments = {"path": "film.gif"} | settings
    path = tmp_path / arguments.pop("path")
    with pytest.raises(ValueError, match=message) as problem:
        record(env_id, act, path, **arguments)
    assert "\n" not in str(problem.value) and list(tmp_path.iterdir()) == []


def test_a_film_shows_the_task_that_was_trained_on(tmp_path):
    """Its arguments, time limit and wrappers, not those that its id is registered with."""
    data = {"id": "Painter-v0", "kwargs": {}, "max_episode_steps": 2, "wrappers": []}
    data["wrappers"] = [{"name": "RescaleAction", "kwargs": {"min_action": -1.0, "max_action": 1.0}}]
    film = record("Painter-v0", lambda obs: np.ones(1), tmp_path / "film.gif", data=data)
    assert film.frames == 3 and film.returns == [18.0]  # two steps of the bound, 9


def test_what_ends_ffmpeg_is_told(tmp_path, monkeypatch):
    """A program that ends before its film does: its own words, in one sentence, and no film."""
    (program := tmp_path / "ffmpeg").write_text("#!/bin/sh\necho out of ideas >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(video, "_ffmpeg", lambda: str(program))
    monkeypatch.setattr(Painter, "render", lambda self: np.zeros((200, 200, 3), np.uint8))
    with pytest.raises(ValueError, match=r"film: got a failure of ffmpeg \(out of ideas\)"):
        record("Painter-v0", act, tmp_path / "film.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


def test_mujocos_camera_follows():
    """A body that would run away is followed by the model's own camera, unless the task follows it already."""

    class Camera:
        id = 5

    class Model:
        def camera(self, name):
            return {"track": Camera}[name]

    def followed(config, model):
        env = gymnasium.Env()
        env.model, env.mujoco_renderer = model, type("Renderer", (), {"default_cam_config": config, "camera_id": -1})()
        video._follow(env)
        return env.mujoco_renderer.camera_id

    assert followed({"distance": 4.0}, Model()) == followed(None, Model()) == 5
    assert followed({"trackbodyid": 2}, Model()) == -1
    video._follow(gymnasium.Env())  # has no such camera


def test_an_environment_that_fails_is_told_in_one_sentence(tmp_path, monkeypatch):
    """In a reset and in a step, as where it is trained on; no half of a film is left."""
    monkeypatch.setattr(Painter, "step", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match=r"^Painter.step failed \(ZeroDivisionError: division by zero\)"):
        record("Painter-v0", act, tmp_path / "film.gif")
    monkeypatch.setattr(Painter, "reset", lambda self, **_: self.missing)
    with pytest.raises(ValueError, match=r"^Painter.reset failed \(AttributeError: .*'missing'\)"):
        record("Painter-v0", act, tmp_path / "film.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [".", "..", "films"])
def test_a_folder_is_no_film(tmp_path, place):
    """What is above has no name, to which an ending could be added."""
    (tmp_path / "films").mkdir()
    with pytest.raises(ValueError, match="^path: got the folder .*, expected the name of a film; add one, such as"):
        record("Painter-v0", act, tmp_path / place)


@pytest.mark.parametrize("fps", [7, 24, 30, 60])
def test_a_gif_lasts_as_long_as_what_it_shows(tmp_path, monkeypatch, fps):
    """Its frames last whole hundredths of a second, of which 30 a second are no multiple: on average they are right."""
    monkeypatch.setitem(Painter.metadata, "render_fps", fps)
    with Image.open(record("Painter-v0", act, tmp_path / "film.gif", episodes=4).path) as film:
        seconds = 0.0
        for i in range(film.n_frames):
            film.seek(i)
            seconds += film.info["duration"] / 1000
    kept = range(0, 4 * (LENGTH + 1), int(np.ceil(fps / video.GIF_FPS)))
    assert abs(seconds - len(kept) * kept.step / fps) <= 0.006
