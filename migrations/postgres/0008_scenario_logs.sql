-- What scenarios log: the newest lines of each.
CREATE TABLE scenario_logs (
    scenario_id uuid NOT NULL REFERENCES scenarios (id),
    -- Place among all lines of the scenario, from 1.
    sequence bigint NOT NULL,
    -- Bytes of all lines up to this one, those that are gone included.
    bytes bigint NOT NULL,
    -- The deployment that logged it, and its place among the lines of that.
    generation bigint NOT NULL,
    number bigint NOT NULL,
    -- JSON.
    line text NOT NULL,
    PRIMARY KEY (scenario_id, sequence)
);
