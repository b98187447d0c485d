"""Makes the sequence that the tracker is tried on, and says how well another implementation of ByteTrack does.

Writes truth.txt (`frame,id,x,y,w,h`) and detections.txt (`frame,x,y,w,h,score,id`, the id being that which the
other implementation gave, 0 if none) into plugins/tracker/src/sequence/, in pixels of 640 x 360 at 30 frames a
second, and prints IDF1, MOTA and the number of switches by motmetrics, and HOTA by TrackEval. The same seed gives the same
files.

    $(scripts/venv.sh judges plugins/judges/requirements.txt) plugins/judges/tracker.py
"""

import math
import random
from pathlib import Path

import motmetrics
import numpy
import supervision
import trackeval
from supervision.tracker.byte_tracker.kalman_filter import KalmanFilter

FOLDER = Path(__file__).resolve().parent.parent / "tracker/src/sequence"
WIDTH, HEIGHT, FRAMES, OBJECTS = 640, 360, 180, 10
SEED = 4


def trajectories(chance):
    """Of each object a function from frame to box, or None where it is not there."""

    def one(number):
        height = chance.uniform(50, 90)
        width = height * chance.uniform(0.4, 0.6)
        begin, length = chance.randint(0, 40), chance.randint(100, 170)
        # Half of them go left, half right, on few lanes, so they cross.
        direction = 1 if number % 2 else -1
        speed = direction * chance.uniform(2.0, 4.5)
        x0 = chance.uniform(20, 200) if direction > 0 else chance.uniform(440, 620)
        y0 = 120 + 100 * (number % 3 // 2) + chance.uniform(-10, 10)
        swing, period = chance.uniform(2, 12), chance.uniform(40, 90)
        # Some stand still for a while.
        stop, pause = (chance.randint(40, 70), 30) if number % 4 == 0 else (FRAMES, 0)

        def at(frame):
            age = frame - begin
            if not 0 <= age < length:
                return None
            moved = min(age, stop) + max(0, age - stop - pause)
            x, y = x0 + speed * moved, y0 + swing * math.sin(age / period * 2 * math.pi)
            inside = 0 < x < WIDTH and 0 < y < HEIGHT
            return (x - width / 2, y - height / 2, width, height) if inside else None

        return at

    return [one(number) for number in range(OBJECTS)]


def covered(box, others):
    """The share of a box that those nearer to the camera hide."""
    x, y, w, h = box
    share = 0.0
    for ox, oy, ow, oh in others:
        if oy + oh > y + h:
            dx = max(0, min(x + w, ox + ow) - max(x, ox))
            dy = max(0, min(y + h, oy + oh) - max(y, oy))
            share = max(share, dx * dy / (w * h))
    return share


def make():
    chance = random.Random(SEED)
    paths = trajectories(chance)
    truth, detections = [], []
    for frame in range(FRAMES):
        boxes = {number + 1: path(frame) for number, path in enumerate(paths)}
        boxes = {number: box for number, box in boxes.items() if box}
        for number, box in boxes.items():
            truth.append((frame, number, *(round(v) for v in box)))
            hidden = covered(box, [other for n, other in boxes.items() if n != number])
            if hidden > 0.7 or chance.random() < 0.06:
                continue
            x, y, w, h = box
            blur = 0.03 + 0.05 * hidden
            noisy = (
                x + chance.gauss(0, blur * w),
                y + chance.gauss(0, blur * h),
                w * (1 + chance.gauss(0, blur)),
                h * (1 + chance.gauss(0, blur)),
            )
            score = chance.uniform(0.65, 0.95) - 0.8 * hidden
            detections.append((frame, *(round(v) for v in noisy), round(max(0.11, score), 2)))
        if chance.random() < 0.2:
            w = chance.uniform(20, 50)
            place = (chance.uniform(0, WIDTH - w), chance.uniform(0, HEIGHT - 2 * w), w, 2 * w)
            detections.append((frame, *(round(v) for v in place), round(chance.uniform(0.11, 0.7), 2)))
    return truth, detections


def reference(detections):
    """Ids of the other implementation, in the order of the detections."""
    tracker = supervision.ByteTrack(track_activation_threshold=0.5, frame_rate=30)
    ids = []
    for frame in range(FRAMES):
        rows = [row for row in detections if row[0] == frame]
        if not rows:
            continue
        numbers = numpy.array([row[1:] for row in rows], dtype=float)
        corners = numpy.hstack([numbers[:, :2], numbers[:, :2] + numbers[:, 2:4]])
        seen = supervision.Detections(
            xyxy=corners, confidence=numbers[:, 4], class_id=numpy.zeros(len(rows), int), data={"row": list(range(len(rows)))}
        )
        found = tracker.update_with_detections(seen)
        of_row = dict(zip(found.data["row"], found.tracker_id)) if len(found) else {}
        ids += [int(of_row.get(row, 0)) for row in range(len(rows))]
    return ids


def overlap(a, b):
    """IoU of two boxes."""
    dx = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    dy = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return dx * dy / (a[2] * a[3] + b[2] * b[3] - dx * dy)


def distance(a, b):
    """1 - IoU; not a number where two boxes overlap by less than half."""
    iou = overlap(a, b)
    return 1 - iou if iou >= 0.5 else math.nan


def measure(truth, detections, ids):
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for frame in range(FRAMES):
        real = [row for row in truth if row[0] == frame]
        said = [(id, row) for id, row in zip(ids, detections) if row[0] == frame and id > 0]
        distances = [[distance(r[2:6], row[1:5]) for _, row in said] for r in real]
        accumulator.update([r[1] for r in real], [id for id, _ in said], distances)
    metrics = ["idf1", "idp", "idr", "mota", "num_switches", "num_false_positives", "num_misses"]
    return motmetrics.metrics.create().compute(accumulator, metrics=metrics, name="supervision")


def hota(truth, detections, ids):
    """Higher order tracking accuracy, with the accuracies of detection and of association that it is made of."""
    real = [[row for row in truth if row[0] == frame] for frame in range(FRAMES)]
    said = [[(id, row) for id, row in zip(ids, detections) if row[0] == frame and id > 0] for frame in range(FRAMES)]
    # TrackEval counts ids from 0.
    number = {id: at for at, id in enumerate(sorted({id for rows in said for id, _ in rows}))}
    data = {
        "num_gt_dets": len(truth),
        "num_tracker_dets": sum(map(len, said)),
        "num_gt_ids": OBJECTS,
        "num_tracker_ids": len(number),
        "num_timesteps": FRAMES,
        "gt_ids": [numpy.array([row[1] - 1 for row in rows], int) for rows in real],
        "tracker_ids": [numpy.array([number[id] for id, _ in rows], int) for rows in said],
        "similarity_scores": [
            numpy.array([[overlap(r[2:6], row[1:5]) for _, row in of_said] for r in of_real]).reshape(len(of_real), len(of_said))
            for of_real, of_said in zip(real, said)
        ],
    }
    found = trackeval.metrics.HOTA().eval_sequence(data)
    return {name: round(float(numpy.mean(found[name])), 6) for name in ("HOTA", "DetA", "AssA")}


def filtered():
    """What the other implementation's filter makes of three boxes: for the tests of plugins/tracker/src/motion.rs."""
    judge = KalmanFilter()
    mean, covariance = judge.initiate(numpy.array([0.5, 0.5, 0.4, 0.2]))
    for box in [[0.51, 0.5, 0.42, 0.2], [0.53, 0.49, 0.4, 0.21], [0.54, 0.49, 0.41, 0.2]]:
        mean, covariance = judge.update(*judge.predict(mean, covariance), numpy.array(box))
    return [round(float(number), 7) for number in mean]


truth, detections = make()
ids = reference(detections)
FOLDER.mkdir(parents=True, exist_ok=True)
lines = lambda rows: "".join(",".join(str(n) for n in row) + "\n" for row in rows)
(FOLDER / "truth.txt").write_text(lines(truth))
(FOLDER / "detections.txt").write_text(lines((*row, id) for row, id in zip(detections, ids)))
print(measure(truth, detections, ids).to_string())
print(hota(truth, detections, ids))
print(len(truth), "true boxes,", len(detections), "detections")
print("filter:", filtered())
