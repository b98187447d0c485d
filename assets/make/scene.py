"""A synthetic street: persons, cars and trucks that pass a wall, drawn with exact ground truth.

A scene is a pure function of its seed and of the calls made on it: the order in which random
numbers are drawn is part of the format, and `demo1.mp4` and `street.onnx` depend on it.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ("person", "car", "truck")
PERSON, CAR, TRUCK = range(3)

# How much of its bounding box each class covers when nothing hides it.
COVERAGE = {PERSON: 0.42, CAR: 0.72, TRUCK: 0.88}

# OpenCV draws with this many fractional bits, so that slow objects do not move in jerks.
SHIFT = 3
SUBPIXELS = 1 << SHIFT


@dataclass(frozen=True)
class Truth:
    """One object on one frame; the box is in pixels, clipped to the frame."""

    id: int
    cls: int
    x0: float
    y0: float
    x1: float
    y1: float
    visible: float  # share of the object that nothing hides, 0 to 1


@dataclass(frozen=True)
class Layout:
    """Rows at which the parts of the street begin, and what stands in front of everything."""

    pavement: int
    kerb: int
    road_end: int
    middle: int
    poles: list


def colour(values):
    """An OpenCV colour from three numbers."""
    return tuple(float(v) for v in values)


def shade(base, factor):
    """`base` made brighter or darker."""
    return tuple(float(min(255, v * factor)) for v in base)


def paint_background(rng, width, height):
    """The still part of a scene: sky, wall, pavement, road with lane marks, verge."""
    sky = int(height * rng.uniform(0.10, 0.25))
    pavement = int(height * rng.uniform(0.34, 0.42))
    road_end = int(height * rng.uniform(0.86, 0.95))
    kerb = pavement + int(height * 0.1)
    middle = (kerb + road_end) // 2

    image = np.zeros((height, width, 3), np.float32)
    paint_wall(rng, image, sky, pavement)
    pavement_grey = rng.uniform(120, 185)
    image[int(height * 0.34):kerb] = pavement_grey + rng.normal(0, 3, 3)
    paint_road(rng, image, kerb, middle, road_end)
    image[road_end:] = rng.uniform(60, 150, 3) * np.array([0.8, 1.1, 0.9])
    add_texture(rng, image)

    poles = []
    for _ in range(rng.integers(0, 3)):
        left = int(rng.integers(0, width))
        thickness = int(rng.integers(max(3, width // 130), max(4, width // 45)))
        poles.append((left, thickness, rng.uniform(20, 120, 3)))
    layout = Layout(pavement, kerb, road_end, middle, poles)
    return np.clip(image, 0, 255).astype(np.uint8), layout


def paint_wall(rng, image, sky, bottom):
    """Sky and wall with a vertical gradient, and windows, doors and posters on the wall."""
    height, width = image.shape[:2]
    gradient = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image[:bottom] = rng.uniform(70, 200, 3) * (0.8 + 0.3 * gradient[:bottom])
    image[:sky] = np.array([200, 170, 140]) * rng.uniform(0.6, 1.15) * (1 - 0.2 * gradient[:sky])
    for _ in range(rng.integers(4, 10)):
        x = int(rng.integers(0, width))
        w = int(rng.integers(width // 40, width // 12))
        y = int(rng.integers(sky, max(sky + 1, bottom - 8)))
        h = int(rng.integers(6, max(7, bottom - y)))
        cv2.rectangle(image, (x, y), (x + w, y + h), colour(rng.uniform(30, 230, 3)), -1)


def paint_road(rng, image, kerb, middle, end):
    """Asphalt, the edge of the kerb and a dashed line along the middle."""
    height, width = image.shape[:2]
    asphalt = rng.uniform(55, 120)
    image[kerb:end] = np.array([asphalt] * 3) + rng.normal(0, 4, 3)
    edge = colour([asphalt * 1.5] * 3)
    cv2.rectangle(image, (0, kerb), (width, kerb + max(1, height // 120)), edge, -1)
    offset = int(rng.integers(0, 60))
    half = max(1, height // 180)
    for x in range(-offset, width, int(width * 0.09)):
        dash_end = x + int(width * 0.045)
        cv2.rectangle(image, (x, middle - half), (dash_end, middle + half), (215, 225, 225), -1)


def add_texture(rng, image):
    """Coarse and fine grain over everything, so that no surface is one flat colour."""
    height, width = image.shape[:2]
    coarse = rng.normal(0, 1, (height // 6, width // 6)).astype(np.float32)
    grain = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = grain + 0.7 * rng.normal(0, 1, (height, width)).astype(np.float32)
    image += grain[..., None] * rng.uniform(2, 6)


class StreetObject:
    """One person, car or truck: its looks, its size, and where it walks or drives."""

    def __init__(self, rng, width, height, layout, x=None):
        """`x` is the centre to start at; without it, a random place on or near the frame."""
        self.cls = int(rng.choice(3, p=[0.42, 0.38, 0.2]))
        self.direction = 1 if rng.random() < 0.5 else -1
        is_coloured = rng.random() < 0.7
        paint = rng.uniform(20, 245, 3) if is_coloured else np.full(3, rng.uniform(20, 240))
        self.colour = colour(paint)
        self.second_colour = colour(rng.uniform(15, 240, 3))
        self.skin = colour(np.array([150, 180, 225]) * rng.uniform(0.35, 1.05))
        self.phase = rng.uniform(0, 6.28)
        if self.cls == PERSON:
            self._place_on_foot(rng, width, height, layout)
        else:
            self._place_on_road(rng, width, layout)
        self.x = rng.uniform(-0.1, 1.1) * width if x is None else x
        self.shape = rng.random()
        self.lit = rng.uniform(0.8, 1.15)
        self.id = 0

    def _place_on_foot(self, rng, width, height, layout):
        on_pavement = rng.random() < 0.75
        if on_pavement:
            self.y = rng.uniform(layout.pavement + 2, layout.kerb)
        else:
            self.y = rng.uniform(layout.kerb, layout.road_end)
        size = (0.13 if on_pavement else 0.17) + 0.10 * (self.y - layout.pavement) / height
        self.h = height * size * rng.uniform(0.85, 1.15)
        self.w = self.h * rng.uniform(0.34, 0.44)
        self.speed = width * rng.uniform(0.02, 0.07) * self.direction

    def _place_on_road(self, rng, width, layout):
        near_lane = rng.random() < 0.5
        self.direction = -1 if near_lane else 1
        kerb, middle, end = layout.kerb, layout.middle, layout.road_end
        if near_lane:
            self.y = rng.uniform(middle + 0.55 * (end - middle), end - 2)
        else:
            self.y = rng.uniform(kerb + 0.35 * (middle - kerb), middle - 2)
        size = (0.9 if near_lane else 0.68) * rng.uniform(0.85, 1.15)
        self.w = width * (0.19 if self.cls == CAR else 0.29) * size
        slimness = (0.30, 0.37) if self.cls == CAR else (0.36, 0.46)
        self.h = self.w * rng.uniform(*slimness)
        self.speed = width * rng.uniform(0.10, 0.32) * self.direction

    def box(self):
        """`x0, y0, x1, y1` in pixels, not clipped."""
        return self.x - self.w / 2, self.y - self.h, self.x + self.w / 2, self.y

    def has_left(self, width):
        """It went out on the side it moves to."""
        if self.direction > 0:
            return self.x - self.w / 2 > width
        return self.x + self.w / 2 < 0

    def draw(self, image, owners, number, time, shadow_offset):
        """Paints it, and writes `number` into `owners` where its outline is."""
        self._draw_shadow(image, shadow_offset)
        brush = Brush(image, owners, number, self)
        if self.cls == CAR:
            self._draw_car(brush)
        elif self.cls == TRUCK:
            self._draw_truck(brush)
        else:
            self._draw_person(brush, time)

    def _draw_shadow(self, image, offset):
        ground = self.box()[3]
        strip = image[max(0, int(ground - self.h * 0.12)):int(ground + self.h * 0.16) + 1]
        if not strip.size:
            return
        mask = np.zeros(strip.shape[:2], np.uint8)
        centre = (int(self.x + offset * self.w), int(min(strip.shape[0] * 0.5, strip.shape[0] - 1)))
        axes = (max(1, int(self.w * 0.56)), max(1, int(self.h * 0.11)))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.8, self.h * 0.04))
        strip[:] = (strip * (1 - 0.5 * (mask[..., None] / 255.0))).astype(np.uint8)

    def _glass(self):
        return shade((170, 150, 120), 0.35 + 0.5 * self.shape)

    def _draw_car(self, brush):
        notch = 0.06 if self.shape < 0.5 else 0.0
        brush.polygon([(0, 0.2), (0, 0.58), (0.06 + notch, 0.62), (0.2 + notch, 1), (0.66, 1), (0.8, 0.62),
                       (0.97, 0.54), (1, 0.2)], shade(self.colour, self.lit))
        brush.detail([(0.12 + notch, 0.62), (0.22 + notch, 0.94), (0.42, 0.94), (0.42, 0.62)], self._glass())
        brush.detail([(0.45, 0.62), (0.45, 0.94), (0.64, 0.94), (0.76, 0.62)], self._glass())
        brush.detail([(0, 0.2), (0, 0.3), (1, 0.3), (1, 0.2)], shade(self.colour, 0.6))
        brush.detail([(0.96, 0.42), (0.96, 0.5), (1, 0.48), (1, 0.42)], (190, 240, 250))
        brush.detail([(0, 0.42), (0, 0.52), (0.03, 0.52), (0.03, 0.42)], (40, 40, 220))
        radius = self.h * 0.19
        for u in (0.2, 0.79):
            brush.wheel(u, 0.19, radius, (28, 26, 26), radius * 0.5, (150, 150, 150))

    def _draw_truck(self, brush):
        cab = shade(self.second_colour, self.lit)
        brush.polygon([(0, 0.16), (0, 1), (0.72, 1), (0.72, 0.16)], shade(self.colour, self.lit))
        brush.polygon([(0.74, 0.16), (0.74, 0.8), (0.9, 0.8), (1, 0.46), (1, 0.16)], cab)
        brush.detail([(0.80, 0.5), (0.80, 0.75), (0.89, 0.75), (0.96, 0.5)], self._glass())
        brush.detail([(0, 0.16), (0, 0.22), (1, 0.22), (1, 0.16)], (40, 40, 40))
        if self.shape > 0.5:
            brush.detail([(0.08, 0.5), (0.08, 0.75), (0.6, 0.75), (0.6, 0.5)], shade(self.second_colour, 0.9))
        radius = self.h * 0.13
        for u in (0.13, 0.27, 0.85):
            brush.wheel(u, 0.13, radius, (25, 25, 25), radius * 0.45, (140, 140, 140))

    def _draw_person(self, brush, time):
        swing = math.sin(self.phase + time * 7) * 0.28
        brush.polygon([(0.35, 0.48), (0.5 + swing, 0.0), (0.68 + swing, 0.0), (0.62, 0.48)],
                      shade(self.second_colour, 0.8))
        brush.polygon([(0.38, 0.48), (0.5 - swing, 0.0), (0.32 - swing, 0.0), (0.60, 0.48)],
                      shade(self.second_colour, 0.65))
        brush.polygon([(0.22, 0.82), (0.3, 0.42), (0.7, 0.42), (0.78, 0.82)], shade(self.colour, self.lit))
        brush.polygon([(0.7, 0.8), (0.82 + swing * 0.6, 0.45), (0.72 + swing * 0.6, 0.44), (0.6, 0.78)],
                      shade(self.colour, 0.8))
        brush.disc(0.5, 0.91, self.h * 0.085, self.skin)


class Brush:
    """Draws in an object's own coordinates: u from its back to its front, v from its foot to its top."""

    def __init__(self, image, owners, number, thing):
        self.image, self.owners, self.number = image, owners, number
        self.x0, _, self.x1, self.y1 = thing.box()
        self.w, self.h, self.direction = thing.w, thing.h, thing.direction

    def _point(self, u, v):
        x = self.x0 + u * self.w if self.direction > 0 else self.x1 - u * self.w
        y = self.y1 - v * self.h
        return int(round(x * SUBPIXELS)), int(round(y * SUBPIXELS))

    def polygon(self, points, fill):
        """A part of the outline."""
        corners = np.array([self._point(u, v) for u, v in points], np.int32)
        cv2.fillPoly(self.image, [corners], fill, lineType=cv2.LINE_AA, shift=SHIFT)
        cv2.fillPoly(self.owners, [corners], self.number, shift=SHIFT)

    def detail(self, points, fill):
        """Something within the outline."""
        corners = np.array([self._point(u, v) for u, v in points], np.int32)
        cv2.fillPoly(self.image, [corners], fill, lineType=cv2.LINE_AA, shift=SHIFT)

    def disc(self, u, v, radius, fill, is_outline=True):
        """A filled circle; `radius` in pixels."""
        centre, size = self._point(u, v), max(1, int(radius * SUBPIXELS))
        cv2.circle(self.image, centre, size, fill, -1, lineType=cv2.LINE_AA, shift=SHIFT)
        if is_outline:
            cv2.circle(self.owners, centre, size, self.number, -1, shift=SHIFT)

    def wheel(self, u, v, radius, tyre, hub_radius, hub):
        """A tyre with its hub."""
        self.disc(u, v, radius, tyre)
        self.disc(u, v, hub_radius, hub, is_outline=False)


