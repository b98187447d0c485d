"""Measures the whole platform against its parts and prints a table: `make bench`.

Three ways to get detections from one clip, taken in turns so that a slow minute hits all of them:
the model alone, a plain Python loop, and `framehook up` through its REST API. Medians of the runs
go to standard output as Markdown and, with every single run, to bench/results.json.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform as machine
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

BENCH = pathlib.Path(__file__).resolve().parent
ROOT = BENCH.parent
sys.path.insert(0, str(ROOT / "scripts"))
import framehook  # noqa: E402
from framehook import Failure, Platform  # noqa: E402

CLIP, MODEL = ROOT / "assets" / "demo1.mp4", ROOT / "assets" / "street.onnx"
# As in plain.py.
YOLO_CONFIG = {"labels": ["person", "car", "truck"], "min_score": 0.3, "iou": 0.5}
WORKER_NAME = "framehook-worke"  # the kernel keeps 15 characters
# Seldom enough not to slow down what is measured; a peak is read many times before a worker ends,
# and the length of a whole run is known to this precision.
SAMPLE_SECONDS = 0.1
# Past this share of all cores, what is measured is the rest of the machine.
MAX_DISTURBANCE = 0.05
TICK = os.sysconf("SC_CLK_TCK")


# --- the three contestants ----------------------------------------------------------------------

def run_model():
    """The model and nothing else, in the worker's own session."""
    begin = time.perf_counter()
    figures = json.loads(framehook.worker("bench-inference", MODEL, "--frames", "500"))
    return {"fps": figures["fps"], "seconds": time.perf_counter() - begin,
            "cpu_ms_per_frame": figures["cpu_ms_per_frame"], "peak_rss_mb": figures["peak_rss_mb"]}


def run_plain(python):
    """bench/plain.py."""
    begin = time.perf_counter()
    command = [python, BENCH / "plain.py", CLIP, MODEL]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise Failure("bench/plain.py failed; the reason is above")
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


# --- what the kernel knows ----------------------------------------------------------------------

def stat_fields(pid):
    """/proc/PID/stat behind the command's name, which may contain spaces."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid):
    """Of a process and of all its children that ended and were waited for."""
    utime_to_cstime = stat_fields(pid)[11:15]
    return sum(map(int, utime_to_cstime)) / TICK


def workers_of(pid):
    """The live worker processes below a process; cheap, because it runs beside what it measures."""
    found = []
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [child for child in map(int, children.read_text().split()) if is_worker(child)]
        except OSError:
            pass  # the thread ended meanwhile
    return found


def is_worker(pid):
    """Also true of one that has ended and was not waited for yet."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == WORKER_NAME
    except OSError:
        return False


def wait_for_workers(pid, seconds=10):
    """Until the last worker has ended, so that its CPU time is counted."""
    deadline = time.monotonic() + seconds
    while workers_of(pid):
        if time.monotonic() > deadline:
            raise Failure(f"a worker still runs {seconds} s after its scenario completed")
        time.sleep(SAMPLE_SECONDS)


def status_mb(pid, field):
    """A size from /proc/PID/status, 0 if the process is gone."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), 0.0)


def busy_seconds():
    """CPU time that the whole machine spent since it was started, on anything."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def own_seconds():
    """CPU time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class PeakOfWorkers:
    """Watches the memory of a platform's workers during a `with` block."""

    def __init__(self, pid):
        self.pid, self.mb = pid, 0.0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self.done.wait(SAMPLE_SECONDS):
            self.mb = max([self.mb, *(status_mb(worker, "VmHWM") for worker in workers_of(self.pid))])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


# --- the measurement ----------------------------------------------------------------------------

def measure(rounds, python):
    """All runs of all three, in turns."""
    runs = {"model": [], "plain": [], "platform": []}
    with tempfile.TemporaryDirectory(prefix="framehook-bench-") as folder:
        with Platform(pathlib.Path(folder)) as platform:
            scenario = {
                "name": "bench",
                "source": {"video": platform.upload("video", CLIP, name="demo1", version="1")},
                "model": platform.upload("model", MODEL, name="street", version="1"),
                "plugins": {"post": [{"use": platform.upload_plugin("yolo"), "config": YOLO_CONFIG}]},
            }
            for number in range(rounds + 1):
                # The first round fills caches (files, the compiled plugin) and is not counted.
                print(f"    {'warm-up' if number == 0 else f'round {number} of {rounds}'}", flush=True)
                once = {"model": run_model(), "plain": run_plain(python),
                        "platform": run_platform(platform, scenario)}
                for name, figures in once.items():
                    runs[name] += [figures] if number else []
    return runs


def medians(runs):
    """For each contestant, the median of each figure."""
    names = ("fps", "seconds", "cpu_ms_per_frame", "peak_rss_mb")
    return {who: {name: statistics.median(run[name] for run in all_runs) for name in names}
            for who, all_runs in runs.items()}


def table(middle):
    """The medians as Markdown."""
    titles = {"model": "model alone (a)", "plain": "plain Python (b)", "platform": "Framehook, whole platform"}
    lines = ["| | frames/s | of (a) | of (b) | whole run, s | CPU ms a frame | peak memory, MiB |",
             "|---|---|---|---|---|---|---|"]
    for who, title in titles.items():
        m = middle[who]
        lines.append(f"| {title} | {m['fps']:.0f} | {m['fps'] / middle['model']['fps']:.2f} |"
                     f" {m['fps'] / middle['plain']['fps']:.2f} | {m['seconds']:.2f} |"
                     f" {m['cpu_ms_per_frame']:.2f} | {m['peak_rss_mb']:.0f} |")
    return "\n".join(lines)


def processor():
    """Its name, and how many cores this process may use."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), machine.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    made = subprocess.run([ROOT / "scripts" / "venv.sh", "bench", BENCH / "requirements.txt"],
                          stdout=subprocess.PIPE, text=True)
    if made.returncode != 0:
        sys.exit("bench: the Python environment could not be made; the reason is above")
    begin, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    try:
        runs = measure(rounds, made.stdout.strip())
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    # The platform has ended by now, so everything of ours is counted.
    others = busy_seconds() - busy - (own_seconds() - own)
    disturbance = max(0.0, others) / ((time.perf_counter() - begin) * os.cpu_count())

    middle = medians(runs)
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    document = {"date": today, "processor": processor(), "rounds": rounds,
                "disturbance": round(disturbance, 3), "medians": middle, "runs": runs}
    results = BENCH / "results.json"
    results.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nMedians of {rounds} runs, {today}, {processor()}:\n\n{table(middle)}\n\n"
          f"Other processes used {100 * disturbance:.0f} % of the machine meanwhile."
          f" Every run: {framehook.shown(results)}")
    if disturbance > MAX_DISTURBANCE:
        print("That is too much for these figures to mean anything; measure again on a quiet machine.")


if __name__ == "__main__":
    main()
