"""Short videos of the embedded set's individuals, with the truth about who is where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf import atomic
from cloverleaf.data.mot import mot_line
from cloverleaf.data.procedural import marker
from cloverleaf.data.procedural.annotate import tight_box
from cloverleaf.data.procedural.clutter import add_clutter
from cloverleaf.data.procedural.individuals import Individual, make_individuals
from cloverleaf.data.procedural.make import individuals_per_class
from cloverleaf.data.procedural.paths import Walk, draw_walks
from cloverleaf.data.procedural.shapes import SHAPES
from cloverleaf.data.procedural.sprite import Pose, Sprite, draw_sprite
from cloverleaf.data.procedural.stage import MIN_PIXELS, Stage
from cloverleaf.data.procedural.texture import BACKGROUNDS, background, hsv, value_noise
from cloverleaf.data.video_io import write_video
from cloverleaf.errors import ConfigError

MARKER = ".cloverleaf-clips.json"
FPS = 25.0
_VERSION = 1  # raise it when the same parameters would draw different clips
_OWN = ("clip-*/clip-*.mp4", "clip-*/img1/*.jpg", "clip-*/gt/*.txt", "clip-*/seqinfo.ini")
_CAST, _CLASSES = 8, 3
_COUNTED = 0.3  # an object of which less can be seen is in the truth, but not counted

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What decides every clip."""

    version: int
    seed: int
    clips: int
    frames: int
    size: int
    individuals_per_class: int


@dataclass(frozen=True, slots=True)
class _Set:
    """What stays the same through a clip: the place, the camera and the cast, from back to front."""

    ground: Image
    pillar: tuple[Image, Image]
    slope: Image
    lamp: npt.NDArray[np.float64]
    light: tuple[float, float]
    shadow: float
    people: list[Individual]
    walks: list[Walk]


def make_clips(
    output: Path, *, seed: int = 0, clips: int = 3, frames: int = 60, size: int = 320, images: int = 600
) -> Path:
    """Draw videos in which individuals of the embedded set of the same seed cross, hide, leave and come back.

    Each ``clip-NN`` is laid out as in MOTChallenge: ``clip-NN.mp4``, the same frames before compression as
    ``img1/NNNNNN.jpg``, ``seqinfo.ini``, and ``gt/gt.txt`` with the box of an object's visible pixels, its identity
    as in the embedded set (see `make_shapes`), its class (1 is the first of ``gt/labels.txt``) and the share of it
    that is visible; an object of which less than 30 % is visible is marked as not counted. Exposure and colour of the
    light change throughout, once abruptly. Every clip and every frame has its own random stream.

    Args:
        output: the folder; as for `make_shapes` kept or replaced if it is ours.
        seed: of the embedded set whose individuals move, and of the clips.
        clips: number of videos.
        frames: of each, at 25 a second.
        size: side of the square frames in pixels, at least 64.
        images: number of images of the embedded set, on which its number of individuals depends.

    Returns:
        ``output``.

    Raises:
        ConfigError: a value is out of range.
        DataError: ``output`` is a file, or holds something that this function did not make.
        ImageError: the video cannot be written.
    """
    if seed < 0 or clips < 1 or frames < 2 or size < 64 or images < 1:
        raise ConfigError(
            f"cannot draw {clips} clips of {frames} frames of {size} px with seed {seed}",
            "the seed must be at least 0, the number of clips 1, the frames 2, the size 64",
            "change the values",
        )
    parameters = _Parameters(_VERSION, seed, clips, frames, size, individuals_per_class(images))
    output = Path(output)
    if marker.holds(output, MARKER, asdict(parameters), _OWN):
        return output
    output.mkdir(parents=True, exist_ok=True)
    marker.mark(output, MARKER, asdict(parameters), complete=False)
    people = make_individuals(seed, parameters.individuals_per_class)
    for number in range(clips):
        _write_clip(output / f"clip-{number + 1:02d}", parameters, people, number)
    marker.mark(output, MARKER, asdict(parameters), complete=True)
    return output


def _write_clip(folder: Path, parameters: _Parameters, people: list[Individual], number: int) -> None:
    """Draw and write one clip, frame by frame."""
    (folder / "img1").mkdir(parents=True, exist_ok=True)
    side = parameters.size
    rows: list[str] = []
    with write_video(folder / f"{folder.name}.mp4", (side, side), FPS) as write:
        for index, (image, truth) in enumerate(_frames(parameters, people, number)):
            write(image)
            encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            (folder / "img1" / f"{index + 1:06d}.jpg").write_bytes(encoded.tobytes())
            rows += [f"{index + 1},{row}" for row in truth]
    atomic.write_text(folder / "gt" / "gt.txt", "".join(f"{row}\n" for row in rows))
    atomic.write_text(folder / "gt" / "labels.txt", "".join(f"{shape.name}\n" for shape in SHAPES))
    atomic.write_text(
        folder / "seqinfo.ini",
        f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate={FPS:g}\nseqLength={parameters.frames}\n"
        f"imWidth={side}\nimHeight={side}\nimExt=.jpg\n",
    )


