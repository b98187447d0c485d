"""What hooks cost: a call against the same code compiled natively, and a chain of plugins against none.

A call is the stock `yolo` on an output [1, 84, 8400] with 40 objects, each found by some boxes: under the platform's engine
(`framehook plugin bench`), and compiled for this processor, with all of its vectors (`plugins/yolo/src/tests/twin.rs`). Chains run
in `framehook up`, with one lane. What plugins declare of the model's input is settled before a worker starts, so it takes what it
takes without a plugin.
"""

import json
import os
import pathlib
import statistics
import subprocess
import tempfile

import numpy

from framehook import EXECUTABLES, PLUGINS, ROOT, Failure, Platform
from pipeline import run_platform, scenario_on

CLASSES, BOXES, SIDE = 80, 8400, 640
# A chain as people have it, then hooks that work on every detection once more.
CHAIN = ["yolo", "tracker", "zones", "privacy-blur", "line-counter"]
CONFIGS = {
    "yolo": {"labels": ["person", "car", "truck"], "min_score": 0.1, "iou": 0.5},
    "zones": {"zones": {"middle": {"polygon": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]}}},
    "privacy-blur": {"labels": ["person"]},
    "line-counter": {"line": [[0.0, 0.5], [1.0, 0.5]]},
}
LENGTHS = (0, 1, 3, 5)


def output():
    """As a YOLOv8 of 80 classes gives it: many boxes with next to no score, and for each object a dozen that agree."""
    random = numpy.random.default_rng(84)
    numbers = numpy.empty((1, 4 + CLASSES, BOXES), numpy.float32)
    numbers[0, :2] = random.uniform(0, SIDE, (2, BOXES))
    numbers[0, 2:4] = random.uniform(8, 200, (2, BOXES))
    numbers[0, 4:] = random.beta(0.2, 40, (CLASSES, BOXES))
    for place in random.uniform(60, SIDE - 60, (40, 2)):
        boxes, kind = random.integers(0, BOXES, 12), random.integers(0, CLASSES)
        numbers[0, :2, boxes] = place + random.normal(0, 3, (12, 2))
        numbers[0, 2:4, boxes] = [60, 90] + random.normal(0, 3, (12, 2))
        numbers[0, 4 + kind, boxes] = random.uniform(0.3, 0.9, 12)
    return numbers


def build_twin():
    """The native twin; gives its executable."""
    environment = {**os.environ, "RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": str(ROOT / "target" / "twin")}
    command = ["cargo", "test", "--release", "--package", "yolo", "--no-run", "--message-format", "json-render-diagnostics"]
    build = subprocess.run(command, cwd=ROOT / "plugins", env=environment, stdout=subprocess.PIPE, text=True)
    executables = [json.loads(line).get("executable") for line in build.stdout.splitlines()]
    if build.returncode != 0 or not any(executables):
        raise Failure("the native twin of `yolo` could not be built; the reason is above")
    return next(filter(None, executables))


def run_twin(twin, file):
    command = [twin, "--ignored", "--exact", "tests::twin::twin", "--nocapture"]
    run = subprocess.run(command, env={**os.environ, "TWIN_OUTPUT": str(file)}, stdout=subprocess.PIPE, text=True)
    # Behind the test's name, on its line.
    figures = [line[line.index("{"):] for line in run.stdout.splitlines() if "p50_us" in line]
    if run.returncode != 0 or not figures:
        raise Failure(f"the native twin failed: {run.stdout.strip()}")
    return json.loads(figures[0])


def run_hook(folder):
    """One repeat under the platform's engine."""
    environment = {"FRAMEHOOK_ONNXRUNTIME": str(EXECUTABLES / "libonnxruntime.so"), **os.environ}
    command = [EXECUTABLES / "framehook", "plugin", "bench", "--folder", folder, "--wasm", PLUGINS / "yolo.wasm",
               "--repeats", "1", "--json"]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise Failure("`framehook plugin bench` failed; the reason is above")
    return json.loads(run.stdout)["cases"]["head"]


