"""The results inbox, from a filled topic into the database, against a bare UNNEST insert loop on the same server.

`framehook api` finds a topic with predictions of several scenarios and stores them; the loop inserts rows of the same
size into a table of the same shape, in batches of the same length, one transaction each, and does nothing else.
"""

import json
import statistics
import time
import uuid

from cluster import Cluster
from confluent_kafka import Producer
from framehook import Failure
from pipeline import scenario_on

SCENARIOS = 8
ROWS = 60_000
BATCH = 500  # of the inbox's transactions too
FRAME_US = 40_000
STALL_SECONDS = 60
COLUMNS = "scenario_id, pts_us, generation, frame, captured_at, prediction"
# The same columns, key and partitions.
MAKE_BARE = """
    CREATE TABLE bare (LIKE scenario_results INCLUDING ALL) PARTITION BY RANGE (captured_at);
    CREATE TABLE bare_all PARTITION OF bare DEFAULT"""
INSERT_BARE = f"""
    INSERT INTO bare ({COLUMNS})
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[])"""


def sample(cluster):
    """Predictions of a real scenario, and scenarios that wait for ever."""
    api = cluster.start("api")
    orchestrator, runner = cluster.start("orchestrator"), cluster.start("runner")
    scenario = scenario_on(api)
    scenario_id = api.json("POST", "/scenario/init", scenario)["id"]
    api.follow(scenario_id)
    predictions = api.predictions(scenario_id, cluster.folder / "predictions.ndjson")
    cluster.stop(runner)
    cluster.stop(orchestrator)
    scenarios = [api.json("POST", "/scenario/init", scenario)["id"] for _ in range(SCENARIOS)]
    cluster.stop(api)
    return predictions, scenarios


def rows_of(predictions, scenarios, number):
    """ROWS predictions of which none was there before, in the order in which eight streams would deliver them."""
    from datetime import datetime, timedelta, timezone
    start = datetime.now(timezone.utc).replace(microsecond=0)
    each = ROWS // len(scenarios)
    for index in range(each):
        frame = number * each + index
        for scenario_id in scenarios:
            captured = start + timedelta(microseconds=frame * FRAME_US)
            yield {**predictions[index % len(predictions)], "scenario_id": scenario_id, "pts_us": frame * FRAME_US,
                   "frame": frame, "captured_at": captured.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def fill(cluster, rows):
    producer = Producer({"bootstrap.servers": cluster.brokers, "compression.type": "lz4", "enable.idempotence": True,
                         "partitioner": "murmur2_random", "queue.buffering.max.messages": 2 * ROWS})
    for row in rows:
        envelope = {"id": str(uuid.uuid4()), "version": 1, "time": row["captured_at"], "type": "frame.result", "data": row}
        producer.produce("results", json.dumps(envelope, separators=(",", ":")), row["scenario_id"])
        producer.poll(0)
    if producer.flush(STALL_SECONDS):
        raise Failure("the topic could not be filled")


def stored(api):
    with api.request("GET", "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("framehook_inbox_predictions_total ")))


def drain(cluster):
    """Rows a second, from the first batch seen to the last."""
    api = cluster.start("api")
    first, last_change, before = None, time.perf_counter(), 0
    while before < ROWS:
        count, now = stored(api), time.perf_counter()
        if count != before:
            first = first or (count, now)
            before, last_change = count, now
        elif now - last_change > STALL_SECONDS:
            raise Failure(f"the inbox stopped after {count} of {ROWS} rows; see {api.log}")
        time.sleep(0.02)
    cluster.stop(api)
    return (before - first[0]) / (last_change - first[1])


async def insert_bare(db, rows):
    """Rows a second of the loop; what is sent is ready before."""
    batches = []
    for begin in range(0, len(rows), BATCH):
        part = rows[begin:begin + BATCH]
        batches.append(([uuid.UUID(row["scenario_id"]) for row in part], [row["pts_us"] for row in part],
                        [row["generation"] for row in part], [row["frame"] for row in part],
                        [int(row["pts_us"]) for row in part], [json.dumps(row, separators=(",", ":")) for row in part]))
    statement = await db.prepare(INSERT_BARE)
    begin = time.perf_counter()
    for batch in batches:
        await statement.fetch(*batch)
    return len(rows) / (time.perf_counter() - begin)


def measure(rounds, say):
    runs = []
    with Cluster() as cluster:
        say("making predictions to begin with")
        predictions, scenarios = sample(cluster)
        cluster.sql(lambda db: db.execute(MAKE_BARE))
        for number in range(rounds + 1):
            rows = list(rows_of(predictions, scenarios, number))
            fill(cluster, rows)
            once = {"inbox": drain(cluster), "bare": cluster.sql(lambda db: insert_bare(db, rows))}
            once["ratio"] = once["inbox"] / once["bare"]
            say(f"{'warm-up' if number == 0 else f'round {number} of {rounds}'}:"
                f" {once['inbox']:.0f} and {once['bare']:.0f} rows/s")
            runs += [once] if number else []
    return {"rows": ROWS, "medians": {name: statistics.median(run[name] for run in runs) for name in runs[0]}, "runs": runs}


def table(results):
    middle = results["medians"]
    return "\n".join(["| | rows/s | of the loop |", "|---|---|---|",
                      f"| bare UNNEST loop | {middle['bare']:.0f} | 1.00 |",
                      f"| inbox of `framehook api` | {middle['inbox']:.0f} | {middle['ratio']:.2f} |"])
