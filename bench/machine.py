"""What the kernel knows about processes and about the machine."""

import os
import pathlib
import platform
import resource
import time

# Past this share of all cores, what is measured is the rest of the machine.
MAX_DISTURBANCE = 0.05
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """Of a process and of all its children that ended and were waited for."""
    # Behind the command's name, which may contain spaces.
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime_to_cstime = fields[11:15]
    return sum(map(int, utime_to_cstime)) / TICK


def status_mb(pid, field):
    """A size from /proc/PID/status, 0 if the process is gone."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), 0.0)


def children_named(pid, name):
    """The live processes of that name below a process; cheap, because it runs beside what it measures."""
    found = []
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [child for child in map(int, children.read_text().split()) if name_of(child) == name]
        except OSError:
            pass  # the thread ended meanwhile
    return found


def name_of(pid):
    """Also of a process that has ended and was not waited for yet; empty if there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def processor():
    """Its name, and how many cores this process may use."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


class Disturbance:
    """The share of the machine that others used during a `with` block; all processes of ours must end within it."""

    def __enter__(self):
        self.begin, self.busy, self.own = time.perf_counter(), busy_seconds(), own_seconds()
        return self

    def __exit__(self, *_):
        others = busy_seconds() - self.busy - (own_seconds() - self.own)
        self.share = max(0.0, others) / ((time.perf_counter() - self.begin) * os.cpu_count())


def busy_seconds():
    """CPU time that the whole machine spent since it was started, on anything."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def own_seconds():
    """CPU time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
