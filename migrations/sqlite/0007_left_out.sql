-- Frames of the source that a scenario did not ask for.

-- Those between this frame and the one before it that was asked for.
ALTER TABLE scenario_results ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0 CHECK (left_out >= 0);
-- The sum of all rows, since the beginning.
ALTER TABLE scenario_progress ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;
