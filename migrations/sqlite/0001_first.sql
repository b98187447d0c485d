-- The store and the embedded bus of one data folder.
--
-- Times are microseconds since the Unix epoch, identities are UUIDs as text (version 7: their order is that
-- of creation), structured values are JSON as text. The state names are those of core's tables; a test
-- compares them.

CREATE TABLE scenarios (
    id TEXT PRIMARY KEY NOT NULL,
    idempotency_key TEXT UNIQUE,
    -- Digest of the request, to tell a repetition from a reuse of the key.
    idempotency_request TEXT,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    resolved TEXT NOT NULL,
    revision INTEGER NOT NULL DEFAULT 1 CHECK (revision >= 1),
    desired TEXT NOT NULL CHECK (desired IN ('running', 'stopped', 'deleted')),
    state TEXT NOT NULL CHECK (state IN (
        'pending', 'deploying', 'running', 'degraded', 'recovering', 'stopping', 'stopped', 'completed', 'failed')),
    reason TEXT,
    -- Of the newest deployment; 0: never deployed.
    generation INTEGER NOT NULL DEFAULT 0 CHECK (generation >= 0),
    traceparent TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    -- A deleted scenario keeps its row, so that its idempotency key stays taken; its results are gone from here on.
    purged_at INTEGER CHECK (purged_at IS NULL OR desired = 'deleted'),
    CHECK ((idempotency_key IS NULL) = (idempotency_request IS NULL))
) STRICT;

CREATE INDEX scenarios_by_name ON scenarios (name, id);

-- What the planner has to look at, without reading what has ended long ago.
CREATE INDEX scenarios_not_at_rest ON scenarios (id) WHERE purged_at IS NULL
    AND (state NOT IN ('stopped', 'completed', 'failed') OR desired = 'deleted'
        OR (state = 'stopped' AND desired = 'running'));

-- Which artifacts a scenario names.
CREATE TABLE scenario_artifacts (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    scenario_id TEXT NOT NULL REFERENCES scenarios (id),
    PRIMARY KEY (kind, name, version, scenario_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE scenario_history (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    scenario_id TEXT NOT NULL REFERENCES scenarios (id),
    at INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    from_state TEXT CHECK (from_state IN (
        'pending', 'deploying', 'running', 'degraded', 'recovering', 'stopping', 'stopped', 'completed', 'failed')),
    to_state TEXT NOT NULL CHECK (to_state IN (
        'pending', 'deploying', 'running', 'degraded', 'recovering', 'stopping', 'stopped', 'completed', 'failed')),
    desired TEXT NOT NULL CHECK (desired IN ('running', 'stopped', 'deleted')),
    reason TEXT
) STRICT;

CREATE INDEX scenario_history_by_scenario ON scenario_history (scenario_id, sequence);

CREATE TABLE outbox_scenario (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    envelope TEXT NOT NULL,
    -- Set for an order to deploy: the worker that is `deployed` once this is published.
    deploys_scenario TEXT,
    deploys_generation INTEGER,
    created_at INTEGER NOT NULL,
    published_at INTEGER,
    CHECK ((deploys_scenario IS NULL) = (deploys_generation IS NULL))
) STRICT;

CREATE INDEX outbox_scenario_unpublished ON outbox_scenario (sequence) WHERE published_at IS NULL;

-- One row a deployment.
CREATE TABLE workers (
    scenario_id TEXT NOT NULL REFERENCES scenarios (id),
    generation INTEGER NOT NULL CHECK (generation >= 1),
    runner_id TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'deployed', 'running', 'finished', 'failed', 'stopped', 'lost')),
    reason TEXT,
    -- As of the runner's last heartbeat.
    status TEXT,
    -- The order as given, so that it can be repeated word for word.
    deploy_order TEXT NOT NULL,
    ordered_at INTEGER NOT NULL,
    stop_ordered INTEGER NOT NULL DEFAULT 0 CHECK (stop_ordered IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (scenario_id, generation)
) STRICT;

-- At most one live worker a scenario, whatever the code above this believes.
CREATE UNIQUE INDEX workers_one_live ON workers (scenario_id) WHERE state IN ('pending', 'deployed', 'running');

-- One row a life of a runner process.
CREATE TABLE runners (
    incarnation TEXT PRIMARY KEY NOT NULL,
    runner_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    -- The last heartbeat.
    status TEXT NOT NULL,
    lost INTEGER NOT NULL DEFAULT 0 CHECK (lost IN (0, 1)),
    expires_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;

CREATE INDEX runners_by_id ON runners (runner_id, incarnation);

CREATE TABLE leader_lease (
    name TEXT PRIMARY KEY NOT NULL,
    epoch INTEGER NOT NULL CHECK (epoch >= 1),
    holder TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE scenario_results (
    scenario_id TEXT NOT NULL,
    pts_us INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    frame INTEGER NOT NULL,
    captured_at INTEGER NOT NULL,
    prediction TEXT NOT NULL,
    PRIMARY KEY (scenario_id, pts_us)
) STRICT;

-- The last stored frame: where a file resumes.
CREATE TABLE scenario_progress (
    scenario_id TEXT PRIMARY KEY NOT NULL REFERENCES scenarios (id),
    pts_us INTEGER NOT NULL,
    frame INTEGER NOT NULL
) STRICT;

CREATE TABLE consumer_offsets (
    consumer TEXT NOT NULL,
    topic TEXT NOT NULL,
    "partition" INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, "partition")
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL,
    topic TEXT NOT NULL,
    "partition" INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    key TEXT NOT NULL,
    payload BLOB NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE artifacts (
    -- The order of uploading.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('plugin', 'model', 'video')),
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    manifest TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (kind, name, version)
) STRICT;

CREATE INDEX artifacts_by_digest ON artifacts (digest);

-- The embedded bus: one partition a topic.
CREATE TABLE bus_topics (
    topic TEXT PRIMARY KEY NOT NULL,
    next_offset INTEGER NOT NULL
) STRICT;

CREATE TABLE bus_log (
    topic TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    key TEXT NOT NULL,
    payload BLOB NOT NULL,
    published_at INTEGER NOT NULL,
    PRIMARY KEY (topic, "offset")
) STRICT;

-- Written by readiness checks, to see that writing works.
CREATE TABLE write_check (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;
