-- How far the change feed was trimmed: a reader below it has missed changes.

-- +goose Up

CREATE TABLE terse.feed_floor (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    floor bigint NOT NULL
);
-- What was trimmed before nobody noted: everything below the oldest change that is left may have been.
INSERT INTO terse.feed_floor (floor)
SELECT CASE WHEN NOT EXISTS (SELECT FROM terse.documents) AND NOT EXISTS (SELECT FROM terse.inserts) THEN 0
    ELSE coalesce((SELECT min(seq) FROM terse.changes), terse.feed_end()) - 1 END;
