"""What a scenario loses to a hostile plugin on the same runner: its frames per second beside one, and beside a harmless one.

Each runs beside another scenario on the same clip, so both share the machine; what differs is what the other's hook does on
each of its frames. A scenario that keeps its frames is what the containment of plugins is for.
"""

import pathlib
import statistics
import tempfile

from framehook import Failure, Platform, describe
from pipeline import scenario_on

HARMLESS = "none"
HOSTILE = ("loop", "allocate", "recurse", "handle-flood", "flood-log", "large-prediction")


def run(platform, scenario):
    view = platform.follow(platform.json("POST", "/scenario/init", scenario)["id"])
    if view["state"] != "completed":
        raise Failure(f"the scenario is {describe(view)}; see {platform.log}")
    return view["fps"]


def measure(rounds, say):
    runs = {mode: [] for mode in (HARMLESS, *HOSTILE)}
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder, Platform(pathlib.Path(folder)) as platform:
        scenario = {**scenario_on(platform), "lanes": 1}
        other = platform.upload_plugin("misbehave")
        for number in range(rounds + 1):
            for mode in runs:
                hook = {"use": other, "config": {"mode": mode}}
                hooks = [*scenario["plugins"]["post"], hook]
                beside = platform.json("POST", "/scenario/init", {**scenario, "plugins": {"post": hooks}})["id"]
                fps = run(platform, scenario)
                platform.follow(beside)
                if number:  # the first one compiles and warms up
                    runs[mode].append(fps)
                    say(f"round {number}, beside `{mode}`: {fps:.0f} frames/s")
    medians = {mode: statistics.median(values) for mode, values in runs.items()}
    kept = {mode: medians[mode] / medians[HARMLESS] for mode in HOSTILE}
    return {"runs": runs, "medians": {"fps": medians, "kept": kept}}


def table(results):
    fps, kept = results["medians"]["fps"], results["medians"]["kept"]
    rows = [f"| `{mode}` | {fps[mode]:.0f} | {100 * share:.0f} % |" for mode, share in kept.items()]
    return "\n".join(["| the other's hook | frames/s | of those beside a harmless hook |", "|---|---|---|",
                      f"| nothing | {fps[HARMLESS]:.0f} | |", *rows, "", "Aim: 95 % at least."])
