"""One scene: a background, clutter, objects in front of each other, light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.procedural.clutter import add_clutter, wires
from cloverleaf.data.procedural.individuals import Individual
from cloverleaf.data.procedural.lighting import expose
from cloverleaf.data.procedural.shapes import SHAPES
from cloverleaf.data.procedural.sprite import Pose, Sprite, draw_sprite
from cloverleaf.data.procedural.stage import MIN_PIXELS, Corner, Stage, overlap
from cloverleaf.data.procedural.texture import BACKGROUNDS, background

COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta", "grey")
TAGS: tuple[str, ...] = (
    *(f"background-{kind}" for kind in BACKGROUNDS),
    *("empty", "sparse", "crowded", "occlusion", "cut-off"),
    *("dim", "bright", "warm", "cool", "vignette", "shadow", "blur", "grain"),
    *(f"colour-{name}" for name in COLOURS),
)
_TRIES = 14


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object as it is seen: its individual and its visible pixels in the whole picture, (H, W) bool."""

    individual: Individual
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture, (H, W, 3) uint8 RGB, its objects from back to front, and its tags (names from ``TAGS``)."""

    image: npt.NDArray[np.uint8]
    objects: list[SceneObject]
    tags: list[str]


def make_scene(rng: np.random.Generator, people: Sequence[Individual], size_hw: tuple[int, int]) -> Scene:
    """Draw one scene with individuals chosen from ``people`` (every class has some)."""
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    stage = Stage(background(rng, kind, size_hw))
    add_clutter(rng, stage.image, int(rng.integers(0, 9)))
    by_class: list[list[Individual]] = [[] for _ in SHAPES]
    for person in people:
        by_class[person.label].append(person)
    shadow = float(rng.uniform(0.25, 0.6)) if rng.random() < 0.4 else 0.0
    light = rng.normal(0, 0.25, 2)
    for size in _sizes(rng, size_hw):
        possible = [label for label, shape in enumerate(SHAPES) if shape.min_size <= size]
        choices = by_class[possible[rng.integers(len(possible))]]
        pose = Pose(
            float(size),
            float(rng.uniform(0, 2 * np.pi)),
            float(rng.uniform(0.78, 1)),
            (float(light[0]), float(light[1])),
        )
        _place(rng, stage, choices, pose, shadow)
    if rng.random() < 0.25:
        _cross_wires(rng, stage)
    image, tags = expose(rng, stage.image)
    objects = [SceneObject(person, stage.owner == k) for k, (person, _) in enumerate(stage.cast)]
    tags |= {f"background-{kind}", f"colour-{_dominant_colour(image)}"} | _content_tags(stage)
    return Scene(image, objects, [tag for tag in TAGS if tag in tags])


def _sizes(rng: np.random.Generator, size_hw: tuple[int, int]) -> list[float]:
    """Longest sides of the objects, pixels, mostly large before small; crowded scenes have the smaller objects."""
    kind = rng.choice(4, p=[0.02, 0.31, 0.42, 0.25])
    count = (0, rng.integers(1, 5), rng.integers(5, 12), rng.integers(12, 27))[kind]
    shares = ((1, 0, 0), (0.2, 0.4, 0.4), (0.3, 0.5, 0.2), (0.5, 0.45, 0.05))[kind]
    zoom = min(size_hw) / 320
    count = round(count * min(max(zoom, 0.25), 2.0)) if kind else 0
    bounds = np.array([(6.0, 32.0), (32.0, 95.0), (95.0, 200.0)])[rng.choice(3, count, p=shares)]
    sizes = np.exp(rng.uniform(np.log(bounds[:, 0]), np.log(bounds[:, 1])))
    sizes = np.maximum(sizes * min(zoom, 1.0), 6.0) if zoom < 1 else sizes * zoom ** rng.random(count)
    order = np.argsort(-sizes * np.exp(rng.normal(0, 0.3, count)), kind="stable")
    return [float(size) for size in sizes[order]]


def _place(rng: np.random.Generator, stage: Stage, choices: Sequence[Individual], pose: Pose, shadow: float) -> None:
    """Find a place where the object contrasts with what is behind it and hides nothing too much; else leave it out."""
    height, width = stage.owner.shape
    overlapping = rng.random() < 0.35
    offset = rng.random(2)
    individual = choices[int(rng.integers(len(choices)))]
    sprite = draw_sprite(individual, pose, offset)
    for attempt in range(_TRIES):
        if attempt % 4 == 3:
            individual = choices[int(rng.integers(len(choices)))]
            sprite = draw_sprite(individual, pose, offset)
        h, w = sprite.alpha.shape
        if overlapping and stage.cast:
            centre = _near_another(rng, stage, pose.size)
        else:
            margin = -0.3 if rng.random() < 0.15 else 0.5
            low = np.array([margin * w, margin * h])
            centre = low + rng.random(2) * np.maximum(np.array([width, height]) - 2 * low, 1)
        at = int(centre[0] - w / 2), int(centre[1] - h / 2)
        if stage.fits(sprite, at, 0.4 if overlapping else 0.85) and _contrast(stage, sprite, at) > 0.2:
            stage.put(individual, sprite, at, shadow)
            return


def _near_another(rng: np.random.Generator, stage: Stage, size: float) -> npt.NDArray[np.float64]:
    """A point (x, y) near an object that is already there."""
    ys, xs = np.nonzero(stage.owner == rng.integers(len(stage.cast)))
    k = rng.integers(len(xs))
    return np.array([xs[k], ys[k]]) + rng.normal(0, 0.4 * size, 2)


def _contrast(stage: Stage, sprite: Sprite, at: Corner) -> float:
    """Distance of the object's mean colour from the mean of what it covers, RGB in [0, 1]."""
    target, source = overlap(sprite, at, stage.owner.shape)
    solid = sprite.solid[source]
    difference = sprite.colour[source][solid].mean(0) - stage.image[target][solid].mean(0)
    return float(np.linalg.norm(difference))


