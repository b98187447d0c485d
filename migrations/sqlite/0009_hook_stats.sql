-- What became of the calls of hooks.

-- JSON, as its runner said last. Null: it said nothing of them. Beside the status, which is read more often.
ALTER TABLE workers ADD COLUMN hooks TEXT;
