"""Says what RapidOCR's DB post-processing finds on a map: the values that plugins/text-db/src/tests.rs expects.

Beside each box, its score: that of RapidOCR, which counts pixels that only touch the box, and the mean of those whose
middle is in the box that OpenCV finds.

The map is made here and there by the same formula: bars that are turned, with soft edges.

    $(scripts/venv.sh judges plugins/judges/requirements.txt) plugins/judges/text_db.py
"""

import math

import cv2
import numpy
from rapidocr_onnxruntime.ch_ppocr_det.utils import DBPostProcess

WIDTH, HEIGHT = 320, 160
# Centre x and y, length, thickness, angle in radians, highest value.
BARS = [
    (60, 20, 80, 10, 0.0, 0.95),
    (230, 40, 100, 12, 0.2, 0.9),
    (70, 100, 90, 14, -0.5, 0.85),
    (170, 110, 70, 9, 1.4, 0.99),
    (260, 120, 60, 16, 0.7, 0.4),
    (300, 90, 4, 3, 0.0, 0.9),
]

ys, xs = numpy.mgrid[0:HEIGHT, 0:WIDTH].astype(numpy.float64)
values = numpy.zeros((HEIGHT, WIDTH))
for x, y, length, thickness, angle, peak in BARS:
    along = (xs - x) * math.cos(angle) + (ys - y) * math.sin(angle)
    across = (ys - y) * math.cos(angle) - (xs - x) * math.sin(angle)
    inside = numpy.minimum(length / 2 - abs(along), thickness / 2 - abs(across))
    values = numpy.maximum(values, peak * numpy.clip(0.5 + inside / 2, 0, 1))



class Judge(DBPostProcess):
    """Keeps the exact mean of each box that is a text."""

    means = {}

    def box_score_fast(self, bitmap, box):
        score = DBPostProcess.box_score_fast(bitmap, box)
        inside = numpy.vectorize(lambda x, y: cv2.pointPolygonTest(box, (float(x), float(y)), True) >= -1e-3)
        self.means[score] = bitmap[inside(xs, ys)].mean()
        return score


judge = Judge(thresh=0.3, box_thresh=0.6, unclip_ratio=1.5)
# Ten times as large, so that its corners in whole pixels are exact enough.
boxes, scores = judge(values[None, None].astype(numpy.float32), (HEIGHT * 10, WIDTH * 10))
for box, score in sorted(zip(boxes.tolist(), scores)):
    print([[x / 10, y / 10] for x, y in box], round(score, 4), round(float(judge.means[score]), 4))
