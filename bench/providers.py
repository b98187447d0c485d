"""The platform with OpenVINO on one clip, against Python with OpenVINO's own queue; and eight scenarios at a time."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from framehook import Failure, Platform
from pipeline import BENCH, CLIP, MODEL, SAMPLE_SECONDS, run_model, run_plain, run_platform, scenario_on, wait_for_workers

LIBRARY = BENCH.parent / ".cache" / "onnxruntime-openvino" / "libonnxruntime.so"
PRECISIONS = ("f32", "bf16")
AT_ONCE = 8


def run_queue(precision):
    """bench/openvino_queue.py."""
    begin = time.perf_counter()
    command = [sys.executable, BENCH / "openvino_queue.py", CLIP, MODEL, precision]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise Failure("bench/openvino_queue.py failed; the reason is above")
    return {**json.loads(run.stdout), "seconds": time.perf_counter() - begin}


def run_at_once(platform, scenario, count):
    """The same scenario several times at a time: frames a second of all, from the first one that was published to the
    last one that was stored."""
    ids = [platform.json("POST", "/scenario/init", scenario)["id"] for _ in range(count)]
    begin = None
    while True:
        views = [platform.json("GET", f"/scenario/{scenario_id}") for scenario_id in ids]
        if begin is None and any(view["progress"]["published"] for view in views):
            begin, before = time.perf_counter(), sum(view["progress"]["published"] for view in views)
        if all(view["state"] == "completed" for view in views):
            break
        time.sleep(SAMPLE_SECONDS)
    rate = (sum(view["progress"]["frames"] for view in views) - before) / (time.perf_counter() - begin)
    wait_for_workers(platform.process.pid)
    return rate


def measure(rounds, say):
    """All runs of all of them, in turns."""
    runs, rates = {}, {1: [], AT_ONCE: []}
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder:
        arguments = ("--onnxruntime-openvino", str(LIBRARY), "--max-workers", str(AT_ONCE))
        with Platform(pathlib.Path(folder), *arguments) as platform:
            scenario = scenario_on(platform)
            for number in range(rounds + 1):
                # The first round measures the model for the platform, too, and is not counted.
                say("warm-up" if number == 0 else f"round {number} of {rounds}")
                once = {"models": run_model(2), "plain": run_plain(), "cpu": run_with(platform, scenario, "cpu", "f32")}
                for precision in PRECISIONS:
                    once[f"queue {precision}"] = run_queue(precision)
                    once[f"openvino {precision}"] = run_with(platform, scenario, "openvino", precision)
                for count in rates:
                    rate = run_at_once(platform, {**scenario, "provider": "cpu"}, count)
                    if number:
                        rates[count].append(rate)
                if number:
                    for name, figures in once.items():
                        runs.setdefault(name, []).append(figures)
    names = ("fps", "seconds", "cpu_ms_per_frame", "peak_rss_mb")
    medians = {who: {name: statistics.median(run[name] for run in all_runs) for name in names} for who, all_runs in runs.items()}
    return {"medians": medians, "runs": runs, "rates_at_once": {str(count): statistics.median(all_rates) for count, all_rates in rates.items()}}


def run_with(platform, scenario, provider, precision):
    return run_platform(platform, {**scenario, "provider": provider, "precision": precision})


def table(results):
    """The medians as Markdown."""
    middle = results["medians"]
    titles = {"models": "model alone, a session a core", "plain": "plain Python", "queue f32": "Python, OpenVINO in f32",
              "queue bf16": "Python, OpenVINO in bf16", "cpu": "Framehook, `cpu`",
              "openvino f32": "Framehook, `openvino` in f32", "openvino bf16": "Framehook, `openvino` in bf16"}
    yardsticks = ("models", "plain", "queue f32", "queue bf16")
    lines = ["| | frames/s | of the model alone | of plain Python | of Python, f32 | of Python, bf16 | CPU ms a frame | peak memory, MiB |",
             "|---|---|---|---|---|---|---|---|"]
    for who, title in titles.items():
        m = middle[who]
        ratios = " | ".join(f"{m['fps'] / middle[other]['fps']:.2f}" for other in yardsticks)
        lines.append(f"| {title} | {m['fps']:.0f} | {ratios} | {m['cpu_ms_per_frame']:.2f} | {m['peak_rss_mb']:.0f} |")
    one, many = results["rates_at_once"]["1"], results["rates_at_once"][str(AT_ONCE)]
    lines += ["", f"{AT_ONCE} scenarios at a time have {many:.0f} frames/s together, one has {one:.0f}: {many / one:.2f}."]
    return "\n".join(lines)
