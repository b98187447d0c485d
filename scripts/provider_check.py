"""Runs the demo's scenario on the processor and with an execution provider, compares what they find, and prints how fast
each is. Exits with 0 only if the provider works here and finds in f32 what the processor finds.

usage: python3 scripts/provider_check.py PROVIDER     (openvino, cuda or tensorrt)
"""

import shutil
import sys
import time

from framehook import ROOT, Failure, Platform, describe, shown

ASSETS = ROOT / "assets"
# Three providers are tried; each may load gigabytes of libraries.
START_SECONDS = 120
LABELS, MIN_SCORE = ["person", "car", "truck"], 0.35
# Two boxes are the same object if they overlap so far.
SAME = 0.9
# Boxes near the least score are found by one and not by the other, where the last digits of a score differ.
MOST_ALONE = 0.01


def main(provider):
    folder = ROOT / "demo-out" / f"provider-{provider}"
    shutil.rmtree(folder, ignore_errors=True)
    # TensorRT prepares a model for longer than a worker may be silent by default.
    with Platform(folder, "--first-inference-s", "120") as platform:
        status = next(one for one in providers(platform) if one["provider"] == provider)
        if not status["precisions"]:
            raise Failure(f"`{provider}` cannot be used here: {status['why']}")
        print(f"{provider}: {status['why']}, in {', '.join(status['precisions'])}")
        scenario = scenario_on(platform)
        expected, view = run(platform, folder, scenario, "cpu", "f32")
        print(row("execution", "frames/s", "inference, ms", "alone", "largest deviation"))
        print(row("cpu in f32", f"{view['fps']:.0f}", "", "", ""))
        faults = [compare(platform, folder, scenario, provider, precision, expected) for precision in status["precisions"]]
    if faults[0]:
        raise Failure(faults[0])
    print(f"{provider} finds what the processor finds")


def providers(platform):
    """Of the platform's runner, which tells them once it has tried each."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for runner in platform.json("GET", "/runner")["items"]:
            return runner["providers"]
        time.sleep(0.1)
    raise Failure(f"the runner did not start within {START_SECONDS} s; see {shown(platform.log)}")


def scenario_on(platform):
    return {
        "name": "provider check",
        "source": {"video": platform.upload("video", ASSETS / "demo1.mp4", name="demo1", version="1")},
        "model": platform.upload("model", ASSETS / "street.onnx", name="street", version="1"),
        "plugins": {"post": [{"use": platform.upload_plugin("yolo"), "config": {"labels": LABELS, "min_score": MIN_SCORE}}]},
    }


def run(platform, folder, scenario, provider, precision):
    """What is found, and the scenario's last view; of the second run, for which everything is warm."""
    for _ in range(2):
        made = platform.json("POST", "/scenario/init", {**scenario, "provider": provider, "precision": precision})
        view = platform.follow(made["id"])
    if view["state"] != "completed":
        raise Failure(f"{provider} in {precision}: the scenario is {describe(view)}; see {shown(platform.log)}")
    if view["execution"] != {"provider": provider, "precision": precision}:
        raise Failure(f"{provider} in {precision} was asked for, and {view['execution']} ran")
    return platform.predictions(made["id"], folder / f"{provider}-{precision}.jsonl"), view


def compare(platform, folder, scenario, provider, precision, expected):
    """Prints a row; gives what is wrong, or nothing."""
    given, view = run(platform, folder, scenario, provider, precision)
    if len(given) != len(expected):
        return f"{provider} in {precision} gave {len(given)} frames and the processor {len(expected)}"
    pairs = [(a["detections"], b["detections"]) for a, b in zip(expected, given)]
    alone = sum(unmatched(a, b) + unmatched(b, a) for a, b in pairs) / sum(len(a) + len(b) for a, b in pairs)
    measured = view["measured"] or {"ms": 0, "cpu_ms": 0, "max_deviation": 0}
    times = f"{measured['ms']:.2f} ({measured['cpu_ms']:.2f})"
    print(row(f"{provider} in {precision}", f"{view['fps']:.0f}", times, f"{alone:.2%}", f"{measured['max_deviation']:.2g}"))
    return f"{alone:.2%} of the boxes in {precision} are found by one side alone" if alone > MOST_ALONE else None


def unmatched(boxes, others):
    return sum(not any(is_same(box, other) for other in others) for box in boxes)


def is_same(one, other):
    return one["class_id"] == other["class_id"] and overlap(one["box"], other["box"]) >= SAME


def overlap(one, other):
    """Area of the intersection by that of the union."""
    sides = [max(0.0, min(one[at] + one[at + 2], other[at] + other[at + 2]) - max(one[at], other[at])) for at in (0, 1)]
    both = sides[0] * sides[1]
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def row(*cells):
    return "  ".join(f"{cell:>18}" for cell in cells)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("openvino", "cuda", "tensorrt"):
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except Failure as failure:
        sys.exit(f"provider_check: {failure}")
    except KeyboardInterrupt:
        sys.exit("provider_check: interrupted; the platform was stopped")
