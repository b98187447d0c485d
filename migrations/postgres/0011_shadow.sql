-- What scenarios' shadows found. Both tables go with their scenario also where a process of an earlier release, which
-- does not know of them, removes it.

-- What was told last, of the newest deployment that told something.
CREATE TABLE shadows (
    scenario_id uuid PRIMARY KEY REFERENCES scenarios (id) ON DELETE CASCADE,
    generation bigint NOT NULL,
    -- Frames that the summary counts. Within a deployment it only grows.
    frames bigint NOT NULL,
    -- JSON.
    summary text NOT NULL
);

-- Frames on which a shadow differs from its scenario's own hooks: the newest of each scenario.
CREATE TABLE shadow_differences (
    scenario_id uuid NOT NULL REFERENCES scenarios (id) ON DELETE CASCADE,
    -- Place among all differences of the scenario, from 1.
    sequence bigint NOT NULL,
    -- Bytes of all differences up to this one, those that are gone included.
    bytes bigint NOT NULL,
    -- The deployment that found it.
    generation bigint NOT NULL,
    -- Place among the differences of that deployment, from 0; numbers are missing where too many came at once.
    number bigint NOT NULL,
    -- JSON.
    difference text NOT NULL,
    PRIMARY KEY (scenario_id, sequence)
);
