-- What scenarios log: the newest lines of each.
CREATE TABLE scenario_logs (
    scenario_id TEXT NOT NULL REFERENCES scenarios (id),
    -- Place among all lines of the scenario, from 1.
    sequence INTEGER NOT NULL,
    -- Bytes of all lines up to this one, those that are gone included.
    bytes INTEGER NOT NULL,
    -- The deployment that logged it, and its place among the lines of that.
    generation INTEGER NOT NULL,
    number INTEGER NOT NULL,
    -- JSON.
    line TEXT NOT NULL,
    PRIMARY KEY (scenario_id, sequence)
) STRICT, WITHOUT ROWID;
