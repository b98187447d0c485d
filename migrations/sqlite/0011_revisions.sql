-- The settings of scenarios that were changed, by revision. A scenario without a row here has its first one, which is in
-- `scenarios`; there the wanted one is in any case. They go with their scenario also where a process of an earlier
-- release, which does not know of them, removes it.
CREATE TABLE scenario_revisions (
    scenario_id TEXT NOT NULL REFERENCES scenarios (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL CHECK (revision >= 1),
    at INTEGER NOT NULL,
    spec TEXT NOT NULL,
    resolved TEXT NOT NULL,
    -- Its hooks begin with nothing kept.
    fresh INTEGER NOT NULL CHECK (fresh IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'superseded', 'rolled_back')),
    -- Of one that was rolled back.
    reason TEXT,
    -- The first frame of it, where a worker told.
    from_frame INTEGER,
    PRIMARY KEY (scenario_id, revision)
) STRICT, WITHOUT ROWID;
