-- State of one member. Whatever is called a sequence here is one because a
-- sequence's value is seen at once by every transaction, whatever its snapshot.
CREATE SCHEMA pgdist;
REVOKE ALL ON SCHEMA pgdist FROM PUBLIC;
COMMENT ON SCHEMA pgdist IS 'pgdist keeps this database identical to its mirrors; remove with: pgdist uninstall';

-- Who this database is. One row.
CREATE TABLE pgdist.meta (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    version    int  NOT NULL,   -- of this schema
    set_id     text NOT NULL,   -- of the set, random, given at init
    member     int  NOT NULL,   -- this database's number within the set
    system     text NOT NULL,   -- the cluster's system identifier at init
    mirror     name NOT NULL,   -- the role that mirrors; the only one granted anything here
    secret     text NOT NULL DEFAULT md5(random()::text || clock_timestamp()::text || gen_random_uuid()::text),
    installed  timestamptz NOT NULL DEFAULT now()
);

-- What this member promised and accepted about views. One row.
CREATE TABLE pgdist.register (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    promised  bigint NOT NULL DEFAULT 0,
    accepted  bigint NOT NULL DEFAULT 0,
    view      jsonb
);
INSERT INTO pgdist.register DEFAULT VALUES;

-- Epoch and role in one value: epoch * 2 + (1 if this member leads).
CREATE SEQUENCE pgdist.fence MINVALUE 0 START 0;
-- The term this member took office in, when it last did.
CREATE SEQUENCE pgdist.term MINVALUE 0 START 0;

-- The fence's lock and the sentinel of a crash: every writer holds ACCESS SHARE
-- on it to the end of its transaction, and crash recovery empties it, together
-- with the users' own UNLOGGED tables. On a member that never led the term is -1.
CREATE UNLOGGED TABLE pgdist.boot (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    term  bigint NOT NULL
) WITH (autovacuum_enabled = off);

-- The chain of terms this member's data went through. snap is where the term's
-- leader stood in the term before, counted in that term's transactions; NULL
-- is "all of it" (it led that term itself, and crashed).
CREATE TABLE pgdist.terms (
    term    bigint PRIMARY KEY,
    leader  int    NOT NULL,
    prev    bigint NOT NULL,
    snap    pg_snapshot
);

-- "This database equals the leader of that term as that snapshot sees it."
-- snap NULL: this member led the term itself. One row, but for every flush another
-- version of it, which a long read keeps from being removed: it is looked for
-- from the end of its index, where the newest is (ORDER BY one DESC LIMIT 1), for
-- from the other end all dead ones would be passed each time.
CREATE TABLE pgdist.position (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    term  bigint NOT NULL DEFAULT 0,
    snap  pg_snapshot,
    at    timestamptz NOT NULL DEFAULT now(),
    tick  bigint NOT NULL DEFAULT 0, -- raised by every apply, also one that brings sequences alone
    ddl   bigint NOT NULL DEFAULT 0  -- raised by every DDL that an apply runs
) WITH (fillfactor = 10);
INSERT INTO pgdist.position DEFAULT VALUES;

