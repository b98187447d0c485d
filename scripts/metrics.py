"""Average precision of predictions against ground truth. Standard library only.

The figures are those of `assets/make/evaluate.py`: all-point interpolation (PASCAL VOC from 2010
on), a match at IoU 0.5 and best score first, and objects that are hardly visible count neither as
needed nor, when found, as wrong.
"""

MATCH_IOU = 0.5
MIN_VISIBLE = 0.3


def iou(a, b):
    """Intersection over union of two boxes `x0, y0, x1, y1`."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def average_precision(found, objects):
    """Of one class. `found`: (score, frame, box)s; `objects`: frame -> [(box, is_needed)]."""
    needed = sum(is_needed for here in objects.values() for _, is_needed in here)
    if not needed:
        return 0.0
    hits, used = [], set()
    for _, frame, box in sorted(found, key=lambda d: -d[0]):
        here = objects.get(frame, [])
        shares = [iou(box, other) for other, _ in here]
        free = [j for j in range(len(here)) if shares[j] >= MATCH_IOU and (frame, j) not in used]
        if not free:
            hits.append(False)
            continue
        # A needed object before one that does not count; then the one that overlaps most.
        best = max(free, key=lambda j: (here[j][1], shares[j]))
        used.add((frame, best))
        if here[best][1]:
            hits.append(True)
    return area_under(hits, needed)


def area_under(hits, needed):
    """Area under the precision-recall curve, each precision raised to the best at any higher recall."""
    right, precisions = 0, []
    for count, hit in enumerate(hits, 1):
        right += hit
        precisions.append(right / count)
    area, best = 0.0, 0.0
    for hit, precision in zip(reversed(hits), reversed(precisions)):
        best = max(best, precision)
        if hit:
            area += best / needed
    return area


def average_precisions(predictions, truth):
    """Of each class, in the order of `truth["names"]`; predictions as the REST API gives them."""
    width, height = truth["width"], truth["height"]
    found = [[] for _ in truth["names"]]
    for prediction in predictions:
        for detection in prediction["detections"]:
            if detection["class_id"] < len(found):
                x, y, w, h = detection["box"]
                box = (x * width, y * height, (x + w) * width, (y + h) * height)
                found[detection["class_id"]].append((detection["score"], prediction["frame"], box))
    objects = [{} for _ in truth["names"]]
    for frame, rows in enumerate(truth["frames"]):
        for _, cls, x0, y0, x1, y1, visible in rows:
            objects[cls].setdefault(frame, []).append(((x0, y0, x1, y1), visible >= MIN_VISIBLE))
    return [average_precision(f, o) for f, o in zip(found, objects)]
