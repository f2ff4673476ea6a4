"""Videos of a policy at work: MP4 through ffmpeg, GIF through Pillow where that is not installed."""

import contextlib
import subprocess
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from PIL import Image

from .. import checks, files
from ..agents import specification
from ..agents.refusals import install
from ..envs.episodes import watching
from ..names import COMPILED

STEPS, SIDE = 1000, 640  # of an episode, and pixels of the longest side, at most
GIF_SIDE, GIF_FPS = 320, 25  # at most: GIFs are large, and viewers slow down faster ones
GRAPHICS = "on a machine without a display set MUJOCO_GL=egl, or MUJOCO_GL=osmesa if there is no driver for that"


class Video(NamedTuple):
    """What was recorded: the file, the number of frames, and the undiscounted return of every episode."""

    path: Path
    frames: int
    returns: list[float]


def record(
    env_id: str,
    act: Callable[[Any], Any],
    path: str | Path,
    *,
    episodes: int = 1,
    seed: int = 0,
    data: dict[str, Any] | None = None,
) -> Video:
    """Run a policy in a Gymnasium environment and film it.

    Without an ending, .mp4 or .gif, the film is an MP4 if imageio-ffmpeg is installed, a GIF if not. Seeds of further
    episodes count up. It runs in real time. `data` are its arguments, time limit and wrappers, as `Task.data` has them,
    where they are not those that it is registered with. What cannot be filmed is a `ValueError` of one sentence.
    """
    checks.positive_int("episodes", episodes)
    checks.seed("seed", seed)
    path = _film(Path(path))
    env = _make(env_id, data)
    rewards: list[list[float]] = []

    def frames() -> Iterator[Image.Image]:
        for episode in range(episodes):
            with watching(env, "reset"):
                obs, _ = env.reset(seed=seed + episode)
            yield _render(env, env_id)
            rewards.append([])
            ended = False
            while not ended and len(rewards[-1]) < STEPS:
                action = act(obs)
                with watching(env, "step"):
                    obs, reward, terminated, truncated, _ = env.step(action)
                    rewards[-1].append(float(reward))
                ended = terminated or truncated
                yield _render(env, env_id)

    try:
        with files.partial(path.parent, path.suffix) as file:  # a film that broke off is not left behind
            write = _mp4 if path.suffix == ".mp4" else _gif
            rate = checks.positive_number("render_fps", env.metadata.get("render_fps") or 30)
            write(Path(file.name), rate, frames())
            files.settle(file, path)
    finally:
        env.close()
    return Video(path, sum(len(episode) + 1 for episode in rewards), list(map(sum, rewards)))


def _film(path: Path) -> Path:
    """Choose the format by the ending, or by what is installed."""
    ffmpeg = _ffmpeg()
    if path.is_dir():
        raise checks.error("path", f"the folder {str(path)!r}", "the name of a film", "add one, such as film.gif")
    if not path.suffix:
        return path.with_suffix(".mp4" if ffmpeg else ".gif")
    if path.suffix not in (".mp4", ".gif"):
        raise checks.error("path", repr(str(path)), "a name that ends with .mp4 or .gif", "rename it")
    if path.suffix == ".mp4" and not ffmpeg:
        remedy = f"{checks.install('video')}, or name the file .gif"
        raise checks.error("path", f"{str(path)!r} without ffmpeg", "imageio-ffmpeg for an MP4", remedy)
    return path


def _ffmpeg() -> str | None:
    """Return the path of the program ffmpeg, if imageio-ffmpeg is installed."""
    try:
        return import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


