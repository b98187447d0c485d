-- What scenarios log: the newest lines of each. They go with their scenario also where a process of an earlier release,
-- which does not know of them, removes it.
CREATE TABLE scenario_logs (
    scenario_id uuid NOT NULL REFERENCES scenarios (id) ON DELETE CASCADE,
    -- Place among all lines of the scenario, from 1.
    sequence bigint NOT NULL,
    -- Bytes of all lines up to this one, those that are gone included.
    bytes bigint NOT NULL,
    -- The deployment that logged it.
    generation bigint NOT NULL,
    -- Place among the lines of that deployment, from 0.
    number bigint NOT NULL,
    -- JSON.
    line text NOT NULL,
    PRIMARY KEY (scenario_id, sequence)
);
