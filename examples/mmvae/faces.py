"""A procedural set of drawn faces with two labelled and many unlabelled factors, in NumPy only.

Eyeglasses (one face in three) and Smiling (one in two) are the labels. What they do not say is
known too: the frame's thickness, the lens's darkness and the strength of the smile vary
continuously, independently of one another and of everything else in the picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 64
ATTRIBUTES = ("Eyeglasses", "Smiling")

Field = NDArray[np.float32]

# Bernoulli factors and their probabilities.
FLAGS = {"glasses": 1 / 3, "smiling": 1 / 2, "bald": 0.12}
# Uniform factors. Those of the glasses and of the mouth act only where the flag fits.
_UNIT = """frame_thickness lens_darkness frame_size frame_roundness frame_colour smile frown
mouth_opening mouth_width skin face_width face_height jaw hair_colour hair_length hair_volume
fringe eye_colour eye_openness eye_spacing brow_height brow_thickness nose_length nose_width
clothes background_hue background_light background_saturation gradient gradient_angle"""
_SIGNED = "parting shift_x shift_y roll yaw gaze brow_tilt light"
RANGES = dict.fromkeys(_UNIT.split(), (0, 1)) | dict.fromkeys(_SIGNED.split(), (-1, 1))
FACTORS = (*FLAGS, *RANGES)

_SKIN = ((0.99, 0.87, 0.78), (0.95, 0.77, 0.63), (0.82, 0.61, 0.45), (0.63, 0.43, 0.30),
         (0.46, 0.30, 0.21))  # fmt: skip
_HAIR = ((0.09, 0.07, 0.07), (0.26, 0.16, 0.10), (0.47, 0.27, 0.14), (0.66, 0.32, 0.15),
         (0.87, 0.70, 0.39), (0.72, 0.71, 0.70))  # fmt: skip
_EYES = ((0.22, 0.13, 0.08), (0.42, 0.27, 0.13), (0.28, 0.45, 0.26), (0.25, 0.47, 0.70))
# All frames are dark, so that the thinnest wire still shows on every skin.
_FRAME = ((0.05, 0.05, 0.06), (0.20, 0.10, 0.06), (0.32, 0.05, 0.07), (0.06, 0.09, 0.30),
          (0.05, 0.05, 0.06))  # fmt: skip


@dataclass(frozen=True)
class FaceSet:
    """Drawn faces with their labels and the factors behind them."""

    images: NDArray[np.uint8]  # (N, 64, 64, 3)
    attributes: NDArray[np.int8]  # (N, 2) in {0, 1}
    attribute_names: tuple[str, ...]
    factors: dict[str, Field]  # each (N,)


def sample_factors(n: int, seed: int) -> dict[str, Field]:
    """Draw `n` independent values of every factor, each of shape (n,).

    Raises:
        ValueError: if `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"expected n >= 1 faces, got n = {n}")
    rng = np.random.default_rng(seed)
    factors = {name: (rng.random(n) < p).astype(np.float32) for name, p in FLAGS.items()}
    for name, (low, high) in RANGES.items():
        factors[name] = rng.uniform(low, high, n).astype(np.float32)
    return factors


def faces(n: int, seed: int, *, chunk: int = 64, progress: bool = False) -> FaceSet:
    """Draw `n` faces; the result depends on `n` and `seed`, never on `chunk` (faces at once).

    Raises:
        ValueError: if `n` or `chunk` is below 1.
    """
    if chunk < 1:
        raise ValueError(f"expected chunk >= 1, got chunk = {chunk}")
    factors = sample_factors(n, seed)
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    for start in bar(range(0, n, chunk), "drawing faces", progress):
        rows = slice(start, start + chunk)
        images[rows] = draw({name: value[rows] for name, value in factors.items()})
    attributes = np.stack([factors["glasses"], factors["smiling"]], 1).astype(np.int8)
    return FaceSet(images, attributes, ATTRIBUTES, factors)


def bar(steps, label: str, progress: bool):
    """Wrap an iterable in a tqdm bar if wanted and installed, else return it unchanged."""
    if progress and importlib.util.find_spec("tqdm"):
        from tqdm import tqdm

        return tqdm(steps, desc=label)
    return steps


def draw(factors: Mapping[str, np.ndarray]) -> NDArray[np.uint8]:
    """Draw the faces that the factors describe, as (N, 64, 64, 3) RGB.

    Args:
        factors: every name in `FACTORS`, each an array of shape (N,). The picture is a smooth
            function of the values, so they may leave the ranges they are sampled from.

    Raises:
        ValueError: if a factor is missing or the shapes differ.
    """
    f = _checked(factors)
    image = np.empty((len(f["glasses"]), 3, SIZE, SIZE), np.float32)
    x = ((np.arange(SIZE, dtype=np.float32) + 0.5) * (2 / SIZE) - 1)[None, None, :]
    y = x.transpose(0, 2, 1)  # downwards
    _background(f, image, x, y)

    # u and v are the head's own axes: the pose is undone here once, for every feature.
    angle = 0.20 * f["roll"]
    x0, y0 = x - 0.10 * f["shift_x"], y - 0.04 - 0.07 * f["shift_y"]
    u = np.cos(angle) * x0 + np.sin(angle) * y0  # (N, 64, 64)
    v = np.cos(angle) * y0 - np.sin(angle) * x0
    f["a"], f["b"] = 0.44 + 0.10 * f["face_width"], 0.60 + 0.10 * f["face_height"]
    f["skin_rgb"] = _palette(_SKIN, f["skin"])
    f["hair_rgb"] = _palette(_HAIR, f["hair_colour"])

    _head(f, image, u, v)
    # The features never leave these rows under any sampled pose, so the rest is not computed.
    _mouth(f, *_rows(24, 62, image, u, v))
    _nose(f, *_rows(20, 52, image, u, v))
    # Yaw moves the features sideways and narrows the half they move towards; in the folded
    # coordinate e both halves look alike, so one distance draws both eyes and both lenses.
    upper, u, v = _rows(6, 50, image, u, v)
    du = u - 0.13 * f["yaw"]
    side = np.sign(du)
    e = np.abs(du) / (1 - 0.28 * np.maximum(f["yaw"] * side, 0))
    _eyes(f, upper, e, v, side)
    _glasses(f, upper, e, v)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def _checked(factors: Mapping[str, np.ndarray]) -> dict[str, Field]:
    if missing := [name for name in FACTORS if name not in factors]:
        raise ValueError(f"expected the factors {', '.join(FACTORS)}; missing {missing}")
    f = {name: np.asarray(factors[name], np.float32) for name in FACTORS}
    shape = f["glasses"].shape
    for name, value in f.items():
        if value.ndim != 1 or value.shape != shape:
            raise ValueError(f"expected {name!r} of shape (N,) = {shape}, got {value.shape}")
    return {name: value[:, None, None] for name, value in f.items()}


def _rows(first: int, last: int, *fields: Field) -> tuple[Field, ...]:
    return tuple(field[..., first:last, :] for field in fields)


def _palette(stops, t: Field) -> list[Field]:
    at = np.linspace(0, 1, len(stops))
    return [np.interp(t, at, channel).astype(np.float32) for channel in zip(*stops, strict=True)]


def _hue(h: Field, light: Field, saturation: Field) -> list[Field]:
    waves = (np.cos(2 * np.pi * (h - k / 3)) for k in range(3))
    return [light + saturation * wave for wave in waves]


def _cover(distance: Field) -> Field:
    """Share of a pixel inside the shape, from the signed distance to its outline."""
    return np.clip(0.5 - distance * (SIZE / 2), 0, 1)


def _ellipse(u: Field, v: Field, a: Field | float, b: Field | float) -> Field:
    # First-order distance q (q - 1) / |grad q^2 / 2|: exact on the outline, which is all we draw.
    p, r = u / a, v / b
    q = np.sqrt(p * p + r * r + 1e-9)
    return q * (q - 1) / np.sqrt((p / a) ** 2 + (r / b) ** 2 + 1e-9)


def _box(u: Field, v: Field, a, b, radius) -> Field:
    p, r = np.abs(u) - (a - radius), np.abs(v) - (b - radius)
    return np.hypot(np.maximum(p, 0), np.maximum(r, 0)) + np.minimum(np.maximum(p, r), 0) - radius


def _paint(canvas: Field, mask: Field, colour) -> None:
    for k in range(3):
        plane = canvas[:, k]
        plane += mask * (colour[k] - plane)


def _shade(colour, factor) -> list[Field]:
    return [channel * factor for channel in colour]


def _background(f, canvas, x, y) -> None:
    angle = 2 * np.pi * f["gradient_angle"]
    light = 0.35 + 0.5 * f["background_light"]
    slope = 0.35 * (f["gradient"] - 0.5) * (np.cos(angle) * x + np.sin(angle) * y)
    rgb = _hue(f["background_hue"], light, 0.15 * f["background_saturation"])
    for k in range(3):
        canvas[:, k] = rgb[k] + slope


def _head(f, canvas, u, v) -> None:
    a, b, skin, hair = f["a"], f["b"], f["skin_rgb"], f["hair_rgb"]
    hairy = 1 - f["bald"]
    volume = 0.05 + 0.09 * f["hair_volume"]
    end = -0.05 + 0.95 * f["hair_length"]  # lower end of the hair, up to the shoulders
    crown = _ellipse(u, v + 0.08, a + volume, b + volume)
    top = -0.15
    fall = _box(u, v - (top + end) / 2, a + volume, np.maximum((end - top) / 2, 0.08), 0.08)
    # Hair is behind the head: below its end only the part above the ears is left of the crown.
    back = np.minimum(np.maximum(crown, v - np.maximum(end, -0.05)), fall)
    _paint(canvas, hairy * _cover(back), _shade(hair, 0.78))

    _paint(canvas, _cover(_box(u, v - 0.75, 0.6 * a, 0.40, 0.1)), _shade(skin, 0.80))
    clothes = _hue(f["clothes"], 0.42, 0.22)
    _paint(canvas, _cover(_ellipse(u, v - 1.22, 0.95, 0.42)), clothes)
    ears = _ellipse(np.abs(u) - a, v - 0.02, 0.08, 0.13)
    _paint(canvas, _cover(ears), _shade(skin, 0.86))

    narrow = 1 - (0.10 + 0.20 * f["jaw"]) * np.maximum(v / b, 0) ** 2
    face = _ellipse(u, v, a * narrow, b)
    inside = _cover(face)
    # Light from one side, and a soft fall-off to the rim so that the head looks round.
    lit = 1 + 0.16 * f["light"] * u / a - 0.14 * np.clip(1 + face * 4, 0, 1) ** 2
    _paint(canvas, inside, _shade(skin, lit))
    blush = np.exp(-(((np.abs(u) - 0.55 * a) / 0.14) ** 2) - ((v - 0.20) / 0.10) ** 2)
    _paint(canvas, 0.16 * blush * inside, (0.90, 0.32, 0.30))

    across = u - 0.5 * a * f["parting"]
    hairline = -0.50 + 0.18 * f["fringe"] + (0.75 - 0.3 * f["fringe"]) * across * across
    cap = np.maximum(_ellipse(u, v + 0.02, a + 0.04, b + 0.06), v - np.minimum(hairline, 0.05))
    gloss = 1 + 0.22 * np.exp(-(((v + 0.52 + 0.25 * u * f["light"]) / 0.09) ** 2))
    _paint(canvas, hairy * _cover(cap), _shade(hair, gloss))


def _nose(f, canvas, u, v) -> None:
    u = u - 0.16 * f["yaw"]  # the tip stands out, so it moves further than the eyes
    half, tip = 0.055 + 0.045 * f["nose_width"], 0.13 + 0.08 * f["nose_length"]
    ridge = np.exp(-((u / 0.05) ** 2) - ((v - tip + 0.10) / 0.13) ** 2)
    _paint(canvas, 0.22 * ridge, _shade(f["skin_rgb"], 1.12))
    curve = v - tip - 0.045 * (1 - (u / half) ** 2)
    arc = np.maximum(np.abs(curve) - 0.018, np.abs(u) - half)
    _paint(canvas, 0.75 * _cover(arc), _shade(f["skin_rgb"], 0.62))


def _mouth(f, canvas, u, v) -> None:
    happy = f["smiling"] * (0.38 + 0.62 * f["smile"])
    # Corners: up to 0.1 above the middle in a smile, level or just below it without.
    rise = 0.105 * happy - (1 - f["smiling"]) * 0.012 * f["frown"]
    half = 0.14 + 0.07 * f["mouth_width"] + 0.04 * happy
    u = u - 0.13 * f["yaw"]
    s2 = np.minimum((u / half) ** 2, 1.5)
    middle = v - 0.37 - rise * (0.45 - s2)  # 0 on the line between the lips
    body = np.maximum(1 - s2, 0)
    gap = happy * (0.02 + 0.09 * f["mouth_opening"]) * body
    thick = 0.65 * gap + 0.018 + 0.024 * body
    lips = np.maximum(np.abs(middle - 0.35 * gap) - thick, np.abs(u) - half)
    skin = f["skin_rgb"]
    red = [0.45 * skin[0] + 0.30, 0.45 * skin[1] + 0.02, 0.45 * skin[2] + 0.05]
    _paint(canvas, _cover(lips), red)
    line = np.maximum(np.abs(middle) - 0.012, np.abs(u) - half)
    _paint(canvas, _cover(line), _shade(red, 0.45))
    # Teeth fade in with the gap; a subpixel gap would otherwise be a bright hairline.
    shown = np.clip(gap * 30, 0, 1)
    _paint(canvas, shown * _cover(np.abs(middle - 0.30 * gap) - 0.45 * gap), (0.96, 0.95, 0.92))


def _eyes(f, canvas, e, v, side) -> None:
    spacing = 0.185 + 0.04 * f["eye_spacing"]
    f["spacing"] = spacing
    p, r = e - spacing, v + 0.05
    tall = 0.038 + 0.034 * f["eye_openness"]
    white = _ellipse(p, r, 0.095, tall)
    inside = _cover(white)
    _paint(canvas, inside, (0.95, 0.94, 0.93))
    q = p - 0.025 * f["gaze"] * side
    disc = q * q + r * r
    iris = np.sqrt(disc + 1e-9)
    _paint(canvas, inside * _cover(iris - 0.050), _palette(_EYES, f["eye_colour"]))
    _paint(canvas, inside * _cover(iris - 0.024), (0.03, 0.03, 0.04))
    lid = np.maximum(np.abs(white) - 0.012, r + 0.2 * tall)
    _paint(canvas, 0.85 * _cover(lid), _shade(f["skin_rgb"], 0.30))

    arch = v + 0.175 + 0.05 * f["brow_height"] - 0.16 * f["brow_tilt"] * p + 1.6 * p * p
    brow = np.maximum(np.abs(arch) - 0.012 - 0.018 * f["brow_thickness"], np.abs(p) - 0.115)
    _paint(canvas, 0.9 * _cover(brow), _shade(f["hair_rgb"], 0.70))


def _glasses(f, canvas, e, v) -> None:
    on = f["glasses"]
    width = 0.165 + 0.025 * f["frame_size"]
    height = width * (0.68 + 0.22 * f["frame_roundness"])
    radius = height * (0.25 + 0.75 * f["frame_roundness"])
    thick = 0.014 + 0.046 * f["frame_thickness"]  # half of the frame: 0.9 to 3.8 pixels across
    p, r = e - f["spacing"] - 0.02, v + 0.045
    outline = _box(p, r, width, height, radius)
    dark = 0.04 + 0.92 * f["lens_darkness"]
    lens = on * _cover(outline)
    _paint(canvas, lens * dark, (0.07, 0.08, 0.09))
    glare = np.exp(-(((p + r + 0.06) / 0.035) ** 2))
    _paint(canvas, 0.28 * lens * glare, (1.0, 1.0, 1.0))
    bridge = np.maximum(np.abs(r + 0.03 - 1.2 * e * e) - thick, p + width)
    temple = np.maximum(np.abs(r + 0.03) - 0.8 * thick, np.maximum(width - p, e - f["a"] - 0.02))
    rim = np.abs(outline - 0.6 * thick) - thick  # grows outwards: a thick frame leaves a lens
    frame = np.minimum(rim, np.minimum(bridge, temple))
    _paint(canvas, on * _cover(frame), _palette(_FRAME, f["frame_colour"]))
