-- The tables of Terse, in a schema of their own. docs/postgresql.md says how to read them by hand.
-- Text is compared by bytes everywhere (COLLATE "C"), whatever the collation of the database.

-- +goose Up

-- One row for every number that was ever inserted; a deleted link leaves its row with deleted_at, so that the
-- primary key refuses its number for ever. number = domain << 43 | space << 38 | index, so rows that are made in
-- bulk append to table and key. position is that of the insert in inserts, for listings.
CREATE TABLE terse.links (
    number          bigint PRIMARY KEY,
    position        bigint NOT NULL,
    version         bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz,          -- null: as created_at
    expires_at      timestamptz,          -- null: never
    deleted_at      timestamptz,
    campaign_id     bigint,
    workspace_id    integer NOT NULL,
    destination_key integer,              -- of links without settings of their own, for if_exists=reuse
    redirect_status smallint,
    status          smallint NOT NULL,    -- 0 active, 1 disabled, 2 blocked
    by_code         boolean NOT NULL,
    default_expiry  boolean NOT NULL,
    code            text COLLATE "C",     -- aliases, random, secret and snowflake codes; others follow from number and key
    destination     text COLLATE "C" NOT NULL,
    field_values    text COLLATE "C",     -- the values of a campaign's link, 0x1f between them
    external_id     text COLLATE "C",
    settings        jsonb
);
-- Rows are updated in place where the page has room.
ALTER TABLE terse.links SET (autovacuum_vacuum_insert_scale_factor = 0.2, toast_tuple_target = 4080);
CREATE INDEX links_campaign ON terse.links (campaign_id, workspace_id, position, number) WHERE campaign_id IS NOT NULL;
CREATE INDEX links_external_id ON terse.links (workspace_id, external_id, position, number) WHERE external_id IS NOT NULL;

-- Codes that no arithmetic leads from: aliases, and random, secret and snowflake codes.
CREATE TABLE terse.aliases (
    domain_id integer NOT NULL,
    code      text COLLATE "C" NOT NULL,
    number    bigint NOT NULL,
    PRIMARY KEY (domain_id, code)
);

-- The counter of each code space. lineage names the server history in which it was leased from last.
CREATE TABLE terse.spaces (
    domain_id integer NOT NULL,
    space     smallint NOT NULL,
    next      bigint NOT NULL,
    lineage   text COLLATE "C" NOT NULL,
    jumped    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (domain_id, space)
);

-- Indexes of generated codes that belong to aliases: leases leave them out.
CREATE TABLE terse.reservations (
    domain_id integer NOT NULL,
    space     smallint NOT NULL,
    idx       bigint NOT NULL,
    PRIMARY KEY (domain_id, space, idx)
);

CREATE TABLE terse.link_tags (
    workspace_id integer NOT NULL,
    tag          text COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    number       bigint NOT NULL,
    PRIMARY KEY (workspace_id, tag, position, number)
);

-- Which links were inserted together: runs of consecutive numbers of one workspace. Listings walk them backwards.
CREATE TABLE terse.inserts (
    seq          bigint PRIMARY KEY,
    workspace_id integer NOT NULL,
    first_number bigint NOT NULL,
    links        bigint NOT NULL,
    created_from timestamptz NOT NULL,
    created_to   timestamptz NOT NULL,
    at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX inserts_workspace ON terse.inserts (workspace_id, seq);

-- How many links a campaign has: the sum of its rows, several so that writers do not wait for each other.
CREATE TABLE terse.campaign_links (
    workspace_id integer NOT NULL,
    campaign_id  bigint NOT NULL,
    shard        smallint NOT NULL,
    links        bigint NOT NULL,
    PRIMARY KEY (workspace_id, campaign_id, shard)
) WITH (fillfactor = 50);

-- destination_key -> number, filled when somebody first asks for a link by its destination (destination_marks says
-- up to which insert), because entries in random order would cost bulk inserts more than the links.
CREATE TABLE terse.destinations (
    destination_key integer NOT NULL,
    number          bigint NOT NULL,
    PRIMARY KEY (destination_key, number)
);
CREATE TABLE terse.destination_marks (
    workspace_id integer NOT NULL,
    domain_id    integer NOT NULL,
    seq          bigint NOT NULL,
    PRIMARY KEY (workspace_id, domain_id)
);

CREATE TABLE terse.documents (
    workspace_id integer NOT NULL,
    kind         text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    version      bigint NOT NULL,
    data         text COLLATE "C" NOT NULL, -- JSON, byte for byte
    PRIMARY KEY (workspace_id, kind, id)
);

-- What else changed, for caches. Kept for a day.
CREATE TABLE terse.changes (
    seq          bigint PRIMARY KEY,
    kind         smallint NOT NULL,       -- 2 link updated, 3 link deleted, 4 document put or deleted
    workspace_id integer NOT NULL,
    version      bigint NOT NULL,
    number       bigint,
    doc_kind     text COLLATE "C",
    doc_id       text COLLATE "C",
    at           timestamptz NOT NULL DEFAULT now()
);

-- Sequence numbers are transaction ids, so that a reader can tell up to where nothing can appear any more: a
-- number drawn from a sequence may be committed after a larger one. base is added so that they never fall, also
-- when a replica is promoted that had not seen the last of them, or the tables move to another server: lineage names
-- the history that base is for, and home the one in which the tables were made.
CREATE TABLE terse.feed (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    base    bigint NOT NULL,
    home    text COLLATE "C" NOT NULL,
    lineage text COLLATE "C" NOT NULL
);

-- +goose StatementBegin
CREATE FUNCTION terse.seq(n bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (((SELECT base FROM terse.feed) + pg_current_xact_id()::text::bigint) << 20) + n
$$;
-- +goose StatementEnd

-- No transaction that will still commit has a sequence number below this.
-- +goose StatementBegin
CREATE FUNCTION terse.feed_end() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT ((SELECT base FROM terse.feed) + pg_snapshot_xmin(pg_current_snapshot())::text::bigint) << 20
$$;
-- +goose StatementEnd

-- The server's history: it changes when a replica is promoted, a backup is restored to a point in time, or the
-- tables move to another server. '' where a server does not say.
-- +goose StatementBegin
CREATE FUNCTION terse.lineage() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system())::text || ':' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
EXCEPTION WHEN OTHERS THEN
    RETURN '';
END
$$;
-- +goose StatementEnd

INSERT INTO terse.feed (base, home, lineage) SELECT 0, l, l FROM terse.lineage() AS l;

-- For people: one row for every live link, with the parts of its number.
CREATE VIEW terse.live_links AS
SELECT (number >> 43)::integer AS domain_id, ((number >> 38) & 31)::smallint AS space, number & 274877906943 AS idx,
       number, workspace_id, code, destination, campaign_id, external_id, status, created_at,
       coalesce(updated_at, created_at) AS updated_at, expires_at, version, redirect_status, settings
FROM terse.links WHERE deleted_at IS NULL;

-- +goose Down
DROP VIEW terse.live_links;
DROP FUNCTION terse.seq(bigint), terse.feed_end(), terse.lineage();
DROP TABLE terse.links, terse.aliases, terse.spaces, terse.reservations, terse.link_tags, terse.inserts, terse.campaign_links,
    terse.destinations, terse.destination_marks, terse.documents, terse.changes, terse.feed;
