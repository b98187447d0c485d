-- What a leader that reads heartbeats late may conclude from them.

-- The runner's last heartbeat reached the bus after this.
ALTER TABLE runners ADD COLUMN arrived_after bigint NOT NULL DEFAULT 0;

-- How often the last order was given before.
ALTER TABLE workers ADD COLUMN repeats integer NOT NULL DEFAULT 0;
