"""Trains `street.onnx`, the demo's detector, on scenes that are drawn as they are needed.

    python train.py [--steps 1500] [--frames 3000] [--seed 0] [--out street.onnx]

The length is counted in steps and every random number is seeded, so that the same library
versions on the same processor give the same model again. Needs PyTorch.
"""

import argparse
import math
import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scene import CLASSES, Scene

# The model's input and its one grid of cells.
INPUT_WIDTH, INPUT_HEIGHT, STRIDE = 320, 192, 8
GRID_WIDTH, GRID_HEIGHT = INPUT_WIDTH // STRIDE, INPUT_HEIGHT // STRIDE
# A 640x360 frame becomes 320x180; letterboxing puts 6 rows above and below it.
IMAGE_HEIGHT = 180
PAD_ROWS = (INPUT_HEIGHT - IMAGE_HEIGHT) // 2
PAD_VALUE = 114

# Scenes of the training set count up from here; the demo's clips use other seeds.
FIRST_TRAINING_SEED = 100_000
FRAMES_A_SCENE = 5
# Less of an object than this is not worth finding, nor wrong to find.
MIN_VISIBLE = 0.3

BATCH = 16
PEAK_RATE = 3e-3
WARMUP_STEPS = 80
# Sizes are predicted as logarithms; past this they would be larger than any frame.
MAX_LOG_SIZE = 6


# --- the network --------------------------------------------------------------------------------

def conv(inputs, outputs, kernel=3, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(True),
    )


class InvertedResidual(nn.Module):
    """Widen, look around (dilated, one channel at a time), narrow; added to what came in."""

    def __init__(self, channels, dilation=1):
        super().__init__()
        wide = channels * 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(True),
            nn.Conv2d(wide, wide, 3, 1, dilation, dilation=dilation, groups=wide, bias=False),
            nn.BatchNorm2d(wide), nn.ReLU(True),
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return x + self.body(x)


class Detector(nn.Module):
    """Anchor-free, one prediction for each cell: class logits, and log distances to the four sides."""

    def __init__(self, channels=64):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 12, 3, 2), conv(12, 24, 3, 2), InvertedResidual(24),
                                  conv(24, channels, 3, 2))
        self.body = nn.Sequential(*[InvertedResidual(channels, d) for d in (1, 2, 4, 1, 3, 1)])
        self.classes = nn.Sequential(InvertedResidual(channels), nn.Conv2d(channels, len(CLASSES), 1))
        self.sides = nn.Sequential(InvertedResidual(channels), nn.Conv2d(channels, 4, 1))
        # Begin with "nothing here" and boxes of a likely size, or the first steps are wasted.
        nn.init.constant_(self.classes[1].bias, -4.0)
        nn.init.constant_(self.sides[1].bias, 1.2)

    def forward(self, x):
        features = self.body(self.stem(x))
        return self.classes(features), self.sides(features)


def pixels(log_sides):
    """Distances from a cell's centre to left, top, right and bottom, in pixels of the input."""
    return log_sides.clamp(max=MAX_LOG_SIZE).exp() * STRIDE / 2


class YoloLayout(nn.Module):
    """The network with its output decoded to [1, 4 + classes, cells]: centre, size, scores."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector
        rows, columns = torch.meshgrid(torch.arange(GRID_HEIGHT) + 0.5, torch.arange(GRID_WIDTH) + 0.5, indexing="ij")
        self.register_buffer("centres", torch.stack([columns, rows])[None] * STRIDE)

    def forward(self, x):
        logits, log_sides = self.detector(x)
        sides = pixels(log_sides)
        low, high = self.centres - sides[:, :2], self.centres + sides[:, 2:]
        return torch.cat([(low + high) / 2, high - low, logits.sigmoid()], 1).flatten(2)


# --- the data -----------------------------------------------------------------------------------

def letterbox(frame):
    """A 640x360 frame on the model's canvas."""
    canvas = np.full((INPUT_HEIGHT, INPUT_WIDTH, 3), PAD_VALUE, np.uint8)
    canvas[PAD_ROWS:PAD_ROWS + IMAGE_HEIGHT] = cv2.resize(frame, (INPUT_WIDTH, IMAGE_HEIGHT))
    return canvas


def draw_frames(count):
    """`count` BGR canvases with JPEG artefacts, and the boxes on each in canvas pixels."""
    images, boxes = np.empty((count, INPUT_HEIGHT, INPUT_WIDTH, 3), np.uint8), []
    seed = FIRST_TRAINING_SEED
    while len(boxes) < count:
        scene = Scene(seed)
        seed += 1
        for _ in range(min(FRAMES_A_SCENE, count - len(boxes))):
            scene.step(float(scene.rng.uniform(0.2, 1.2)))
            frame, truth = scene.render()
            quality = int(scene.rng.integers(35, 95))
            frame = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
            images[len(boxes)] = letterbox(frame)
            boxes.append([(t.cls, t.x0 / 2, t.y0 / 2 + PAD_ROWS, t.x1 / 2, t.y1 / 2 + PAD_ROWS, t.visible)
                          for t in truth])
    return images, boxes


def cells_near(low, high, count):
    """The cells along one axis whose centre lies in the middle 44 % of an object, at least one."""
    centres = np.arange(count) * STRIDE + STRIDE / 2
    middle, reach = (low + high) / 2, max((high - low) * 0.22, STRIDE * 0.5)
    cells = np.where((abs(centres - middle) <= reach) & (centres > low) & (centres < high))[0]
    return cells if len(cells) else np.array([min(count - 1, int(middle / STRIDE))])


