-- Memory that a scenario's worker may have, in MiB; null in what older releases wrote.

ALTER TABLE scenarios ADD COLUMN memory_mib INTEGER CHECK (memory_mib >= 1);
