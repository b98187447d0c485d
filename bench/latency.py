"""From the POST of a scenario to its first readable prediction, in a cluster, step by step.

One API, one orchestrator and one runner on PostgreSQL and Kafka. The steps are read from what is recorded anyway: times in
the database, and times in the envelopes on Kafka; all on one machine, so by one clock. A run with the runner's
spare worker and one without (it is killed before) take turns.
"""

import http.client
import json
import os
import signal
import threading
import time
import urllib.parse

from cluster import Cluster, quantile
from confluent_kafka import Consumer, TopicPartition
from framehook import Failure
from machine import children_named
from pipeline import WORKER, scenario_on

SPARE = "framehook-worke"  # the name of its executable; the kernel keeps 15 characters
WARM_UP = 4
# A spare loads its libraries in a fraction of this, and the planner comes to rest.
PAUSE_SECONDS = 1.0
# Seldom enough not to keep the API busy; the last step is known to this precision.
POLL_SECONDS = 0.003
DEADLINE_SECONDS = 60

STEPS = {
    "answered": "POST answered",
    "init_published": "`init_scenario` published",
    "deploy_written": "deploy order written",
    "deploy_published": "deploy order published",
    "taken": "order taken by the runner",
    "ready": "worker ready: video, model and hooks loaded",
    "first_frame": "first frame given to `results`",
    "readable": "prediction stored and readable",
}
TIMES = """
    SELECT o.envelope::json->>'type' AS type, o.created_at, o.published_at FROM outbox_scenario o
    WHERE o.envelope::json->'data'->>'scenario_id' = $1 ORDER BY o.sequence"""


class Observer:
    """Remembers when the runner's heartbeats first told of a phase of a scenario, and when its first frame was made."""

    def __init__(self, brokers):
        self.seen, self.done = {}, threading.Event()
        self.consumer = Consumer({"bootstrap.servers": brokers, "group.id": "bench", "enable.auto.commit": False})
        topics = self.consumer.list_topics().topics
        self.consumer.assign([TopicPartition(topic, partition, -1) for topic in ("runner_status", "results")
                              for partition in topics[topic].partitions])
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.consumer.close()

    def _watch(self):
        while not self.done.is_set():
            for record in self.consumer.consume(100, 0.1):
                if record.error():
                    continue
                if record.topic() == "runner_status":
                    envelope = json.loads(record.value())
                    for worker in envelope["data"]["workers"]:
                        self._note((worker["scenario_id"], worker["phase"]), envelope)
                elif (key := (record.key().decode(), "frame")) not in self.seen:
                    self._note(key, json.loads(record.value()))

    def _note(self, key, envelope):
        self.seen.setdefault(key, timestamp(envelope["time"]))

    def when(self, scenario_id, what):
        return wait_for(f"news of {scenario_id} ({what})", lambda: self.seen.get((scenario_id, what)))


def timestamp(text):
    """Seconds since the epoch; Python's own parser knows no nanoseconds."""
    import datetime
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")


def wait_for(what, found):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise Failure(f"waited in vain for {what}")
        time.sleep(POLL_SECONDS)
    return answer


class Client:
    """One connection that stays open, as that of a real client."""

    def __init__(self, url):
        self.connection = http.client.HTTPConnection(urllib.parse.urlparse(url).netloc)

    def __call__(self, method, path, value=None):
        body = None if value is None else json.dumps(value)
        self.connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise Failure(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text)


def settle(pid, with_spare):
    """Waits until this process has a pre-warmed worker and is at rest, and takes the spare away from one that shall have none."""
    spare = wait_for("a pre-warmed worker", lambda: children_named(pid, SPARE))[0]
    time.sleep(PAUSE_SECONDS)
    if not with_spare:
        os.kill(spare, signal.SIGKILL)


def run(cluster, client, observer, runner, scenario, with_spare):
    """One scenario up to its first prediction: seconds since the POST."""
    settle(runner.process.pid, with_spare)
    posted = time.time()
    scenario_id = client("POST", "/scenario/init", scenario)["id"]
    at = {"answered": time.time()}
    wait_for("a prediction", lambda: client("GET", f"/prediction/{scenario_id}?limit=1")["items"])
    at["readable"] = time.time()
    client("POST", f"/scenario/{scenario_id}/stop")
    for step, what in (("taken", "starting"), ("ready", "running"), ("first_frame", "frame")):
        at[step] = observer.when(scenario_id, what)
    wait_for("the worker's end", lambda: not children_named(runner.process.pid, WORKER))
    messages = cluster.sql(lambda db: db.fetch(TIMES, scenario_id))
    first = {message["type"]: message for message in reversed(messages)}
    at["init_published"] = first["scenario.changed"]["published_at"] / 1e6
    at["deploy_written"] = first["worker.deploy"]["created_at"] / 1e6
    at["deploy_published"] = first["worker.deploy"]["published_at"] / 1e6
    return {step: at[step] - posted for step in STEPS}


def measure(rounds, say):
    runs = {"spare": [], "cold": []}
    with Cluster() as cluster:
        api, _, runner = (cluster.start(role) for role in ("api", "orchestrator", "runner"))
        scenario, client = scenario_on(api), Client(api.url)
        with Observer(cluster.brokers) as observer:
            for number in range(rounds + WARM_UP):
                for name in runs:
                    once = run(cluster, client, observer, runner, scenario, name == "spare")
                    runs[name] += [once] if number >= WARM_UP else []
                if number % 10 == WARM_UP:
                    say(f"round {number - WARM_UP + 1} of {rounds}: {1e3 * once['readable']:.0f} ms without a pre-warmed worker")
    figures = {name: {step: {"p50_ms": 1e3 * quantile([run[step] for run in all_runs], 0.5),
                             "p99_ms": 1e3 * quantile([run[step] for run in all_runs], 0.99)} for step in STEPS}
               for name, all_runs in runs.items()}
    return {"medians": figures, "runs": runs}


def table(results):
    lines = ["| ms since the POST | with a pre-warmed worker, p50 | p99 | without, p50 | p99 |", "|---|---|---|---|---|"]
    for step, title in STEPS.items():
        spare, cold = (results["medians"][name][step] for name in ("spare", "cold"))
        lines.append(f"| {title} | {spare['p50_ms']:.0f} | {spare['p99_ms']:.0f} |"
                     f" {cold['p50_ms']:.0f} | {cold['p99_ms']:.0f} |")
    return "\n".join(lines)
