-- The store, shared by any number of processes.
--
-- Times are microseconds since the Unix epoch by the database's clock, as in messages and on SQLite: nothing is converted.
-- Structured values are JSON as text: no statement looks into them, and text is neither parsed when it is stored nor
-- written anew when it is read, as jsonb would be. The state names are those of core's tables; a test compares them.

CREATE TABLE scenarios (
    id uuid PRIMARY KEY,
    idempotency_key text UNIQUE,
    -- Digest of the request, to tell a repetition from a reuse of the key.
    idempotency_request text,
    name text NOT NULL,
    spec text NOT NULL,
    resolved text NOT NULL,
    -- Labels that its runner must have.
    placement text,
    revision bigint NOT NULL DEFAULT 1 CHECK (revision >= 1),
    desired text NOT NULL CHECK (desired IN ('running', 'stopped', 'deleted')),
    state text NOT NULL CHECK (state IN (
        'pending', 'deploying', 'running', 'degraded', 'recovering', 'stopping', 'stopped', 'completed', 'failed')),
    reason text,
    -- Of the newest deployment; 0: never deployed.
    generation bigint NOT NULL DEFAULT 0 CHECK (generation >= 0),
    traceparent text,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    -- A deleted scenario keeps its row, so that its idempotency key stays taken; its results are gone from here on.
    purged_at bigint CHECK (purged_at IS NULL OR desired = 'deleted'),
    CHECK ((idempotency_key IS NULL) = (idempotency_request IS NULL))
);

CREATE INDEX scenarios_by_name ON scenarios (name, id);

-- What the planner has to look at, without reading what has ended long ago.
CREATE INDEX scenarios_not_at_rest ON scenarios (id) WHERE purged_at IS NULL
    AND (state NOT IN ('stopped', 'completed', 'failed') OR desired = 'deleted'
        OR (state = 'stopped' AND desired = 'running'));

-- Which artifacts a scenario names.
CREATE TABLE scenario_artifacts (
    kind text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    scenario_id uuid NOT NULL REFERENCES scenarios (id),
    PRIMARY KEY (kind, name, version, scenario_id)
);

CREATE TABLE scenario_history (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scenario_id uuid NOT NULL REFERENCES scenarios (id),
    at bigint NOT NULL,
    generation bigint NOT NULL,
    from_state text CHECK (from_state IN (
        'pending', 'deploying', 'running', 'degraded', 'recovering', 'stopping', 'stopped', 'completed', 'failed')),
    to_state text NOT NULL CHECK (to_state IN (
        'pending', 'deploying', 'running', 'degraded', 'recovering', 'stopping', 'stopped', 'completed', 'failed')),
    desired text NOT NULL CHECK (desired IN ('running', 'stopped', 'deleted')),
    reason text
);

CREATE INDEX scenario_history_by_scenario ON scenario_history (scenario_id, sequence);

CREATE TABLE outbox_scenario (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    envelope text NOT NULL,
    -- Which scenario it is about.
    scenario_id uuid NOT NULL,
    -- Set for an order to deploy: the worker that is `deployed` once this is published.
    deploys_scenario uuid,
    deploys_generation bigint,
    created_at bigint NOT NULL,
    published_at bigint,
    -- One of several relays is publishing it until then.
    claimed_until bigint NOT NULL DEFAULT 0,
    CHECK ((deploys_scenario IS NULL) = (deploys_generation IS NULL))
);

CREATE INDEX outbox_scenario_unpublished ON outbox_scenario (sequence) WHERE published_at IS NULL;

-- One row a deployment.
CREATE TABLE workers (
    scenario_id uuid NOT NULL REFERENCES scenarios (id),
    generation bigint NOT NULL CHECK (generation >= 1),
    runner_id text NOT NULL,
    incarnation uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'deployed', 'running', 'finished', 'failed', 'stopped', 'lost')),
    reason text,
    -- As of the runner's last heartbeat.
    status text,
    -- The order as given, so that it can be repeated word for word.
    deploy_order text NOT NULL,
    ordered_at bigint NOT NULL,
    stop_ordered boolean NOT NULL DEFAULT false,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (scenario_id, generation)
);

-- At most one live worker a scenario, whatever the code above this believes.
CREATE UNIQUE INDEX workers_one_live ON workers (scenario_id) WHERE state IN ('pending', 'deployed', 'running');

-- One row a life of a runner process.
CREATE TABLE runners (
    incarnation uuid PRIMARY KEY,
    runner_id text NOT NULL,
    sequence bigint NOT NULL,
    -- The last heartbeat.
    status text NOT NULL,
    lost boolean NOT NULL DEFAULT false,
    expires_at bigint NOT NULL,
    seen_at bigint NOT NULL
);

CREATE INDEX runners_by_id ON runners (runner_id, incarnation);

CREATE TABLE leader_lease (
    name text PRIMARY KEY,
    -- 0: nobody has led yet.
    epoch bigint NOT NULL CHECK (epoch >= 0),
    holder uuid NOT NULL,
    expires_at bigint NOT NULL
);

-- There from the beginning, so that the first leaders meet at its lock.
INSERT INTO leader_lease (name, epoch, holder, expires_at)
VALUES ('orchestrator', 0, '00000000-0000-0000-0000-000000000000', 0);

-- One partition a day, made ahead and dropped when it has expired. `captured_at` follows from the identity of a frame, so
-- a frame that is delivered again meets its own row although the key needs it.
CREATE TABLE scenario_results (
    scenario_id uuid NOT NULL,
    pts_us bigint NOT NULL,
    generation bigint NOT NULL,
    frame bigint NOT NULL,
    captured_at bigint NOT NULL,
    prediction text NOT NULL,
    -- A frame without an inference, and the same of the row that this one replaced (null: there was none), for the counts
    -- of the statement that writes it.
    skipped boolean NOT NULL DEFAULT false,
    skipped_before boolean,
    PRIMARY KEY (scenario_id, pts_us, captured_at)
) PARTITION BY RANGE (captured_at);

-- What lies outside of the days there are: very long files, and files that are started again after years.
CREATE TABLE scenario_results_rest PARTITION OF scenario_results DEFAULT;

-- The last frame that arrived, as a row or as a dead letter: where a file resumes.
CREATE TABLE scenario_progress (
    scenario_id uuid PRIMARY KEY REFERENCES scenarios (id),
    pts_us bigint NOT NULL,
    frame bigint NOT NULL,
    -- Rows with an inference and without, since the beginning: retention takes nothing off.
    stored bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0
);

CREATE TABLE consumer_offsets (
    consumer text NOT NULL,
    topic text NOT NULL,
    "partition" integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (consumer, topic, "partition")
);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    topic text NOT NULL,
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    key text NOT NULL,
    payload bytea NOT NULL,
    reason text NOT NULL,
    at bigint NOT NULL,
    -- Its frame, where it says so.
    pts_us bigint
);

CREATE INDEX dead_letters_by_key ON dead_letters (key, pts_us);

CREATE TABLE artifacts (
    -- The order of uploading.
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('plugin', 'model', 'video')),
    name text NOT NULL,
    version text NOT NULL,
    digest text NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    manifest text NOT NULL,
    created_at bigint NOT NULL,
    UNIQUE (kind, name, version)
);

CREATE INDEX artifacts_by_digest ON artifacts (digest);

-- Written by readiness checks, to see that writing works.
CREATE TABLE write_check (
    id smallint PRIMARY KEY CHECK (id = 1),
    at bigint NOT NULL
);
