-- Which recorded outputs of scenarios are in the blob store. A row outlives its scenario, until its blob is removed.
CREATE TABLE recorded_outputs (
    -- The scenario that recorded it, or a replay that reads it.
    scenario_id uuid NOT NULL,
    -- The deployment that recorded it; 0 for those of a replay.
    generation bigint NOT NULL,
    -- Place among the parts of that deployment, from 0.
    number bigint NOT NULL,
    digest text NOT NULL,
    bytes bigint NOT NULL,
    -- JSON.
    part text NOT NULL,
    stored_at bigint NOT NULL,
    -- When it was given up: its blob is to be removed.
    dropped_at bigint,
    PRIMARY KEY (scenario_id, generation, number)
);
CREATE INDEX recorded_outputs_by_digest ON recorded_outputs (digest);
CREATE INDEX recorded_outputs_dropped ON recorded_outputs (dropped_at) WHERE dropped_at IS NOT NULL;
CREATE INDEX recorded_outputs_by_age ON recorded_outputs (stored_at);
