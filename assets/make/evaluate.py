"""Average precision of a model in the YOLOv8 layout on a clip with ground truth, without Framehook.

    python evaluate.py CLIP.mp4 MODEL.onnx

Reads CLIP.json beside the clip. An independent reference for what the platform measures: OpenCV
decodes, ONNX Runtime infers, NumPy does the rest.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import cv2
import numpy as np
import onnxruntime

# Low, because average precision wants the whole curve.
MIN_SCORE = 0.05
# Boxes of one class that overlap more are one object.
NMS_IOU = 0.5
# A detection that overlaps an object this much has found it.
MATCH_IOU = 0.5
# An object of which less can be seen is neither needed nor wrong.
MIN_VISIBLE = 0.3
# Precision and recall are printed for those who would use this threshold.
REPORT_SCORE = 0.35
PAD_VALUE = 114


def overlap(box, boxes):
    """Intersection over union of one box with each of `boxes`, all `x0, y0, x1, y1`."""
    width = np.clip(np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0]), 0, None)
    height = np.clip(np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1]), 0, None)
    shared = width * height
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return shared / ((box[2] - box[0]) * (box[3] - box[1]) + areas - shared)


class Model:
    """An ONNX detector with its letterbox."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        tensor = self.session.get_inputs()[0]
        self.input, (self.height, self.width) = tensor.name, tensor.shape[2:]
        self.inference_seconds = []

    def detect(self, frame):
        """Arrays of boxes in pixels of the frame, scores and classes, before NMS."""
        rows, columns = frame.shape[:2]
        scale = min(self.width / columns, self.height / rows)
        width, height = round(columns * scale), round(rows * scale)
        left, top = (self.width - width) // 2, (self.height - height) // 2
        canvas = np.full((self.height, self.width, 3), PAD_VALUE, np.uint8)
        canvas[top:top + height, left:left + width] = cv2.resize(frame, (width, height))
        tensor = np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)[None]).astype(np.float32) / 255

        begin = time.perf_counter()
        cells = self.session.run(None, {self.input: tensor})[0][0].T
        self.inference_seconds.append(time.perf_counter() - begin)

        scores, classes = cells[:, 4:].max(1), cells[:, 4:].argmax(1)
        likely = scores > MIN_SCORE
        cells, scores, classes = cells[likely], scores[likely], classes[likely]
        boxes = np.concatenate([cells[:, :2] - cells[:, 2:4] / 2, cells[:, :2] + cells[:, 2:4] / 2], axis=1)
        return (boxes - [left, top, left, top]) / scale, scores, classes


def suppress(boxes, scores):
    """Indices that remain after greedy non-maximum suppression, best first."""
    kept = []
    for i in np.argsort(-scores):
        if not kept or overlap(boxes[i], boxes[kept]).max() < NMS_IOU:
            kept.append(i)
    return kept


def average_precision(found, objects):
    """All-point interpolated average precision of one class, with precision and recall at REPORT_SCORE.

    `found` is a list of (score, frame, box), `objects` maps a frame to its list of (box, counts).
    """
    needed = sum(counts for frame in objects.values() for _, counts in frame)
    used, hits, scores = set(), [], []
    for score, frame, box in sorted(found, key=lambda d: -d[0]):
        here = objects.get(frame, [])
        shares = overlap(box, np.array([b for b, _ in here])) if here else np.zeros(0)
        free = [j for j in np.argsort(-shares) if shares[j] >= MATCH_IOU and (frame, j) not in used]
        wanted = [j for j in free if here[j][1]]
        if free:
            used.add((frame, (wanted or free)[0]))
        if wanted or not free:
            hits.append(bool(wanted))
            scores.append(score)
    if not hits or not needed:
        return 0.0, 0.0, 0.0
    total = np.cumsum(hits)
    recall, precision = total / needed, total / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = int(np.searchsorted(-np.array(scores), -REPORT_SCORE)) - 1
    sure = (precision[at], recall[at]) if at >= 0 else (0.0, 0.0)
    return float(np.sum(np.diff(recall, prepend=0) * envelope)), *map(float, sure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=pathlib.Path)
    parser.add_argument("model")
    args = parser.parse_args()
    truth = json.loads(args.clip.with_suffix(".json").read_text())
    model, video = Model(args.model), cv2.VideoCapture(str(args.clip))

    found = [[] for _ in truth["names"]]
    objects = [{} for _ in truth["names"]]
    for number, rows in enumerate(truth["frames"]):
        ok, frame = video.read()
        if not ok:
            sys.exit(f"{args.clip} has {number} frames, its ground truth {len(truth['frames'])}")
        boxes, scores, classes = model.detect(frame)
        for cls in range(len(truth["names"])):
            mine = np.where(classes == cls)[0]
            found[cls] += [(scores[mine[i]], number, boxes[mine[i]]) for i in suppress(boxes[mine], scores[mine])]
        for _, cls, x0, y0, x1, y1, visible in rows:
            objects[cls].setdefault(number, []).append(((x0, y0, x1, y1), visible >= MIN_VISIBLE))

    precisions = []
    for cls, name in enumerate(truth["names"]):
        ap, precision, recall = average_precision(found[cls], objects[cls])
        precisions.append(ap)
        print(f"{name:8} AP50 {ap:.3f}, at score {REPORT_SCORE}: precision {precision:.3f}, recall {recall:.3f}")
    print(f"{'mAP50':8} {statistics.mean(precisions):.3f} over {len(truth['frames'])} frames;"
          f" inference {statistics.median(model.inference_seconds) * 1e3:.2f} ms a frame (median)")


if __name__ == "__main__":
    main()
