"""The whole platform on one clip, against the model alone and against a plain Python loop, taken in turns."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing

import framehook
from framehook import Failure, Platform
from machine import children_named, cpu_seconds, status_mb

BENCH = pathlib.Path(__file__).resolve().parent
ASSETS = BENCH.parent / "assets"
WORKER = "framehook-job"  # the name of a worker that has one
# Seldom enough not to slow down what is measured; a peak is read many times before a worker ends,
# and the length of a whole run is known to this precision.
SAMPLE_SECONDS = 0.1


class Case(typing.NamedTuple):
    """What everybody works on: a clip, and a model with a YOLOv8 head."""
    clip: pathlib.Path
    model: pathlib.Path
    labels: tuple
    inferences: int  # of the model alone: some seconds


DEMO = Case(ASSETS / "demo1.mp4", ASSETS / "street.onnx", ("person", "car", "truck"), inferences=500)


def scenario_on(platform, case=DEMO):
    """Uploads what a case needs; gives a scenario."""
    # Thresholds as in plain.py.
    config = {"labels": case.labels, "min_score": 0.3, "iou": 0.5}
    return {
        "name": "bench",
        "source": {"video": platform.upload("video", case.clip, name=case.clip.stem, version="1")},
        "model": platform.upload("model", case.model, name=case.model.stem, version="1"),
        "plugins": {"post": [{"use": platform.upload_plugin("yolo"), "config": config}]},
    }


# --- the contestants ----------------------------------------------------------------------------

def run_model(case, sessions):
    """The model and nothing else, in sessions as a worker's lanes have."""
    begin = time.perf_counter()
    command = ("bench-inference", case.model, "--frames", str(case.inferences), "--sessions", str(sessions))
    figures = json.loads(framehook.worker(*command))
    return {"fps": figures["fps"], "seconds": time.perf_counter() - begin,
            "cpu_ms_per_frame": figures["cpu_ms_per_frame"], "peak_rss_mb": figures["peak_rss_mb"]}


def run_python(script, case, *arguments):
    """One of this folder's scripts that prints what it gave and used."""
    begin = time.perf_counter()
    command = [sys.executable, BENCH / script, case.clip, case.model, *arguments]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise Failure(f"bench/{script} failed; the reason is above")
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


def run_pair(platform, scenario):
    """The same scenario twice at a time: the share of the frames that the slower one has when the other has all."""
    ids = [platform.json("POST", "/scenario/init", scenario)["id"] for _ in range(2)]
    while True:
        views = [platform.json("GET", f"/scenario/{scenario_id}") for scenario_id in ids]
        if any(view["state"] == "completed" for view in views):
            break
        time.sleep(SAMPLE_SECONDS)
    share = min(view["progress"]["frames"] / view["progress"]["frames_total"] for view in views)
    for scenario_id in ids:
        platform.follow(scenario_id, poll_seconds=SAMPLE_SECONDS)
    wait_for_workers(platform.process.pid)
    return share


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
    """All runs of all of them, in turns."""
    runs = {"model": [], "models": [], "plain": [], "one_lane": [], "platform": []}
    shares, cores = [], len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder:
        with Platform(pathlib.Path(folder)) as platform:
            scenario = scenario_on(platform)
            for number in range(rounds + 1):
                # The first round fills caches (files, the compiled plugin) and is not counted.
                say("warm-up" if number == 0 else f"round {number} of {rounds}")
                once = {"model": run_model(DEMO, 1), "models": run_model(DEMO, cores), "plain": run_python("plain.py", DEMO),
                        "one_lane": run_platform(platform, {**scenario, "lanes": 1}),
                        "platform": run_platform(platform, scenario)}
                share = run_pair(platform, scenario)
                if number:
                    shares.append(share)
                    for name, figures in once.items():
                        runs[name].append(figures)
    names = ("fps", "seconds", "cpu_ms_per_frame", "peak_rss_mb")
    medians = {who: {name: statistics.median(run[name] for run in all_runs) for name in names}
               for who, all_runs in runs.items()}
    return {"medians": medians, "runs": runs, "share_of_the_slower_of_two": statistics.median(shares)}


def table(results):
    """The medians as Markdown."""
    middle = results["medians"]
    titles = {"model": "model alone, one session (a)", "models": "model alone, a session a core (b)",
              "plain": "plain Python (c)", "one_lane": "Framehook, one lane", "platform": "Framehook, `lanes: auto`"}
    yardsticks = ("model", "models", "plain")
    lines = ["| | frames/s | of (a) | of (b) | of (c) | whole run, s | CPU ms a frame | peak memory, MiB |",
             "|---|---|---|---|---|---|---|---|"]
    for who, title in titles.items():
        m = middle[who]
        ratios = " | ".join(f"{m['fps'] / middle[other]['fps']:.2f}" for other in yardsticks)
        lines.append(f"| {title} | {m['fps']:.0f} | {ratios} | {m['seconds']:.2f} |"
                     f" {m['cpu_ms_per_frame']:.2f} | {m['peak_rss_mb']:.0f} |")
    lines += ["", f"When the first of two scenarios has all its frames, the other has {results['share_of_the_slower_of_two']:.0%}."]
    return "\n".join(lines)
