"""The outbox relay: how fast messages go from the database to Kafka.

The outbox is filled while nobody relays; then `framehook api` starts and publishes it. Both ends are the database's times:
from the first message marked as published to the last.
"""

import statistics

from cluster import Cluster
from latency import wait_for

MESSAGES = 50_000
FILL = """
    INSERT INTO outbox_scenario (id, scenario_id, envelope, created_at)
    SELECT id, scenario, json_build_object('id', id, 'version', 1, 'time', '2026-01-01T00:00:00Z', 'type', 'scenario.changed',
                                 'data', json_build_object('scenario_id', scenario))::text, 0
    FROM (SELECT gen_random_uuid() AS id, gen_random_uuid() AS scenario FROM generate_series(1, $1::int)) messages"""
LEFT = "SELECT count(*) FROM outbox_scenario WHERE published_at IS NULL"
# The first batch is marked at the first time, so what follows it was published since.
RATE = """
    SELECT (count(*) FILTER (WHERE published_at > first)) / ((max(published_at) - min(published_at)) / 1e6)
    FROM outbox_scenario, (SELECT min(published_at) AS first FROM outbox_scenario) f"""


def measure(rounds, say):
    runs = []
    with Cluster() as cluster:
        cluster.stop(cluster.start("api"))  # makes the tables and topics
        for number in range(rounds + 1):
            cluster.sql(lambda db: db.execute("TRUNCATE outbox_scenario"))
            cluster.sql(lambda db: db.execute(FILL, MESSAGES))
            api = cluster.start("api")
            wait_for("the outbox to be empty", lambda: cluster.sql(lambda db: db.fetchval(LEFT)) == 0)
            rate = float(cluster.sql(lambda db: db.fetchval(RATE)))
            cluster.stop(api)
            say(f"{'warm-up' if number == 0 else f'round {number} of {rounds}'}: {rate:.0f} messages/s")
            runs += [{"rate": rate}] if number else []
    return {"messages": MESSAGES, "medians": {"rate": statistics.median(run["rate"] for run in runs)}, "runs": runs}


def table(results):
    return "\n".join(["| | messages/s |", "|---|---|", f"| outbox relay of `framehook api` | {results['medians']['rate']:.0f} |"])