def _make(env_id: str, data: dict[str, Any] | None) -> gymnasium.Env:
    env_id = COMPILED.get(env_id, env_id)  # what is seen and done there is the same
    if env_id.startswith("entroflow/"):
        import_module("entroflow.envs")  # registers them
    expected = "an environment that renders images (rgb_array)"
    try:
        with warnings.catch_warnings(action="ignore"):  # Gymnasium warns of what is said here in one sentence
            if data is None:
                env = gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)
            else:
                _, build, _ = specification.read(data | {"kwargs": data["kwargs"] | {"render_mode": "rgb_array"}})
                env = build()
        if env.render_mode == "rgb_array" and "rgb_array" in env.metadata.get("render_modes", []):
            _follow(env.unwrapped)
            return env
        env.close()
    except Exception as problem:
        if not (isinstance(problem, TypeError) and "render_mode" in str(problem)):
            is_known = isinstance(problem, gymnasium.error.Error)
            remedy = "check the name and install what is missing" if is_known else GRAPHICS
            raise checks.error("env_id", f"{env_id!r} ({_first_line(problem)})", expected, remedy) from None
    raise checks.error(env_id, "an environment without rendering", expected, "film another task")


def _follow(env: Any) -> None:
    """Let MuJoCo's camera follow what would run out of the picture: Gymnasium 1.4 passes over the model's own."""
    renderer = getattr(env, "mujoco_renderer", None)
    if renderer is not None and "trackbodyid" not in (renderer.default_cam_config or {}):
        with contextlib.suppress(KeyError):  # no such camera in the model: it stands still
            renderer.camera_id = env.model.camera("track").id


def _render(env: gymnasium.Env, env_id: str) -> Image.Image:
    """Return a frame, or say in one sentence why there is none."""
    try:
        frame = np.asarray(env.render())
    except Exception as problem:  # every graphics library has its own
        remedy = install(problem) if isinstance(problem, gymnasium.error.DependencyNotInstalled) else GRAPHICS
        given = f"no image ({_first_line(problem)})"
        raise checks.error(env_id, given, "working graphics (OpenGL)", remedy) from None
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        given = f"frames of shape {frame.shape} and type {frame.dtype}"
        raise checks.error(env_id, given, "uint8 images (height, width, 3)", "correct the environment's render()")
    return Image.fromarray(frame)


def _first_line(problem: Exception) -> str:
    """Return the first line of an exception, without its last stop."""
    return (str(problem).strip() or type(problem).__name__).splitlines()[0].strip().rstrip(".")


def _mp4(path: Path, fps: float, frames: Iterator[Image.Image]) -> None:
    """Write an MP4 that every player plays: H.264 with even sides."""
    # Not by imageio-ffmpeg, which forks in a way that may hang beside JAX's threads.
    first = next(frames)
    width, height = first.size
    smaller = min(1.0, SIDE / max(first.size))
    sides = ":".join(str(max(2, round(length * smaller) // 2 * 2)) for length in first.size)
    pixels = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    film = ["-vf", f"scale={sides}", "-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    command = [str(_ffmpeg()), "-y", "-loglevel", "error", *pixels, *film, str(path)]
    process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        with contextlib.suppress(BrokenPipeError):  # it says itself why it ended
            process.stdin.write(first.tobytes())
            for image in frames:
                process.stdin.write(image.tobytes())
    finally:
        _, said = process.communicate()
    if process.returncode:
        given = f"a failure of ffmpeg ({said.decode(errors='replace').strip()})"
        raise checks.error("film", given, "an MP4", "name the file .gif")


def _gif(path: Path, fps: float, frames: Iterator[Image.Image]) -> None:
    """Write a GIF; frames that come too fast for GIFs are left out, and they count hundredths of a second."""
    stride = int(np.ceil(fps / GIF_FPS))

    def small(image: Image.Image) -> Image.Image:
        image.thumbnail((GIF_SIDE, GIF_SIDE), Image.Resampling.LANCZOS)
        return image.quantize(128, dither=Image.Dither.NONE)

    first, *others = [small(image) for i, image in enumerate(frames) if i % stride == 0]
    ends = 10 * np.rint(100 * stride / fps * np.arange(len(others) + 2))  # milliseconds, in real time on the whole
    first.save(path, save_all=True, append_images=others, duration=np.diff(ends).tolist(), loop=0)