def targets(boxes):
    """Per cell: class scores, distances to the sides, whether it has an object, whether it counts."""
    scores = np.zeros((len(CLASSES), GRID_HEIGHT, GRID_WIDTH), np.float32)
    sides = np.zeros((4, GRID_HEIGHT, GRID_WIDTH), np.float32)
    occupied = np.zeros((GRID_HEIGHT, GRID_WIDTH), np.float32)
    counts = np.ones((GRID_HEIGHT, GRID_WIDTH), np.float32)
    # Small objects last: where two overlap, the smaller one owns the cell.
    for cls, x0, y0, x1, y1, visible in sorted(boxes, key=lambda b: -(b[3] - b[1]) * (b[4] - b[2])):
        columns, rows = cells_near(x0, x1, GRID_WIDTH), cells_near(y0, y1, GRID_HEIGHT)
        cells = np.ix_(rows, columns)
        if visible < MIN_VISIBLE:
            counts[cells] = 0
            occupied[cells] = 0
            continue
        scores[:, rows[:, None], columns] = 0
        scores[cls][cells] = 1
        occupied[cells] = 1
        counts[cells] = 1
        x, y = columns[None] * STRIDE + STRIDE / 2, rows[:, None] * STRIDE + STRIDE / 2
        for side, distance in enumerate((x - x0, y - y0, x1 - x, y1 - y)):
            sides[side][cells] = np.maximum(distance, 0.5)
    return scores, sides, occupied, counts


def augment(images, target):
    """Mirrors half of the batches, and varies contrast and brightness."""
    scores, sides, occupied, counts = target
    if torch.rand(1) < 0.5:
        images = images.flip(3)
        # Left and right change places.
        sides = sides.flip(3)[:, [2, 1, 0, 3]]
        scores, occupied, counts = scores.flip(3), occupied.flip(2), counts.flip(2)
    contrast = 0.8 + 0.4 * torch.rand(len(images), 3, 1, 1)
    brightness = 0.08 * torch.randn(len(images), 1, 1, 1)
    return (images * contrast + brightness).clamp(0, 1), (scores, sides, occupied, counts)


# --- the training -------------------------------------------------------------------------------

def loss_of(logits, log_sides, target):
    """Focal loss (Lin et al. 2017) on the classes, generalised IoU (Rezatofighi et al. 2019) on the boxes."""
    scores, sides, occupied, counts = target
    objects = occupied.sum().clamp(min=1)

    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, scores, reduction="none")
    of_truth = scores * probability + (1 - scores) * (1 - probability)
    weight = scores * 0.4 + (1 - scores) * 0.6
    focal = (weight * (1 - of_truth) ** 2 * entropy * counts[:, None]).sum()

    guess = pixels(log_sides)
    inner, outer = torch.minimum(guess, sides), torch.maximum(guess, sides)
    overlap = (inner[:, 0] + inner[:, 2]) * (inner[:, 1] + inner[:, 3])
    union = area(guess) + area(sides) - overlap
    hull = area(outer)
    giou = overlap / union - (hull - union) / hull
    return 4 * focal / objects + 1.5 * ((1 - giou) * occupied).sum() / objects


def area(sides):
    """Of boxes given by their distances to the four sides."""
    return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])


def rate_at(step, steps):
    """Linear warm-up, then a cosine down to one hundredth."""
    warmup = min(1, (step + 1) / WARMUP_STEPS)
    return PEAK_RATE * warmup * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)


def batches(count):
    """Endless batches of indices, in a new order each time round."""
    while True:
        order = torch.randperm(count)
        for start in range(0, count - BATCH + 1, BATCH):
            yield order[start:start + BATCH]


def train(images, target, steps):
    """A trained `Detector`."""
    model = Detector().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    smooth, begin = 0.0, time.monotonic()
    for step, chosen in zip(range(steps), batches(len(images))):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps)
        # From BGR bytes, channels last, to RGB floats, channels first.
        batch = images[chosen].flip(3).permute(0, 3, 1, 2).float().div_(255)
        batch, wanted = augment(batch.contiguous(memory_format=torch.channels_last), [t[chosen] for t in target])
        loss = loss_of(*model(batch), wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        smooth = loss.item() if step == 0 else 0.97 * smooth + 0.03 * loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"step {step + 1} of {steps}, loss {smooth:.3f}, {time.monotonic() - begin:.0f} s", flush=True)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--frames", type=int, default=3000, help="size of the training set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="street.onnx")
    args = parser.parse_args()
    if args.frames < BATCH:
        parser.error(f"--frames must be at least {BATCH}, one batch")

    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)

    images, boxes = draw_frames(args.frames)
    target = [torch.from_numpy(np.stack(part)) for part in zip(*map(targets, boxes))]
    model = train(torch.from_numpy(images), target, args.steps)
    example = torch.zeros(1, 3, INPUT_HEIGHT, INPUT_WIDTH)
    torch.onnx.export(YoloLayout(model).eval(), (example,), args.out, opset_version=17,
                      input_names=["images"], output_names=["output0"], dynamo=False)
    print(f"{args.out} written")


if __name__ == "__main__":
    main()
