-- What hooks keep between frames, and the frame it belongs to.

-- The last stored frame of the newest deployment: behind it the next one goes on. Null: it begins anew. It is not
-- the last stored frame of all, because a deployment that was replaced may still give some.
ALTER TABLE scenario_progress ADD COLUMN resume_pts_us bigint;
ALTER TABLE scenario_progress ADD COLUMN resume_frame bigint;
UPDATE scenario_progress SET resume_pts_us = pts_us, resume_frame = frame;

-- What hooks keep, as of the frame `resume_frame` of `scenario_progress`.
CREATE TABLE hook_state (
    scenario_id uuid NOT NULL REFERENCES scenarios (id),
    -- Stage and plugin, such as `post/line-counter`.
    hook text NOT NULL,
    -- UTF-8; it may have a NUL, which text cannot.
    key bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (scenario_id, hook, key)
);