def calls(rounds, folder, say):
    case = folder / "tests" / "golden" / "head"
    case.mkdir(parents=True)
    numpy.save(case / "output0.npy", output())
    (case / "case.json").write_text(json.dumps({
        "outputs": [["output0", "output0.npy"]], "frame": [1280, 720], "input": {"size": [SIDE, SIDE]}}))
    twin = build_twin()
    hook, native = [], []
    for number in range(1, rounds + 1):
        hook.append(run_hook(folder))
        native.append(run_twin(twin, case / "output0.npy"))
        say(f"round {number}: a call of yolo {hook[-1]['p50_us']:.0f} us, native {native[-1]['p50_us']:.0f} us")
    return hook, native


def chains(rounds, folder, say):
    runs = {length: [] for length in LENGTHS}
    with Platform(folder) as platform:
        scenario = scenario_on(platform)
        hooks = [{"use": platform.upload_plugin(name), "config": CONFIGS.get(name, {})} for name in CHAIN]
        for number in range(rounds + 1):
            # Each is the first one in its turn.
            order = LENGTHS[number % len(LENGTHS):] + LENGTHS[:number % len(LENGTHS)]
            once = {length: run_platform(platform, {**scenario, "lanes": 1, "plugins": {"post": hooks[:length]}})
                    for length in order}
            if number:  # the first one compiles and warms up
                for length, figures in once.items():
                    runs[length].append(figures)
                say(f"round {number}: " + ", ".join(f"{length} plugins {once[length]['fps']:.0f} frames/s" for length in LENGTHS))
    return runs


def measure(rounds, say):
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder:
        hook, native = calls(rounds, pathlib.Path(folder) / "yolo", say)
        runs = chains(rounds, pathlib.Path(folder) / "platform", say)
    middle = lambda all_runs, name: statistics.median(run[name] for run in all_runs)
    medians = {
        "hook_us": middle(hook, "p50_us"), "native_us": middle(native, "p50_us"), "copied_bytes": middle(hook, "copied_bytes"),
        "instantiation_us": middle(hook, "instantiation_us"), "load_us": middle(hook, "load_us"),
        "fps": {str(length): middle(runs[length], "fps") for length in LENGTHS},
        # Round by round, because what else the machine does changes from round to round.
        "fps_share": {str(length): statistics.median(now["fps"] / none["fps"] for now, none in zip(runs[length], runs[0]))
                      for length in LENGTHS},
        "cpu_ms": {str(length): middle(runs[length], "cpu_ms_per_frame") for length in LENGTHS},
        "post_us": {str(length): statistics.median(run["timings_us"]["post_us"] for run in runs[length]) for length in LENGTHS},
        "input_share": statistics.median(one["timings_us"]["pre_us"] / none["timings_us"]["pre_us"]
                                         for one, none in zip(runs[1], runs[0])),
    }
    return {"medians": medians, "runs": {"hook": hook, "native": native, "chains": {str(n): all_runs for n, all_runs in runs.items()}}}


def table(results):
    m = results["medians"]
    lines = ["| | measured | aim |", "|---|---|---|",
             f"| a call of `yolo` on [1, 84, 8400], us | {m['hook_us']:.0f} | 400 |",
             f"| of the same code natively ({m['native_us']:.0f} us) | {m['hook_us'] / m['native_us']:.2f} | 2 |",
             f"| bytes copied into it | {m['copied_bytes']:.0f} | |",
             f"| an instance, us | {m['instantiation_us']:.0f} | |",
             f"| load of the compiled plugin, us | {m['load_us']:.0f} | |",
             f"| the model's input with `yolo`, of that without a plugin | {m['input_share']:.2f} | 1.0 |", "",
             "| plugins in a chain | frames/s | of none | CPU ms a frame | hooks and row, us |", "|---|---|---|---|---|"]
    lines += [f"| {n} | {m['fps'][n]:.0f} | {m['fps_share'][n]:.3f} | {m['cpu_ms'][n]:.2f} | {m['post_us'][n]:.0f} |" for n in m["fps"]]
    return "\n".join(lines)
