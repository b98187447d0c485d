-- What scenarios' shadows found. Both tables go with their scenario also where a process of an earlier release, which
-- does not know of them, removes it.

-- What was told last, of the newest deployment that told something.
CREATE TABLE shadows (
    scenario_id TEXT NOT NULL PRIMARY KEY REFERENCES scenarios (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    -- Frames that the summary counts. Within a deployment it only grows.
    frames INTEGER NOT NULL,
    -- JSON.
    summary TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Frames on which a shadow differs from its scenario's own hooks: the newest of each scenario.
CREATE TABLE shadow_differences (
    scenario_id TEXT NOT NULL REFERENCES scenarios (id) ON DELETE CASCADE,
    -- Place among all differences of the scenario, from 1.
    sequence INTEGER NOT NULL,
    -- Bytes of all differences up to this one, those that are gone included.
    bytes INTEGER NOT NULL,
    -- The deployment that found it.
    generation INTEGER NOT NULL,
    -- Place among the differences of that deployment, from 0; numbers are missing where too many came at once.
    number INTEGER NOT NULL,
    -- JSON.
    difference TEXT NOT NULL,
    PRIMARY KEY (scenario_id, sequence)
) STRICT, WITHOUT ROWID;
