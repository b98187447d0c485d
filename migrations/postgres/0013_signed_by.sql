-- Who vouches for a plugin: the signature that came with it, as JSON. Null: nobody.
ALTER TABLE artifacts ADD COLUMN signed_by text;
