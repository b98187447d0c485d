-- The settings of scenarios that were changed, by revision. A scenario without a row here has its first one, which is in
-- `scenarios`; there the wanted one is in any case. They go with their scenario also where a process of an earlier
-- release, which does not know of them, removes it.
CREATE TABLE scenario_revisions (
    scenario_id uuid NOT NULL REFERENCES scenarios (id) ON DELETE CASCADE,
    revision bigint NOT NULL CHECK (revision >= 1),
    at bigint NOT NULL,
    spec text NOT NULL,
    resolved text NOT NULL,
    -- Its hooks begin with nothing kept.
    fresh boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'active', 'superseded', 'rolled_back')),
    -- Of one that was rolled back.
    reason text,
    -- The first frame of it, where a worker told.
    from_frame bigint,
    PRIMARY KEY (scenario_id, revision)
);