def _frames(
    parameters: _Parameters, people: list[Individual], number: int
) -> Iterator[tuple[npt.NDArray[np.uint8], list[str]]]:
    """Every frame, ``(H, W, 3)`` uint8 RGB, with its rows of the truth."""
    key = [parameters.seed, 3, number]
    scene = _build(np.random.default_rng(np.random.SeedSequence(key)), people, parameters.frames, parameters.size)
    for frame in range(parameters.frames):
        stage = Stage(scene.ground.copy())
        for person, walk in zip(scene.people, scene.walks, strict=True):
            sprite = draw_sprite(person, _pose(scene, walk, frame), np.zeros(2))
            h, w = sprite.alpha.shape
            x, y = np.rint(walk.centres[frame] - [w / 2, h / 2]).astype(int).tolist()
            stage.put(person, sprite, (x, y), scene.shadow)
        stage.cover(*scene.pillar)
        rng = np.random.default_rng(np.random.SeedSequence([*key, frame]))
        image = stage.image * (scene.slope[..., None] * scene.lamp[frame].astype(np.float32))
        image += np.float32(0.01) * rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
        yield np.clip(np.rint(image * 255), 0, 255).astype(np.uint8), _truth(stage)


def _truth(stage: Stage) -> list[str]:
    """Rows of the truth without their frame: whoever shows enough pixels."""
    rows = []
    for k, (person, area) in enumerate(stage.cast):
        if stage.visible[k] >= MIN_PIXELS:
            share = float(stage.visible[k] / area)
            box = tight_box(stage.owner == k)
            line = mot_line(0, person.identity, box, float(share >= _COUNTED), person.label + 1, share)
            rows.append(line.partition(",")[2])
    return rows


def _pose(scene: _Set, walk: Walk, frame: int) -> Pose:
    return Pose(float(walk.sizes[frame]), float(walk.turns[frame]), walk.squeeze, scene.light)


def _build(rng: np.random.Generator, people: list[Individual], frames: int, side: int) -> _Set:
    """Draw what stays the same, and how the light and the cast move."""
    ground = background(rng, BACKGROUNDS[rng.integers(len(BACKGROUNDS))], (side, side))
    add_clutter(rng, ground, int(rng.integers(2, 6)))
    left = float(rng.uniform(0.3, 0.55) * side)
    ends = left, left + float(rng.uniform(0.14, 0.2) * side)
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.2)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    light = rng.normal(0, 0.2, 2)
    cast = _cast(rng, people, ground)
    return _Set(
        ground=ground,
        pillar=_pillar(rng, side, ends),
        slope=1 + np.float32(slope * np.cos(angle)) * x + np.float32(slope * np.sin(angle)) * y,
        lamp=_lamp(rng, frames),
        light=(float(light[0]), float(light[1])),
        shadow=float(rng.uniform(0.2, 0.5)) if rng.random() < 0.5 else 0.0,
        people=cast,
        walks=draw_walks(rng, len(cast), frames, side, ends),
    )


def _cast(rng: np.random.Generator, people: list[Individual], ground: Image) -> list[Individual]:
    """Individuals of a few classes, so that several look much the same but for their colours, seen on this ground."""
    labels = rng.choice(len(SHAPES), _CLASSES, replace=False)
    mean = ground.mean((0, 1))
    possible = [person for person in people if person.label in labels]
    seen = [person for person in possible if np.linalg.norm(_mean_colour(person) - mean) > 0.25]
    chosen = seen if len(seen) >= _CAST else possible
    order = rng.permutation(len(chosen))[:_CAST]
    return [chosen[k] for k in order.tolist()]


def _mean_colour(person: Individual) -> npt.NDArray[np.float32]:
    sprite: Sprite = draw_sprite(person, Pose(24.0, 0.0, 1.0, (0.0, 0.0)), np.zeros(2))
    return np.asarray(sprite.colour[sprite.solid].mean(0))


def _pillar(rng: np.random.Generator, side: int, ends: tuple[float, float]) -> tuple[Image, Image]:
    """Something upright that stands before everybody: coverage (H, W) and colour (H, W, 3)."""
    alpha = np.zeros((side, side), np.float32)
    alpha[:, round(ends[0]) : round(ends[1])] = 1
    first = hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.3, 0.7))
    grain = value_noise(rng, (side, side), 60)[..., None] - np.float32(0.5)
    return alpha, (first + np.float32(0.25) * grain).astype(np.float32)


def _lamp(rng: np.random.Generator, frames: int) -> npt.NDArray[np.float64]:
    """``(T, 3)`` factors of the light: exposure and colour drift, and once it steps."""
    time = np.arange(frames) / FPS
    exposure = rng.uniform(0.8, 1.0) * (1 + 0.15 * np.sin(time * rng.uniform(1, 3) + rng.uniform(0, 6.28)))
    exposure *= np.where(np.arange(frames) >= rng.integers(frames // 3, frames), rng.choice([0.72, 1.1]), 1)
    warmth = 0.12 * np.sin(time * rng.uniform(0.5, 2) + rng.uniform(0, 6.28))
    return exposure[:, None] * np.stack([1 + warmth, np.ones(frames), 1 - warmth], axis=1)
