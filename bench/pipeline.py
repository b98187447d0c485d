"""The whole platform on one clip, against the model alone and against a plain Python loop, taken in turns."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import framehook
from framehook import Failure, Platform
from machine import children_named, cpu_seconds, status_mb

BENCH = pathlib.Path(__file__).resolve().parent
CLIP, MODEL = BENCH.parent / "assets" / "demo1.mp4", BENCH.parent / "assets" / "street.onnx"
# As in plain.py.
YOLO_CONFIG = {"labels": ["person", "car", "truck"], "min_score": 0.3, "iou": 0.5}
WORKER = "framehook-job"  # the name of a worker that has one
# Seldom enough not to slow down what is measured; a peak is read many times before a worker ends,
# and the length of a whole run is known to this precision.
SAMPLE_SECONDS = 0.1


def scenario_on(platform):
    """Uploads what the demo needs; gives a scenario."""
    return {
        "name": "bench",
        "source": {"video": platform.upload("video", CLIP, name="demo1", version="1")},
        "model": platform.upload("model", MODEL, name="street", version="1"),
        "plugins": {"post": [{"use": platform.upload_plugin("yolo"), "config": YOLO_CONFIG}]},
    }


# --- the three contestants ----------------------------------------------------------------------

def run_model():
    """The model and nothing else, in the worker's own session."""
    begin = time.perf_counter()
    figures = json.loads(framehook.worker("bench-inference", MODEL, "--frames", "500"))
    return {"fps": figures["fps"], "seconds": time.perf_counter() - begin,
            "cpu_ms_per_frame": figures["cpu_ms_per_frame"], "peak_rss_mb": figures["peak_rss_mb"]}


def run_plain():
    """bench/plain.py."""
    begin = time.perf_counter()
    command = [sys.executable, BENCH / "plain.py", CLIP, MODEL]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise Failure("bench/plain.py failed; the reason is above")
    return {**json.loads(run.stdout), "seconds": time.perf_counter() - begin}


def run_platform(platform, scenario):
    """One scenario from its POST to its last stored row."""
    pid = platform.process.pid
    cpu_before = cpu_seconds(pid)
    with PeakOfWorkers(pid) as peak:
        begin = time.perf_counter()
        scenario_id = platform.json("POST", "/scenario/init", scenario)["id"]
        view = platform.follow(scenario_id, poll_seconds=SAMPLE_SECONDS)
        seconds = time.perf_counter() - begin
        wait_for_workers(pid)
    frames = view["progress"]["frames"]
    if view["state"] != "completed" or not view["fps"]:
        raise Failure(f"the scenario is {framehook.describe(view)} after {frames} frames; see {platform.log}")
    return {"frames": frames, "fps": view["fps"], "seconds": seconds,
            "cpu_ms_per_frame": 1e3 * (cpu_seconds(pid) - cpu_before) / frames,
            "peak_rss_mb": peak.mb + status_mb(pid, "VmHWM"), "peak_worker_mb": peak.mb,
            "timings_us": view["timings"]}


def wait_for_workers(pid, seconds=10):
    """Until the last worker has ended, so that its CPU time is counted."""
    deadline = time.monotonic() + seconds
    while children_named(pid, WORKER):
        if time.monotonic() > deadline:
            raise Failure(f"a worker still runs {seconds} s after its scenario completed")
        time.sleep(SAMPLE_SECONDS)


class PeakOfWorkers:
    """Watches the memory of a platform's workers during a `with` block."""

    def __init__(self, pid):
        self.pid, self.mb = pid, 0.0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self.done.wait(SAMPLE_SECONDS):
            self.mb = max([self.mb, *(status_mb(worker, "VmHWM") for worker in children_named(self.pid, WORKER))])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


# --- the measurement ----------------------------------------------------------------------------

def measure(rounds, say):
    """All runs of all three, in turns."""
    runs = {"model": [], "plain": [], "platform": []}
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder:
        with Platform(pathlib.Path(folder)) as platform:
            scenario = scenario_on(platform)
            for number in range(rounds + 1):
                # The first round fills caches (files, the compiled plugin) and is not counted.
                say("warm-up" if number == 0 else f"round {number} of {rounds}")
                once = {"model": run_model(), "plain": run_plain(), "platform": run_platform(platform, scenario)}
                for name, figures in once.items():
                    runs[name] += [figures] if number else []
    names = ("fps", "seconds", "cpu_ms_per_frame", "peak_rss_mb")
    medians = {who: {name: statistics.median(run[name] for run in all_runs) for name in names}
               for who, all_runs in runs.items()}
    return {"medians": medians, "runs": runs}


def table(results):
    """The medians as Markdown."""
    middle = results["medians"]
    titles = {"model": "model alone (a)", "plain": "plain Python (b)", "platform": "Framehook, whole platform"}
    lines = ["| | frames/s | of (a) | of (b) | whole run, s | CPU ms a frame | peak memory, MiB |",
             "|---|---|---|---|---|---|---|"]
    for who, title in titles.items():
        m = middle[who]
        lines.append(f"| {title} | {m['fps']:.0f} | {m['fps'] / middle['model']['fps']:.2f} |"
                     f" {m['fps'] / middle['plain']['fps']:.2f} | {m['seconds']:.2f} |"
                     f" {m['cpu_ms_per_frame']:.2f} | {m['peak_rss_mb']:.0f} |")
    return "\n".join(lines)