-- The distributors that use this member: programs with the driver, gateways. epoch
-- is of the view by which each serves its clients, lease for how long it may go on
-- with it after a majority has confirmed it last.
CREATE TABLE pgdist.distributors (
    id      text   PRIMARY KEY,
    name    text   NOT NULL,
    epoch   bigint NOT NULL,
    lease   interval NOT NULL,
    since   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- DDL that was run ahead of its batch, and the position from which that was. No
-- row, or one. (A key, for users' publications may be of all tables.)
CREATE TABLE pgdist.replayed (
    term      bigint NOT NULL,
    id        bigint NOT NULL,
    pos_term  bigint NOT NULL,
    pos_snap  text,
    PRIMARY KEY (term, id)
);

-- The journal is complete for whatever is not visible at this place. One row.
CREATE TABLE pgdist.floor (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    term  bigint NOT NULL DEFAULT 0,
    snap  pg_snapshot
);
INSERT INTO pgdist.floor DEFAULT VALUES;

-- The journal: which rows were touched, by which transaction. Its partitions
-- are emptied in turn (TRUNCATE leaves no bloat); slot says only where an entry
-- lies, never what it means.
--   op k: keys; + and -: images of rows of a table without a key;
--      t: TRUNCATE; c: the table is to be copied whole; d: DDL, its description
--      in keys[1]; m: a materialized view was filled or emptied.
-- id is where the leader's WAL stood: order among entries of one table matters
-- around TRUNCATE, and entries of transactions that wait for each other, or of one,
-- never have the same. Not a sequence: the client's lastval() would be its value.
CREATE TABLE pgdist.journal (
    slot  smallint NOT NULL,
    id    bigint   NOT NULL,
    term  bigint   NOT NULL,
    xid   xid8     NOT NULL,
    tab   int      NOT NULL,
    gen   int      NOT NULL,
    op    "char"   NOT NULL,
    conn  text,
    keys  text[]
) PARTITION BY LIST (slot);
CREATE TABLE pgdist.journal_0 PARTITION OF pgdist.journal FOR VALUES IN (0);
CREATE TABLE pgdist.journal_1 PARTITION OF pgdist.journal FOR VALUES IN (1);
CREATE TABLE pgdist.journal_2 PARTITION OF pgdist.journal FOR VALUES IN (2);
CREATE INDEX ON pgdist.journal (term, xid);
CREATE SEQUENCE pgdist.slot MINVALUE 0 MAXVALUE 2 START 0;
-- When each slot began to be filled, and when it was left for another; NULL: it
-- is the present one, or was never filled.
CREATE TABLE pgdist.slots (slot smallint PRIMARY KEY, since timestamptz NOT NULL DEFAULT now(), till timestamptz);
INSERT INTO pgdist.slots SELECT generate_series(0, 2);

-- Nothing but its locks matters: see on_start.
CREATE TABLE pgdist.renames ();

-- The roles that are the set's, not this server's alone, and the number each had
-- at the leader of that term. id is what all members know it by, whoever leads: the server where
-- it was first the set's, and its number there; oid is its number here. NULL: not known.
CREATE TABLE pgdist.roles (
    name  name   PRIMARY KEY,
    term  bigint NOT NULL,
    was   bigint NOT NULL,
    id    text,
    oid   oid
);

-- The mirrored tables. id is the same on every member, oid is this one's.
CREATE TABLE pgdist.tables (
    id      int  PRIMARY KEY,
    oid     oid  NOT NULL UNIQUE,
    nsp     name NOT NULL,
    rel     name NOT NULL,
    gen     int  NOT NULL,        -- raised when entries made before no longer fit
    shape   text NOT NULL,        -- digest of all that decides gen
    form    text NOT NULL,        -- digest of all that the generated functions depend on
    keyed   boolean NOT NULL,
    upsert  boolean NOT NULL,     -- rows can be put in place one by one
    root    oid  NOT NULL,        -- the partition tree's root, or oid itself
    files   oid[] NOT NULL,       -- relations with storage read under this id
    missing text NOT NULL,        -- digest of values ADD COLUMN left in the catalog
    layout  text                  -- digest of what a row's text means: columns in their order, key; NULL: not known
);
CREATE SEQUENCE pgdist.table_id AS int;

-- The sequences whose values are shipped, all but temporary ones, by their
-- number here and their name, ready to be put into a statement.
CREATE TABLE pgdist.seqs (
    oid   oid  PRIMARY KEY,
    name  text NOT NULL
);

-- The materialized views that hold data at the leader, on a follower, which holds
-- none of it. On a leader those that it has yet to fill, and why it could not.
CREATE TABLE pgdist.matviews (
    oid    oid PRIMARY KEY,
    error  text
);

-- The materialized views that are known here: one that is not was made unseen.
CREATE TABLE pgdist.views (oid oid PRIMARY KEY);

-- The owners that followers know of all that belongs to roles which did not come with the server:
-- an object that has another was given away by REASSIGN OWNED (sql/04_owners.sql).
CREATE TABLE pgdist.owners (class oid NOT NULL, obj oid NOT NULL, owner oid NOT NULL, PRIMARY KEY (class, obj));

-- What of this member was found to differ from the leader, by a comparison: the rows of
-- these keys of table tab, as of generation gen, or with keys NULL all of it. They are
-- shipped anew when it next catches up, before it counts as in sync again. tab 0 is what
-- only a full copy helps against.
CREATE TABLE pgdist.amiss (
    id    bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tab   int  NOT NULL,
    gen   int  NOT NULL,
    keys  text[],
    what  text NOT NULL,
    at    timestamptz NOT NULL DEFAULT now()
);

-- Why members that are not in sync could not be taken back, at the leader: what the last program
-- that tried has found. By till it has tried again.
CREATE TABLE pgdist.kept_out (
    member  int  PRIMARY KEY,
    why     text NOT NULL,
    till    timestamptz NOT NULL
);

-- How far the comparison in the background has come, at the leader. One row.
CREATE TABLE pgdist.checks (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    began        timestamptz, -- the present round, or the last one
    ended        timestamptz, -- the last round that went through
    tab          int,         -- the table it is in; NULL: between two rounds
    after        text,        -- the key of the last row compared there
    rows         bigint NOT NULL DEFAULT 0, -- of the leader, compared in this round
    differences  bigint NOT NULL DEFAULT 0  -- found since the member was made
) WITH (fillfactor = 50);
INSERT INTO pgdist.checks DEFAULT VALUES;
