"""Two endpoints of the API under load, against the same two written in FastAPI and asyncpg.

One process of each, in turns, on the same database; the load comes from wrk, which uses little of the processor itself. No
orchestrator runs, so what is posted only waits; Framehook's process relays it to Kafka beside.
"""

import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

from cluster import START_SECONDS, Cluster, free_port
from framehook import Failure
from latency import Client
from machine import cpu_seconds
from pipeline import scenario_on

BENCH = pathlib.Path(__file__).resolve().parent
SECONDS, CONNECTIONS = 8, 16
ENDPOINTS = {"get": "`GET /prediction/{id}?limit=100`", "post": "`POST /scenario/init`"}
# What FastAPI's process put there is for nobody: the next relay must not find it.
FORGET = "UPDATE outbox_scenario SET published_at = created_at WHERE published_at IS NULL"
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class FastApi:
    """bench/rest_fastapi.py as a process."""

    def __init__(self, cluster):
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", cluster.folder / "fastapi.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, BENCH / "rest_fastapi.py", str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "DATABASE_URL": cluster.database})
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return Client(self.url).connection.connect()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Failure(f"bench/rest_fastapi.py did not start:\n{self.log.read_text()}") from None
                time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


def load(server, path, script):
    """Requests a second, latencies, and the CPU time of a request; every answer must be good."""
    before = cpu_seconds(server.process.pid)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "10s", "--latency", "-s", script, server.url + path]
    wrk = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    cpu = cpu_seconds(server.process.pid) - before
    said = wrk.stdout
    requests = re.search(r"(\d+) requests in", said)
    share = {percent: float(number) * MILLISECONDS[unit]
             for percent, number, unit in re.findall(r"^ +(50|99)% +([\d.]+)(us|ms|s) *$", said, re.MULTILINE)}
    if wrk.returncode != 0 or not requests or len(share) < 2 or "Non-2xx" in said or "Socket errors" in said:
        raise Failure(f"the load went wrong at {path} of {server.url}:\n{said}")
    return {"rate": float(re.search(r"Requests/sec: +([\d.]+)", said)[1]), "p50_ms": share["50"], "p99_ms": share["99"],
            "cpu_ms": 1e3 * cpu / int(requests[1])}


def scripts(folder, scenario):
    """What wrk sends: Lua."""
    import json
    get, post = folder / "get.lua", folder / "post.lua"
    get.write_text('wrk.method = "GET"\n')
    post.write_text('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
                    f"wrk.body = [==[{json.dumps(scenario)}]==]\n")
    return {"get": get, "post": post}


def measure(rounds, say):
    if not shutil.which("wrk"):
        raise Failure("wrk is missing; run scripts/setup.sh --bench")
    runs = {f"{who}_{endpoint}": [] for who in ("framehook", "fastapi") for endpoint in ENDPOINTS}
    with Cluster() as cluster:
        api, orchestrator, runner = (cluster.start(role) for role in ("api", "orchestrator", "runner"))
        scenario = scenario_on(api)
        scenario_id = api.json("POST", "/scenario/init", scenario)["id"]
        if api.follow(scenario_id)["state"] != "completed":
            raise Failure(f"the scenario did not complete; see {api.log}")
        paths = {"get": f"/prediction/{scenario_id}?limit=100", "post": "/scenario/init"}
        lua = scripts(cluster.folder, scenario)
        for role in (runner, orchestrator, api):
            cluster.stop(role)
        for number in range(rounds + 1):
            for who in ("framehook", "fastapi"):
                server = cluster.start("api") if who == "framehook" else FastApi(cluster)
                try:
                    # What either does once after its start is not the load: connections, the plugin's word about its configuration.
                    client = Client(server.url)
                    client("POST", paths["post"], scenario)
                    client("GET", paths["get"])
                    once = {endpoint: load(server, paths[endpoint], lua[endpoint]) for endpoint in ENDPOINTS}
                finally:
                    cluster.stop(server) if who == "framehook" else server.stop()
                cluster.sql(lambda db: db.execute(FORGET))
                say(f"{'warm-up' if number == 0 else f'round {number} of {rounds}'}, {who}:"
                    f" {once['get']['rate']:.0f} and {once['post']['rate']:.0f} requests/s")
                for endpoint, figures in once.items():
                    runs[f"{who}_{endpoint}"] += [figures] if number else []
    return {"medians": {name: {figure: statistics.median(run[figure] for run in all_runs) for figure in all_runs[0]}
                        for name, all_runs in runs.items()}, "runs": runs}


def table(results):
    lines = ["| | requests/s | of FastAPI | p50, ms | p99, ms | CPU ms a request |", "|---|---|---|---|---|---|"]
    for endpoint, title in ENDPOINTS.items():
        for who, name in (("fastapi", "FastAPI"), ("framehook", "Framehook")):
            m, other = results["medians"][f"{who}_{endpoint}"], results["medians"][f"fastapi_{endpoint}"]
            lines.append(f"| {title}, {name} | {m['rate']:.0f} | {m['rate'] / other['rate']:.1f} | {m['p50_ms']:.1f} |"
                         f" {m['p99_ms']:.1f} | {m['cpu_ms']:.2f} |")
    return "\n".join(lines)
