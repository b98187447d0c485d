"""The platform with OpenVINO on one clip, against Python with OpenVINO's own queue; and eight scenarios at a time."""

import os
import pathlib
import statistics
import tempfile
import time

from framehook import Platform
from pipeline import BENCH, DEMO, SAMPLE_SECONDS, run_model, run_platform, run_python, scenario_on, wait_for_workers

LIBRARY = BENCH.parent / ".cache" / "onnxruntime-openvino" / "libonnxruntime.so"
PRECISIONS = ("f32", "bf16")
AT_ONCE = 8


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


def precisions_of(platform):
    """In which precisions OpenVINO runs models here: bf16 only where the processor has instructions for it."""
    providers = platform.json("GET", "/runner")["items"][0]["providers"]
    (here,) = [entry["precisions"] for entry in providers if entry["provider"] == "openvino"]
    return [precision for precision in PRECISIONS if precision in here]


def run_all(platform, scenario, case, precisions):
    """Each of them once."""
    once = {"models": run_model(case, len(os.sched_getaffinity(0))), "plain": run_python("plain.py", case),
            "cpu": run_with(platform, scenario, "cpu", "f32")}
    for precision in precisions:
        once[f"queue {precision}"] = run_python("openvino_queue.py", case, precision)
        once[f"openvino {precision}"] = run_with(platform, scenario, "openvino", precision)
    return once


def run_with(platform, scenario, provider, precision):
    return run_platform(platform, {**scenario, "provider": provider, "precision": precision})


def contest(rounds, say, case, more=lambda platform, scenario: None):
    """All runs of all of them, in turns, and what `more` gives in each round."""
    runs, others = [], []
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder:
        arguments = ("--onnxruntime-openvino", str(LIBRARY), "--max-workers", str(AT_ONCE))
        with Platform(pathlib.Path(folder), *arguments) as platform:
            scenario, precisions = scenario_on(platform, case), precisions_of(platform)
            if precisions != list(PRECISIONS):
                say(f"OpenVINO runs models here in {' and '.join(precisions)} only")
            for number in range(rounds + 1):
                # The first round measures the model for the platform, too, and is not counted.
                say("warm-up" if number == 0 else f"round {number} of {rounds}")
                runs.append(run_all(platform, scenario, case, precisions))
                others.append(more(platform, scenario))
    names = ("fps", "seconds", "cpu_ms_per_frame", "peak_rss_mb")
    runs = {who: [once[who] for once in runs[1:]] for who in runs[0]}
    medians = {who: {name: statistics.median(run[name] for run in all_runs) for name in names} for who, all_runs in runs.items()}
    return {"medians": medians, "runs": runs}, others[1:]


def measure(rounds, say):
    def at_once(platform, scenario):
        return {str(count): run_at_once(platform, {**scenario, "provider": "cpu"}, count) for count in (1, AT_ONCE)}

    results, rates = contest(rounds, say, DEMO, at_once)
    return {**results, "rates_at_once": {count: statistics.median(rate[count] for rate in rates) for count in rates[0]}}


def table(results):
    one, many = results["rates_at_once"]["1"], results["rates_at_once"][str(AT_ONCE)]
    return (f"{table_of(results)}\n\n{AT_ONCE} scenarios at a time have {many:.0f} frames/s together, one has {one:.0f}:"
            f" {many / one:.2f}.")


def table_of(results):
    """The medians as Markdown."""
    middle = results["medians"]
    titles = {"models": "model alone, a session a core", "plain": "plain Python", "queue f32": "Python, OpenVINO in f32",
              "queue bf16": "Python, OpenVINO in bf16", "cpu": "Framehook, `cpu`",
              "openvino f32": "Framehook, `openvino` in f32", "openvino bf16": "Framehook, `openvino` in bf16"}
    yardsticks = {"models": "the model alone", "plain": "plain Python", "queue f32": "Python, f32", "queue bf16": "Python, bf16"}
    yardsticks = {who: title for who, title in yardsticks.items() if who in middle}
    of = " | ".join(f"of {title}" for title in yardsticks.values())
    lines = [f"| | frames/s | {of} | CPU ms a frame | peak memory, MiB |", "|---" * (len(yardsticks) + 4) + "|"]
    for who, title in titles.items():
        if who not in middle:
            continue
        m = middle[who]
        ratios = " | ".join(f"{m['fps'] / middle[other]['fps']:.2f}" for other in yardsticks)
        lines.append(f"| {title} | {m['fps']:.0f} | {ratios} | {m['cpu_ms_per_frame']:.2f} | {m['peak_rss_mb']:.0f} |")
    return "\n".join(lines)
