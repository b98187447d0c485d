-- What scenarios log: the newest lines of each. They go with their scenario also where a process of an earlier release,
-- which does not know of them, removes it.
CREATE TABLE scenario_logs (
    scenario_id TEXT NOT NULL REFERENCES scenarios (id) ON DELETE CASCADE,
    -- Place among all lines of the scenario, from 1.
    sequence INTEGER NOT NULL,
    -- Bytes of all lines up to this one, those that are gone included.
    bytes INTEGER NOT NULL,
    -- The deployment that logged it.
    generation INTEGER NOT NULL,
    -- Place among the lines of that deployment, from 0.
    number INTEGER NOT NULL,
    -- JSON.
    line TEXT NOT NULL,
    PRIMARY KEY (scenario_id, sequence)
) STRICT, WITHOUT ROWID;