def _cross_wires(rng: np.random.Generator, stage: Stage) -> None:
    """Draw thin curves over everything, unless they would leave too little of an object."""
    alpha, colour = wires(rng, (stage.owner.shape[0], stage.owner.shape[1]), int(rng.integers(1, 4)))
    hit = alpha >= 0.5
    owned = stage.owner[hit]
    left = stage.visible - np.bincount(owned[owned >= 0], minlength=len(stage.cast))
    if np.any((left < stage.visible) & ((left < MIN_PIXELS) | (left < 0.6 * stage.visible))):
        return
    stage.cover(alpha, colour)


def _content_tags(stage: Stage) -> set[str]:
    """Tags that follow from the objects."""
    count = len(stage.cast)
    tags = {"empty"} if not count else {"sparse"} if count <= 4 else {"crowded"} if count >= 12 else set()
    edge = np.concatenate([stage.owner[0], stage.owner[-1], stage.owner[:, 0], stage.owner[:, -1]])
    cut = set(edge[edge >= 0].tolist())
    if cut:
        tags.add("cut-off")
    hidden = [k for k, (_, area) in enumerate(stage.cast) if k not in cut and stage.visible[k] < 0.9 * area]
    if hidden:
        tags.add("occlusion")
    return tags


def _dominant_colour(image: npt.NDArray[np.uint8]) -> str:
    """The hue that most of the colourful pixels share, or grey when under a quarter of the pixels are colourful."""
    pixels = cv2.cvtColor(image[::4, ::4], cv2.COLOR_RGB2HSV).reshape(-1, 3)
    vivid = pixels[(pixels[:, 1] > 60) & (pixels[:, 2] > 40), 0].astype(np.int64)
    if len(vivid) < 0.25 * len(pixels):
        return "grey"
    sector = ((vivid * 2 + 30) // 60) % 6
    return COLOURS[int(np.bincount(sector, minlength=6).argmax())]