class Scene:
    """A street with a fixed number of objects; who leaves is replaced by somebody new."""

    def __init__(self, seed, width=640, height=360, count=None):
        """`count` objects; without it, 2 to 8."""
        self.rng = np.random.default_rng(seed)
        self.width, self.height = width, height
        self.background, self.layout = paint_background(self.rng, width, height)
        count = count or int(self.rng.integers(2, 9))
        self.objects = [StreetObject(self.rng, width, height, self.layout) for _ in range(count)]
        self.time = 0.0
        self.gain = self.rng.uniform(0.7, 1.2)
        self.noise = self.rng.uniform(1, 5)
        self.shadow_offset = self.rng.uniform(-0.15, 0.15)
        self.blur = self.rng.uniform(0, 0.9)
        for number, thing in enumerate(self.objects):
            thing.id = number
        self.next_id = len(self.objects)

    def step(self, seconds):
        """Lets time pass."""
        self.time += seconds
        for index, thing in enumerate(self.objects):
            thing.x += thing.speed * seconds
            if thing.has_left(self.width):
                self.objects[index] = self._newcomer()

    def _newcomer(self):
        thing = StreetObject(self.rng, self.width, self.height, self.layout, x=0.0)
        gap = self.rng.uniform(0, 0.3) * self.width
        thing.x = -thing.w / 2 - gap if thing.direction > 0 else self.width + thing.w / 2 + gap
        thing.id = self.next_id
        self.next_id += 1
        return thing

    def render(self):
        """The frame (BGR) and its list of `Truth`, from far to near."""
        image = self.background.copy()
        owners = np.zeros(image.shape[:2], np.uint8)
        by_depth = sorted(self.objects, key=lambda thing: thing.y)
        for number, thing in enumerate(by_depth, 1):
            thing.draw(image, owners, number, self.time, self.shadow_offset)
        for left, thickness, paint in self.layout.poles:
            end = (left + thickness, self.layout.road_end + 6)
            cv2.rectangle(image, (left, 0), end, colour(paint), -1)
            cv2.rectangle(owners, (left, 0), end, 0, -1)
        return self._expose(image), self._truth(owners, by_depth)

    def _truth(self, owners, by_depth):
        pixels = np.bincount(owners.ravel(), minlength=len(by_depth) + 1)
        truth = []
        for number, thing in enumerate(by_depth, 1):
            x0, y0, x1, y1 = thing.box()
            x0, y0 = max(0, x0), max(0, y0)
            x1, y1 = min(self.width, x1), min(self.height, y1)
            if x1 - x0 < 2 or y1 - y0 < 2:
                continue
            whole = thing.w * thing.h * COVERAGE[thing.cls]
            truth.append(Truth(thing.id, thing.cls, x0, y0, x1, y1, min(1.0, pixels[number] / whole)))
        return truth

    def _expose(self, image):
        """What the camera makes of it: brightness, noise, blur."""
        frame = image.astype(np.float32) * self.gain
        noise = self.rng.normal(0, self.noise, (self.height // 2, self.width // 2)).astype(np.float32)
        frame += cv2.resize(noise, (self.width, self.height))[..., None]
        if self.blur > 0.4:
            frame = cv2.GaussianBlur(frame, (0, 0), self.blur)
        return np.clip(frame, 0, 255).astype(np.uint8)
