"""What it costs that a hook's state is stored with each frame: a hook that changes some on every frame.

The whole of `framehook up`, from the worker to the database, in processor time. Runs with and without take turns, and 64 KiB
a frame say what a byte costs where the difference of 4 KiB is lost in the noise.
"""

import pathlib
import statistics
import tempfile

from framehook import Platform
from pipeline import run_platform, scenario_on

SIZES = (0, 4 << 10, 64 << 10)


def measure(rounds, say):
    runs = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder, Platform(pathlib.Path(folder)) as platform:
        scenario = scenario_on(platform)
        keeper = platform.upload_plugin("misbehave")
        for number in range(rounds + 1):
            for size in SIZES:
                config = {"mode": "none", "every": 1 << 40, "keep_bytes": size}
                hooks = [*scenario["plugins"]["post"], {"use": keeper, "config": config}]
                figures = run_platform(platform, {**scenario, "lanes": 1, "plugins": {"post": hooks}})
                if number:  # the first one compiles and warms up
                    runs[size].append(figures["cpu_ms_per_frame"])
                    say(f"round {number}, {size} bytes: {figures['cpu_ms_per_frame']:.3f} ms of CPU time a frame")
    cpu = {size: statistics.median(values) for size, values in runs.items()}
    per_byte = 1e3 * (cpu[SIZES[2]] - cpu[0]) / SIZES[2]
    return {"runs": {str(size): values for size, values in runs.items()},
            "medians": {"cpu_ms": {str(size): value for size, value in cpu.items()},
                        "us_of_4_kib": 1e3 * (cpu[SIZES[1]] - cpu[0]), "us_of_4_kib_by_64_kib": per_byte * SIZES[1]}}


def table(results):
    medians = results["medians"]
    rows = [f"| {int(size) >> 10} KiB | {value:.3f} |" for size, value in medians["cpu_ms"].items()]
    return "\n".join(["| changed on each frame | CPU time a frame, ms |", "|---|---|", *rows, "",
                      f"4 KiB cost {medians['us_of_4_kib']:.0f} us a frame (aim: at most 50), and "
                      f"{medians['us_of_4_kib_by_64_kib']:.0f} us by what 64 KiB cost."])
