-- What is left of a deleted scenario once its rows are gone, for a day: deleting twice is the same as once, and its
-- idempotency key stays taken.
CREATE TABLE deleted_scenarios (
    id uuid PRIMARY KEY,
    idempotency_key text UNIQUE,
    idempotency_request text,
    deleted_at bigint NOT NULL,
    CHECK ((idempotency_key IS NULL) = (idempotency_request IS NULL))
);

-- Its messages go with it.
CREATE INDEX outbox_scenario_by_scenario ON outbox_scenario (scenario_id);

-- Earlier releases kept the row of a purged scenario, and marked it; housekeeping takes these away.
CREATE INDEX scenarios_purged ON scenarios (id) WHERE purged_at IS NOT NULL;
