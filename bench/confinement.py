"""What the confinement of workers by the kernel costs: the same executables, with it and on a machine that lacks it.

`framehook up` three times, in turns: as it is; behind a filter of system calls that lets everything through; and behind the
filter of `scripts/lacking.py` that refuses Landlock, seccomp and another user, so that the platform says at its start that it has
none of them, and runs. The product has no switch for that. The platform in the middle shows what such a filter costs by
itself, because the one without confinement has to have it.
"""

import pathlib
import statistics
import sys
import tempfile
import time

import framehook
from framehook import ROOT, Failure, Platform
from latency import Client, settle, wait_for
from machine import cpu_seconds
from pipeline import scenario_on, wait_for_workers

LACKING = [sys.executable, ROOT / "scripts" / "lacking.py"]
LAUNCHERS = {
    "confined": [],
    "filtered": [*LACKING, "--"],
    "free": [*LACKING, "landlock", "seccomp", "users", "--"],
}
# What the platform must say of itself, so that nothing else is measured: all of these on, or none.
PIECES = ("files", "system_calls")


def first_row(client, platform, scenario, with_spare):
    """Posts a scenario to a platform with a pre-warmed worker, or one whose spare was killed; gives its id, and how long its
    first prediction took."""
    settle(platform.process.pid, with_spare)
    begin = time.perf_counter()
    scenario_id = client("POST", "/scenario/init", scenario)["id"]
    wait_for("a prediction", lambda: client("GET", f"/prediction/{scenario_id}?limit=1")["items"])
    return scenario_id, 1e3 * (time.perf_counter() - begin)


def run(platform, scenario):
    """The whole clip with a pre-warmed worker, and the start of another scenario without one."""
    pid, client = platform.process.pid, Client(platform.url)
    cpu_before = cpu_seconds(pid)
    scenario_id, first_ms = first_row(client, platform, scenario, True)
    view = platform.follow(scenario_id)
    wait_for_workers(pid)
    cpu = cpu_seconds(pid) - cpu_before
    if view["state"] != "completed" or not view["fps"]:
        raise Failure(f"the scenario is {framehook.describe(view)}; see {platform.log}")
    scenario_id, cold_ms = first_row(client, platform, scenario, False)
    client("POST", f"/scenario/{scenario_id}/stop")
    wait_for_workers(pid)
    return {"fps": view["fps"], "cpu_ms_per_frame": 1e3 * cpu / view["progress"]["frames"],
            "first_ms": first_ms, "cold_ms": cold_ms}


def check(name, platform):
    """What is compared must be what it is called."""
    runner = wait_for("the runner", lambda: platform.json("GET", "/runner")["items"])[0]
    found = {row["name"]: row["on"] for row in runner["confinement"]}
    if any(found[piece] == (name == "free") for piece in PIECES):
        raise Failure(f"the platform that is to be {name} says of its confinement: {found}")
    return found


def measure(rounds, say):
    """All runs, in an order that changes from round to round."""
    runs = {name: [] for name in LAUNCHERS}
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder:
        for number in range(rounds + 1):
            names = list(LAUNCHERS)[number % len(LAUNCHERS):] + list(LAUNCHERS)[:number % len(LAUNCHERS)]
            for name in names:
                # One at a time: two that wait still make their heartbeats.
                with Platform(pathlib.Path(folder) / name, launcher=LAUNCHERS[name]) as platform:
                    found = check(name, platform)
                    scenario = scenario_on(platform)
                    # The first fills caches (files, the compiled plugin).
                    run(platform, scenario)
                    once = run(platform, scenario)
                runs[name] += [{**once, "on": found}] if number else []
            say("warm-up" if number == 0 else f"round {number} of {rounds}: {runs['confined'][-1]['fps']:.0f} frames/s"
                f" confined, {runs['free'][-1]['fps']:.0f} without")
    figures = ("fps", "cpu_ms_per_frame", "first_ms", "cold_ms")
    medians = {name: {figure: statistics.median(once[figure] for once in all_runs) for figure in figures}
               for name, all_runs in runs.items()}
    # Run by run, because what else the machine does changes from round to round.
    pairs = list(zip(runs["confined"], runs["free"]))
    costs = {
        "fps_share": statistics.median(1 - ours["fps"] / free["fps"] for ours, free in pairs),
        "cpu_share": statistics.median(ours["cpu_ms_per_frame"] / free["cpu_ms_per_frame"] - 1 for ours, free in pairs),
        "first_ms": statistics.median(ours["first_ms"] - free["first_ms"] for ours, free in pairs),
        "cold_ms": statistics.median(ours["cold_ms"] - free["cold_ms"] for ours, free in pairs),
    }
    return {"medians": medians, "costs": costs, "runs": runs}


def table(results):
    """The medians as Markdown."""
    titles = {"confined": "confined", "filtered": "confined, and one filter more", "free": "not confined"}
    lines = ["| | frames/s | CPU ms a frame | first prediction, ms | without a pre-warmed worker, ms |", "|---|---|---|---|---|"]
    for name, title in titles.items():
        m = results["medians"][name]
        lines.append(f"| {title} | {m['fps']:.1f} | {m['cpu_ms_per_frame']:.2f} | {m['first_ms']:.1f} | {m['cold_ms']:.1f} |")
    costs = results["costs"]
    lines.append(f"| cost of the confinement | {100 * costs['fps_share']:.1f} % | {100 * costs['cpu_share']:.1f} % |"
                 f" {costs['first_ms']:.1f} | {costs['cold_ms']:.1f} |")
    return "\n".join(lines)
