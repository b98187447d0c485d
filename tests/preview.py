#!/usr/bin/env python3
"""Says how far previews of model inputs are from what NumPy and OpenCV make of the same frames.

usage: tests/preview.py < JSON       (with the Python of .cache/venv-assets, which tests/models.py makes)

The JSON is a list of {"jpeg", "rgb", "frame", "size", "resize", "anchor", "channels", "pad", "scale", "mean",
"std", "element", "planes"}: a preview, a file with the RGB bytes of its frame and [width, height] of that, and the
complete recipe of the input. What is written is a matrix: for each preview, how much its right side differs from
what each recipe gives, as the mean of all values of 0 to 255; null where sizes differ. Last in each row is how much
its left side differs from the frame."""
import json, sys

import cv2, numpy

GAP = 8
LIMITS = {'uint8': (0, 255), 'int8': (-128, 127)}


def frame(case):
    width, height = case['frame']
    return numpy.fromfile(case['rgb'], numpy.uint8).reshape(height, width, 3)


def resized(case):
    (width, height), (w, h) = case['size'], case['frame']
    if case['resize'] == 'stretch':
        return cv2.resize(frame(case), (width, height), interpolation=cv2.INTER_LINEAR)
    scale = min(width / w, height / h)
    w, h = round(w * scale), round(h * scale)
    x, y = (0, 0) if case['anchor'] == 'top_left' else ((width - w) // 2, (height - h) // 2)
    canvas = numpy.full((height, width, 3), case['pad'], numpy.uint8)
    canvas[y:y + h, x:x + w] = cv2.resize(frame(case), (w, h), interpolation=cv2.INTER_LINEAR)
    return canvas


def shown(case):
    """The tensor, with its range from black to white as 0 to 255."""
    values = resized(case).astype(float)
    mean, std = numpy.array(case['mean']), numpy.array(case['std'])
    if case['channels'] == 'bgr':
        values = values[:, :, ::-1]
    if case['planes'] == 1:
        weights = [0.299, 0.587, 0.114][::-1 if case['channels'] == 'bgr' else 1]
        values, mean, std = (values @ weights)[:, :, None], mean[:1], std[:1]
    tensor = (values * case['scale'] - mean) / std
    ends = numpy.array([-mean / std, (255 * case['scale'] - mean) / std])
    if case['element'] in LIMITS:
        tensor = tensor.round().clip(*LIMITS[case['element']])
    return numpy.broadcast_to((tensor - ends.min()) / (ends.max() - ends.min()) * 255, (*tensor.shape[:2], 3))


def judge(cases):
    right = [shown(case) for case in cases]
    for case in cases:
        picture = cv2.imread(case['jpeg'])[:, :, ::-1].astype(float)
        (width, height), (w, h) = case['size'], case['frame']
        # The frame is as high as the input, where it is not smaller itself.
        scale = min(1, height / h)
        w, h = round(w * scale), round(h * scale)
        made = picture[:height, w + GAP:w + GAP + width]
        left = cv2.resize(frame(case), (w, h), interpolation=cv2.INTER_AREA)
        row = [abs(made - other).mean() if made.shape == other.shape else None for other in right]
        yield row + [abs(picture[:h, :w] - left).mean()]


print(json.dumps(list(judge(json.load(sys.stdin)))))
