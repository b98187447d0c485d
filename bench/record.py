"""What it costs to record a model's outputs, and how long a replay of them takes.

The whole of `framehook up`, in processor time; runs with and without take turns. The outputs are those of the demo's
detector: 7 x 960 numbers a frame.
"""

import pathlib
import statistics
import tempfile
import time

from framehook import Platform
from pipeline import SAMPLE_SECONDS, run_platform, scenario_on


def measure(rounds, say):
    runs = {"none": [], "outputs": []}
    replays = []
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder, Platform(pathlib.Path(folder)) as platform:
        scenario = scenario_on(platform)
        for number in range(rounds + 1):
            for record in runs:
                figures = run_platform(platform, {**scenario, "lanes": 1, "record": record})
                if number:  # the first one compiles and warms up
                    runs[record].append(figures["cpu_ms_per_frame"])
                    say(f"round {number}, {record}: {figures['cpu_ms_per_frame']:.3f} ms of CPU time a frame")
        original = platform.json("POST", "/scenario/init", {**scenario, "record": "outputs"})["id"]
        platform.follow(original, poll_seconds=SAMPLE_SECONDS)
        while (outputs := platform.json("GET", f"/scenario/{original}/outputs"))["gaps"]:
            time.sleep(0.1)
        kept = outputs["bytes"] / outputs["frames"]
        for _ in range(rounds):
            begun = time.monotonic()
            replay = platform.json("POST", f"/scenario/{original}/replay", {"from": "outputs"})["id"]
            platform.follow(replay, poll_seconds=SAMPLE_SECONDS)
            replays.append(time.monotonic() - begun)
            say(f"replay of {outputs['frames']} frames: {replays[-1]:.2f} s")
    cpu = {record: statistics.median(values) for record, values in runs.items()}
    return {"runs": runs, "replays": replays,
            "medians": {"cpu_ms": cpu, "us_a_frame": 1e3 * (cpu["outputs"] - cpu["none"]), "bytes_a_frame": kept,
                        "raw_bytes_a_frame": 7 * 960 * 4, "replay_s": statistics.median(replays)}}


def table(results):
    medians = results["medians"]
    rows = [f"| {record} | {value:.3f} |" for record, value in medians["cpu_ms"].items()]
    return "\n".join(["| `record` | CPU time a frame, ms |", "|---|---|", *rows, "",
                      f"Recording costs {medians['us_a_frame']:.0f} us a frame, and {medians['bytes_a_frame'] / 1024:.1f} KiB of "
                      f"{medians['raw_bytes_a_frame'] / 1024:.1f} KiB; a replay takes {medians['replay_s']:.2f} s."])
