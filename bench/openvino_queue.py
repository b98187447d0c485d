"""What one would write without Framehook to have the most of two cores: OpenCV, and OpenVINO's queue of asynchronous
requests. Prints JSON.

    python openvino_queue.py CLIP.mp4 MODEL.onnx PRECISION

PRECISION is f32 or bf16. OpenVINO chooses streams and requests for throughput itself; everything else is as in plain.py,
detections are made in the callback.
"""

import sys
import threading
import time

import cv2
import openvino

from plain import Letterbox, print_figures


def main(clip, model, precision):
    # The requests use the cores.
    cv2.setNumThreads(1)
    video = cv2.VideoCapture(clip, cv2.CAP_FFMPEG)
    if not video.isOpened():
        sys.exit(f"openvino_queue.py: {clip} cannot be opened")
    frame_size = (int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    height, width = list(compiled.inputs[0].shape)[2:]
    letterbox = Letterbox(width, height, *frame_size)
    queue = openvino.AsyncInferQueue(compiled)
    done, lock = {"frames": 0, "detections": 0, "begin": None}, threading.Lock()

    def finished(request, _):
        found = len(letterbox.detections(request.get_output_tensor(0).data[0]))
        with lock:
            done["frames"] += 1
            done["detections"] += found
            # n frames are n - 1 intervals, from the first result to the last.
            done["begin"] = done["begin"] or time.perf_counter()

    queue.set_callback(finished)
    while True:
        ok, frame = video.read()
        if not ok:
            break
        queue.start_async({0: letterbox.tensor(frame)})
    queue.wait_all()
    print_figures(done["frames"], done["detections"], time.perf_counter() - done["begin"])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
