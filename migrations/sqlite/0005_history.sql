-- A history has an end: how many lines stood between the one before and this one, and were folded
-- into this number.
ALTER TABLE scenario_history ADD COLUMN folded INTEGER NOT NULL DEFAULT 0 CHECK (folded >= 0);
