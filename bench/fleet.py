"""A large fleet: how long an orchestrator takes to place thousands of scenarios, and how many orders that costs.

One API and one orchestrator on PostgreSQL and Kafka; the runners are simulated by one process of this module, which answers
orders at once and sends a heartbeat twice a second for each runner. All on one machine, so the fleet takes a good part of it.
"""

import collections
import datetime
import json
import os
import statistics
import subprocess
import sys
import threading
import time

RUNNERS, CAPACITY, SCENARIOS = 1_000, 4, 3_600
BEAT_SECONDS = 0.5
DEADLINE_SECONDS = 300
# Those who post at the same time, each over a connection of its own.
POSTERS = 8


# ----- the fleet: a process of its own, which prints what it saw twice a second -----

def play(brokers, runners, capacity):
    from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
    # librdkafka's own queue: a stall of the broker must not end the fleet.
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000,
                         "compression.type": "lz4", "partitioner": "murmur2_random"})
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "bench-fleet", "enable.auto.commit": False})
    partitions = consumer.list_topics("to_deploy").topics["to_deploy"].partitions
    consumer.assign([TopicPartition("to_deploy", partition, OFFSET_END) for partition in partitions])
    fleet = {(runner := Runner(number, capacity)).incarnation: runner for number in range(runners)}
    begin = time.time()
    due = collections.deque((begin + BEAT_SECONDS * number / runners, runner) for number, runner in enumerate(fleet.values()))
    orders = stops = 0
    report_at = begin
    while True:
        changed = set()
        for record in consumer.consume(500, 0.005):
            if record.error():
                continue
            envelope = json.loads(record.value())
            runner = fleet.get(envelope["data"]["incarnation"])
            if runner is None:
                continue
            is_deploy = envelope["type"] == "worker.deploy"
            orders, stops = orders + is_deploy, stops + (not is_deploy)
            runner.take(envelope["data"], is_deploy)
            changed.add(runner)
        now = time.time()
        for runner in changed:
            runner.beat(producer)
        while due[0][0] <= now:
            _, runner = due.popleft()
            runner.beat(producer)
            due.append((now + BEAT_SECONDS, runner))
        producer.poll(0)
        if now >= report_at:
            report_at = now + 0.5
            running = sum(len(runner.workers) for runner in fleet.values())
            print(json.dumps({"running": running, "orders": orders, "stops": stops}), flush=True)


class Runner:
    def __init__(self, number, capacity):
        self.id, self.incarnation = f"sim-{number:05d}", uuid7()
        self.capacity, self.sequence, self.workers = capacity, 0, {}

    def take(self, order, is_deploy):
        scenario, generation = order["scenario_id"], order["generation"]
        known = self.workers.get(scenario, {"generation": 0})
        if is_deploy and known["generation"] < generation:
            zero = {"decode_us": 0, "pre_us": 0, "inference_us": 0, "post_us": 0}
            progress = {"frames": 0, "skipped": 0, "hook_failures": 0, "fps": 25.0, "mean": zero}
            self.workers[scenario] = {"scenario_id": scenario, "generation": generation, "phase": "running", "attempt": 0,
                                      "progress": progress}
        elif not is_deploy and known["generation"] <= generation:
            self.workers.pop(scenario, None)

    def beat(self, producer):
        self.sequence += 1
        time_text = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
        data = {"runner_id": self.id, "incarnation": self.incarnation, "sequence": self.sequence, "capacity": self.capacity,
                "draining": False, "version": "0.1.0", "labels": {}, "workers": list(self.workers.values())}
        envelope = {"id": uuid7(), "version": 1, "time": time_text, "type": "runner.status", "data": data}
        producer.produce("runner_status", json.dumps(envelope).encode(), self.id.encode())


def uuid7():
    value = bytearray(int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10))
    value[6], value[8] = 0x70 | value[6] & 15, 0x80 | value[8] & 63
    text = value.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class Fleet:
    """The process, and what it said last."""

    def __init__(self, brokers):
        command = [sys.executable, __file__, brokers, str(RUNNERS), str(CAPACITY)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.seen = {"running": 0, "orders": 0, "stops": 0}
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def _listen(self):
        for line in self.process.stdout:
            self.seen = json.loads(line)


# ----- the measurement -----

def run(say):
    from cluster import Cluster
    from latency import wait_for
    from machine import cpu_seconds
    from pipeline import scenario_on

    def settled(what, found):
        # Longer than that of a scenario alone.
        begin = time.monotonic()
        while not found():
            if time.monotonic() - begin > DEADLINE_SECONDS:
                return say(f"waited {DEADLINE_SECONDS} s in vain for {what}: {fleet.seen}")
            time.sleep(0.1)

    with Cluster() as cluster:
        api, orchestrator = cluster.start("api"), cluster.start("orchestrator")
        scenario = scenario_on(api)
        with Fleet(cluster.brokers) as fleet:
            heard = "SELECT count(*) FROM runners"
            wait_for("the fleet", lambda: cluster.sql(lambda db: db.fetchval(heard)) == RUNNERS)
            busy = {role: cpu_seconds(role.process.pid) for role in (api, orchestrator)}
            begin = time.monotonic()
            post(api.url, scenario)
            posted = time.monotonic() - begin
            running = "SELECT count(*) FROM scenarios WHERE state = 'running'"
            settled("all to run", lambda: cluster.sql(lambda db: db.fetchval(running)) == SCENARIOS)
            seconds = time.monotonic() - begin
            busy = {role: (cpu_seconds(role.process.pid) - before) / seconds for role, before in busy.items()}
            # What was concluded wrongly shows within a lease.
            time.sleep(12)
            seen = fleet.seen
        again = cluster.sql(lambda db: db.fetchval("SELECT count(*) FROM workers WHERE generation > 1"))
        lost = orchestrator.log.read_text(errors="replace").count("runner written off")
    return {"posted_s": posted, "settled_s": seconds, "orders_per_deployment": seen["orders"] / SCENARIOS,
            "stops": seen["stops"], "runners_lost": lost, "deployed_again": again,
            "api_cores": busy[api], "orchestrator_cores": busy[orchestrator]}


def post(url, scenario):
    from latency import Client

    def some():
        client = Client(url)
        for _ in range(SCENARIOS // POSTERS):
            client("POST", "/scenario/init", scenario)
    threads = [threading.Thread(target=some) for _ in range(POSTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(rounds, say):
    runs = []
    for number in range(1, rounds + 1):
        runs.append(run(say))
        once = runs[-1]
        say(f"round {number} of {rounds}: {once['settled_s']:.0f} s, {once['orders_per_deployment']:.2f} orders a deployment")
    medians = {key: statistics.median(once[key] for once in runs) for key in runs[0]}
    return {"runners": RUNNERS, "scenarios": SCENARIOS, "medians": medians, "runs": runs}


def table(results):
    titles = {"posted_s": "all are posted, s", "settled_s": "all run, s", "orders_per_deployment": "orders a deployment",
              "stops": "stop orders", "runners_lost": "runners written off", "deployed_again": "deployed again",
              "api_cores": "cores used by the API", "orchestrator_cores": "cores used by the orchestrator"}
    rows = [f"| {title} | {results['medians'][key]:.3g} |" for key, title in titles.items()]
    return "\n".join([f"| {RUNNERS} runners, {SCENARIOS} scenarios | |", "|---|---|", *rows])


if __name__ == "__main__":
    play(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
