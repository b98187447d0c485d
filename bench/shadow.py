"""What a shadow costs the scenario that it belongs to: frames/s of the demo with the same hooks as shadow, and without.

Runs take turns. A shadow has a thread of its own, so what it costs depends on how many cores are idle; the frames that it did
not compare say whether it kept up.
"""

import pathlib
import statistics
import tempfile

from framehook import Platform
from pipeline import run_platform, scenario_on

CASES = ("without", "with")


def measure(rounds, say):
    runs = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder, Platform(pathlib.Path(folder)) as platform:
        scenario = {**scenario_on(platform), "lanes": 1}
        shadowed = {**scenario, "shadow": {"post": scenario["plugins"]["post"]}}
        for number in range(rounds + 1):
            for case in CASES:
                figures = run_platform(platform, shadowed if case == "with" else scenario)
                if case == "with":
                    newest = platform.json("GET", "/scenario?limit=1")["items"][0]["id"]
                    summary = platform.json("GET", f"/scenario/{newest}/shadow")["summary"]
                    figures["not_compared"] = summary["not_compared"] / (summary["compared"] + summary["not_compared"])
                if number:  # the first one compiles and warms up
                    runs[case].append(figures)
                    say(f"round {number}, {case} a shadow: {figures['fps']:.0f} frames/s, "
                        f"{figures['cpu_ms_per_frame']:.3f} ms of CPU time a frame")
    medians = {case: {key: statistics.median(run[key] for run in runs[case]) for key in ("fps", "cpu_ms_per_frame")}
               for case in CASES}
    medians["share"] = medians["with"]["fps"] / medians["without"]["fps"]
    medians["not_compared"] = statistics.median(run["not_compared"] for run in runs["with"])
    return {"runs": runs, "medians": medians}


def table(results):
    medians = results["medians"]
    rows = [f"| {case} | {medians[case]['fps']:.0f} | {medians[case]['cpu_ms_per_frame']:.3f} |" for case in CASES]
    return "\n".join(["| shadow | frames/s | CPU time a frame, ms |", "|---|---|---|", *rows, "",
                      f"With a shadow there were {medians['share']:.3f} times the frames/s; "
                      f"{100 * medians['not_compared']:.1f} % of the frames were not compared."])
