-- What became of each frame, counted where it is stored; and labels that a scenario's runner must have.

ALTER TABLE scenarios ADD COLUMN placement TEXT;

-- A frame without an inference, and the same of the row that this one replaced (null: there was none), for the counts of
-- the statement that writes it.
ALTER TABLE scenario_results ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0 CHECK (skipped IN (0, 1));
ALTER TABLE scenario_results ADD COLUMN skipped_before INTEGER CHECK (skipped_before IN (0, 1));
-- Only `skipped` itself is written so. Not parsed: a row that cannot be read is nobody's business here.
UPDATE scenario_results SET skipped = 1 WHERE instr(prediction, '"skipped":{') > 0;

-- Rows with an inference and without, since the beginning: retention takes nothing off.
ALTER TABLE scenario_progress ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
ALTER TABLE scenario_progress ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;
UPDATE scenario_progress SET (stored, skipped) = (
    SELECT count(*) FILTER (WHERE NOT r.skipped), count(*) FILTER (WHERE r.skipped)
    FROM scenario_results r WHERE r.scenario_id = scenario_progress.scenario_id);

-- Which scenario a message is about.
ALTER TABLE outbox_scenario ADD COLUMN scenario_id TEXT;

-- The frame of a record that could not be read, where it says so.
ALTER TABLE dead_letters ADD COLUMN pts_us INTEGER;
CREATE INDEX dead_letters_by_key ON dead_letters (key, pts_us);
