"""Two endpoints of Framehook's API as one would write them in Python, for bench/rest.py: FastAPI, asyncpg, uvloop, orjson.

    DATABASE_URL=postgres://... python rest_fastapi.py PORT

On the same tables, with the same answers. It is written to be fast, and does less where that is much simpler: nothing is
checked about a plugin's configuration or a model's input, there are no idempotency keys, errors have no documents.
"""

import contextlib
import os
import sys
import time
import uuid
from typing import Annotated, Any

import asyncpg
import orjson
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

CONNECTIONS = 16  # as many as Framehook's
CREATED = ("INSERT INTO scenarios (id, name, spec, resolved, desired, state, created_at, updated_at)"
           " VALUES ($1, $2, $3, $4, 'running', 'pending', $5, $5)")
NAMED = "INSERT INTO scenario_artifacts (kind, name, version, scenario_id) VALUES ($1, $2, $3, $4)"
LINE = ("INSERT INTO scenario_history (scenario_id, at, generation, to_state, desired)"
        " VALUES ($1, $2, 0, 'pending', 'running')")
OUTBOX = "INSERT INTO outbox_scenario (id, scenario_id, envelope, created_at) VALUES ($1, $2, $3, $4)"
ARTIFACT = "SELECT name, version, digest, manifest FROM artifacts WHERE kind = $1 AND name = $2 AND version = $3"
EXISTS = "SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted'"
RANGE = ("SELECT pts_us, prediction FROM scenario_results WHERE scenario_id = $1 AND pts_us > $2"
         " ORDER BY pts_us LIMIT $3")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Source(Strict):
    video: str


class PluginUse(Strict):
    use: str
    config: dict[str, Any] = {}


class Plugins(Strict):
    pre: Annotated[list[PluginUse], Field(max_length=16)] = []
    post: Annotated[list[PluginUse], Field(max_length=16)] = []


class Scenario(Strict):
    name: Annotated[str, Field(max_length=200)] = ""
    source: Source
    model: str
    plugins: Plugins = Plugins()
    labels: Annotated[dict[str, str], Field(max_length=64)] = {}


@contextlib.asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS) as app.state.db:
        yield

app = FastAPI(lifespan=lifespan)


def answer(value):
    return Response(orjson.dumps(value), media_type="application/json")


@app.post("/scenario/init")
async def init(scenario: Scenario):
    async with app.state.db.acquire() as db:
        artifacts = [await find(db, "video", scenario.source.video), await find(db, "model", scenario.model)]
        hooks = {stage: [(use, await find(db, "plugin", use.use)) for use in getattr(scenario.plugins, stage)]
                 for stage in ("pre", "post")}
        artifacts += [plugin for uses in hooks.values() for _, plugin in uses]
        video, model = ({name: artifact[name] for name in ("name", "version", "digest")} for artifact in artifacts[:2])
        resolved = {"source": {"video": video}, "model": model,
                    **{stage: [{"name": plugin["name"], "version": plugin["version"], "digest": plugin["digest"],
                                "config": use.config} for use, plugin in uses] for stage, uses in hooks.items()}}
        scenario_id, now = uuid.uuid4(), time.time_ns() // 1000
        spec = scenario.model_dump()
        message = {"id": uuid.uuid4(), "version": 1, "time": "2026-01-01T00:00:00Z", "type": "scenario.changed",
                   "data": {"scenario_id": scenario_id}}
        async with db.transaction():
            await db.execute(CREATED, scenario_id, scenario.name, dumps(spec), dumps(resolved), now)
            await db.executemany(NAMED, [(artifact["kind"], artifact["name"], artifact["version"], scenario_id)
                                         for artifact in artifacts])
            await db.execute(LINE, scenario_id, now)
            await db.execute(OUTBOX, message["id"], scenario_id, dumps(message), now)
    return answer({"id": scenario_id, "name": scenario.name, "spec": spec, "resolved": resolved, "state": "pending",
                   "desired": "running", "created_at": now})


async def find(db, kind, reference):
    name, _, version = reference.partition("@")
    row = await db.fetchrow(ARTIFACT, kind, name, version)
    if row is None:
        raise HTTPException(422, f"there is no {kind} `{reference}`")
    # Framehook reads the manifest to complete the model's input.
    return {**row, "kind": kind, "manifest": orjson.loads(row["manifest"])}


@app.get("/prediction/{scenario_id}")
async def predictions(scenario_id: uuid.UUID, cursor: int = -2**63, label: str | None = None,
                      min_score: Annotated[float | None, Query(ge=0, le=1)] = None,
                      limit: Annotated[int, Query(ge=1, le=1000)] = 100):
    async with app.state.db.acquire() as db:
        if await db.fetchval(EXISTS, scenario_id) is None:
            raise HTTPException(404, "there is no such scenario")
        rows = await db.fetch(RANGE, scenario_id, cursor, limit + 1)
    items = [orjson.loads(row["prediction"]) for row in rows[:limit]]
    if label is not None or min_score is not None:
        for item in items:
            item["detections"] = [d for d in item["detections"] if (label is None or d.get("label") == label)
                                  and (min_score is None or d["score"] >= min_score)]
        items = [item for item in items if item["detections"]]
    return answer({"items": items, "next_cursor": str(rows[limit - 1]["pts_us"]) if len(rows) > limit else None})


def dumps(value):
    return orjson.dumps(value).decode()


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
                log_level="warning")
