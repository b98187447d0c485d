"""What one would write without Framehook: OpenCV and ONNX Runtime in one loop. Prints JSON.

    python plain.py CLIP.mp4 MODEL.onnx

It is written to be fast, not to lose: buffers are kept, the tensor is made by one OpenCV call,
candidates are cut before anything else is computed, and ONNX Runtime has the settings of a worker.
"""

import argparse
import json
import resource
import sys
import time

import cv2
import numpy as np
import onnxruntime

MIN_SCORE = 0.3
NMS_IOU = 0.5
PAD_VALUE = 114


class Letterbox:
    """Between a frame and a model: its input, and detections from a YOLOv8-layout output."""

    def __init__(self, width, height, frame_width, frame_height):
        self.scale = min(width / frame_width, height / frame_height)
        size = (round(frame_width * self.scale), round(frame_height * self.scale))
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        self.offset, self.size = np.float32([left, top]), size
        self.canvas = np.full((height, width, 3), PAD_VALUE, np.uint8)
        self.image = self.canvas[top:top + size[1], left:left + size[0]]

    def tensor(self, frame):
        """The model's input."""
        cv2.resize(frame, self.size, dst=self.image)
        return cv2.dnn.blobFromImage(self.canvas, 1 / 255, swapRB=True)

    def detections(self, output):
        """Rows of `x0, y0, x1, y1, score, class` in pixels of the frame."""
        scores = output[4:]
        best = scores.max(0)
        likely = np.flatnonzero(best >= MIN_SCORE)
        if not len(likely):
            return np.empty((0, 6), np.float32)
        classes = scores[:, likely].argmax(0)
        centre, half = output[:2, likely].T, output[2:4, likely].T / 2
        corners = (np.hstack([centre - half, centre + half]) - np.tile(self.offset, 2)) / self.scale
        rows = np.column_stack([corners, best[likely], classes]).astype(np.float32)
        return rows[suppress(rows)]


class Detector:
    """The same with ONNX Runtime in the middle."""

    def __init__(self, model, frame_width, frame_height):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        tensor = self.session.get_inputs()[0]
        self.input, (height, width) = tensor.name, tensor.shape[2:]
        self.letterbox = Letterbox(width, height, frame_width, frame_height)

    def __call__(self, frame):
        output = self.session.run(None, {self.input: self.letterbox.tensor(frame)})[0][0]
        return self.letterbox.detections(output)


def suppress(rows):
    """Indices that greedy non-maximum suppression, class by class, leaves."""
    # Far apart, boxes of different classes cannot overlap: one pass does for all.
    boxes = rows[:, :4] + rows[:, 5:] * 1e4
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0) * (y1 - y0)
    order, kept = np.argsort(-rows[:, 4]), []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        width = np.minimum(x1[first], x1[rest]) - np.maximum(x0[first], x0[rest])
        height = np.minimum(y1[first], y1[rest]) - np.maximum(y0[first], y0[rest])
        shared = np.clip(width, 0, None) * np.clip(height, 0, None)
        order = rest[shared < NMS_IOU * (areas[first] + areas[rest] - shared)]
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("model")
    args = parser.parse_args()
    # As in the worker; several threads for so small a frame gained nothing measurable.
    cv2.setNumThreads(1)

    video = cv2.VideoCapture(args.clip, cv2.CAP_FFMPEG)
    width, height = (int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if not video.isOpened():
        sys.exit(f"plain.py: {args.clip} cannot be opened")
    detector = Detector(args.model, width, height)

    frames = detections = 0
    begin = None
    while True:
        ok, frame = video.read()
        if not ok:
            break
        detections += len(detector(frame))
        frames += 1
        # n frames are n - 1 intervals, from the first result to the last.
        begin = begin or time.perf_counter()
    seconds = time.perf_counter() - begin

    print_figures(frames, detections, seconds)


def print_figures(frames, detections, seconds):
    """What this process gave and used, as JSON."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({
        "frames": frames,
        "detections": detections,
        "fps": (frames - 1) / seconds,
        "cpu_ms_per_frame": 1e3 * (used.ru_utime + used.ru_stime) / frames,
        "peak_rss_mb": used.ru_maxrss / 1024,
    }))


if __name__ == "__main__":
    main()
