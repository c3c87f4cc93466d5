//! Ways to break the schema, for `manifest_kinds.rs`.

/// SQL that breaks one or more objects, and how `check` names one of them.
pub const BREAKAGES: &[(&str, &str)] = &[
    ("DROP TABLE creatures CASCADE", "table public.creatures"),
    ("DROP TABLE private.account_gates CASCADE", "table private.account_gates"),
    ("DROP TABLE private.request_digests CASCADE", "table private.request_digests"),
    ("DROP TABLE private.sparc_record CASCADE", "table private.sparc_record"),
    ("ALTER TABLE creatures OWNER TO authenticated", "table public.creatures"),
    ("ALTER FUNCTION private.is_seer(uuid) OWNER TO authenticated", "function private.is_seer(uuid)"),
    ("ALTER TYPE attribute OWNER TO authenticated", "type public.attribute"),
    ("ALTER TABLE session_players REPLICA IDENTITY DEFAULT", "table public.session_players"),
    ("ALTER TABLE characters REPLICA IDENTITY FULL", "table public.characters"),
    ("ALTER TABLE archived_dice_rolls SET UNLOGGED", "table public.archived_dice_rolls"),
    // A logged table cannot refer to an unlogged one, so `up` must first restore the tables to which others refer.
    (
        "ALTER TABLE archived_dice_rolls SET UNLOGGED; ALTER TABLE archived_session_players SET UNLOGGED;
         ALTER TABLE archived_sessions SET UNLOGGED",
        "table public.archived_session_players",
    ),
    (
        "DROP TABLE archived_session_players; ALTER TABLE archived_dice_rolls SET UNLOGGED;
         ALTER TABLE archived_sessions SET UNLOGGED",
        "table public.archived_session_players",
    ),
    ("ALTER TABLE users DROP COLUMN bio CASCADE", "column bio of public.users"),
    ("ALTER TABLE sessions ALTER max_players DROP DEFAULT", "column max_players of public.sessions"),
    ("ALTER TABLE sessions ALTER code DROP NOT NULL", "column code of public.sessions"),
    ("ALTER TABLE sessions ALTER looking_for SET NOT NULL", "column looking_for of public.sessions"),
    (
        "DROP TRIGGER set_updated_at ON characters; ALTER TABLE characters ALTER level TYPE bigint;
         CREATE TRIGGER set_updated_at BEFORE UPDATE OF level ON characters
         FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at()",
        "column level of public.characters",
    ),
    ("ALTER TABLE session_events ALTER seq DROP IDENTITY", "column seq of public.session_events"),
    ("ALTER TABLE users DROP CONSTRAINT bounded_bio", "constraint bounded_bio on public.users"),
    ("ALTER TABLE sessions DROP CONSTRAINT sessions_code_key", "constraint sessions_code_key on public.sessions"),
    ("ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE", "constraint users_pkey on public.users"),
    (
        "ALTER TABLE creatures DROP CONSTRAINT creatures_adventure_id_fkey,
           ADD CONSTRAINT creatures_adventure_id_fkey FOREIGN KEY (adventure_id) REFERENCES adventures",
        "constraint creatures_adventure_id_fkey on public.creatures",
    ),
    (
        "ALTER TABLE users DROP CONSTRAINT bounded_bio, ADD CONSTRAINT bounded_bio CHECK (char_length(bio) < 9)",
        "constraint bounded_bio on public.users",
    ),
    ("DROP INDEX idx_sessions_status", "index idx_sessions_status on public.sessions"),
    (
        "DROP INDEX idx_sessions_status; CREATE INDEX idx_sessions_status ON sessions (status DESC)",
        "index idx_sessions_status on public.sessions",
    ),
    (
        "ALTER TYPE attribute RENAME TO old; CREATE TYPE attribute AS ENUM ('might', 'grace', 'heart');
         ALTER TABLE dice_rolls DROP COLUMN attribute CASCADE; ALTER TABLE archived_dice_rolls DROP COLUMN attribute;
         DROP TYPE old CASCADE",
        "type public.attribute",
    ),
    ("DROP TYPE tutorial_path CASCADE", "type public.tutorial_path"),
    ("DROP FUNCTION private.roll_dice() CASCADE", "function private.roll_dice()"),
    ("ALTER FUNCTION private.is_seer(uuid) SECURITY INVOKER", "function private.is_seer(uuid)"),
    ("ALTER FUNCTION private.is_seer(uuid) SET search_path = public", "function private.is_seer(uuid)"),
    (
        "CREATE OR REPLACE FUNCTION private.is_seer(target_session_id uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "function private.is_seer(uuid)",
    ),
    (
        "DROP FUNCTION private.is_seer(uuid) CASCADE;
         CREATE FUNCTION private.is_seer(anything uuid) RETURNS text LANGUAGE sql AS 'SELECT anything::text'",
        "function private.is_seer(uuid)",
    ),
    ("DROP TRIGGER set_updated_at ON users", "trigger set_updated_at on public.users"),
    ("ALTER TABLE dice_rolls DISABLE TRIGGER roll_dice", "trigger roll_dice on public.dice_rolls"),
    ("ALTER TABLE dice_rolls ENABLE REPLICA TRIGGER roll_dice", "trigger roll_dice on public.dice_rolls"),
    ("DROP TRIGGER on_auth_user_created ON auth.users", "trigger on_auth_user_created on auth.users"),
    ("ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created", "trigger on_auth_user_created on auth.users"),
    (
        "CREATE OR REPLACE TRIGGER set_updated_at AFTER UPDATE ON users
         FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at()",
        "trigger set_updated_at on public.users",
    ),
    (
        "DROP POLICY \"Users can update own profile\" ON users",
        "policy \"Users can update own profile\" on public.users",
    ),
    (
        "ALTER POLICY \"Users can update own profile\" ON users USING (true)",
        "policy \"Users can update own profile\" on public.users",
    ),
    (
        "ALTER POLICY \"Users can update own profile\" ON users TO anon",
        "policy \"Users can update own profile\" on public.users",
    ),
    ("ALTER TABLE characters DISABLE ROW LEVEL SECURITY", "row security on public.characters"),
    ("ALTER TABLE characters FORCE ROW LEVEL SECURITY", "row security on public.characters"),
    ("GRANT SELECT (email) ON users TO anon", "grant on table public.users to anon"),
    ("GRANT TRUNCATE ON sessions TO anon", "grant on table public.sessions to anon"),
    ("GRANT ALL ON sessions TO PUBLIC", "grant on table public.sessions to PUBLIC"),
    ("GRANT SELECT ON sessions TO anon WITH GRANT OPTION", "grant on table public.sessions to anon"),
    ("REVOKE SELECT ON adventures FROM anon", "grant on table public.adventures to anon"),
    ("GRANT ALL ON SEQUENCE session_events_seq_seq TO anon", "grant on sequence public.session_events_seq_seq to anon"),
    (
        "GRANT EXECUTE ON FUNCTION private.archive_sessions(integer) TO PUBLIC",
        "grant on function private.archive_sessions(integer) to PUBLIC",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION private.is_seer(uuid) FROM authenticated",
        "grant on function private.is_seer(uuid) to authenticated",
    ),
    ("GRANT CREATE ON SCHEMA private TO authenticated", "grant on schema private to authenticated"),
    ("REVOKE USAGE ON SCHEMA private FROM anon", "grant on schema private to anon"),
    ("GRANT SELECT ON sparc_migrations TO anon", "grant on table public.sparc_migrations to anon"),
    ("DROP VIEW private.published_adventures CASCADE", "view private.published_adventures"),
    ("ALTER VIEW private.published_adventures RESET (security_invoker)", "view private.published_adventures"),
    (
        "CREATE OR REPLACE VIEW private.published_adventures WITH (security_invoker = true) AS
         SELECT id, creator_id, name, description, thumbnail_url, difficulty, estimated_duration, min_players, max_players,
                status, published_at, is_valid, times_played, average_rating, created_at
         FROM adventures",
        "view private.published_adventures",
    ),
    ("DROP PUBLICATION supabase_realtime", "publication supabase_realtime"),
    ("ALTER PUBLICATION supabase_realtime SET (publish = 'insert')", "publication supabase_realtime"),
    ("DROP PUBLICATION supabase_realtime", "publication supabase_realtime of public.sessions"),
    (
        "DROP TABLE session_events CASCADE",
        "sequence public.session_events_seq_seq",
    ),
    (
        "ALTER PUBLICATION supabase_realtime SET TABLE sessions WHERE (max_players > 3), session_players, session_events,
           dice_rolls",
        "publication supabase_realtime of public.sessions",
    ),
    (
        "ALTER PUBLICATION supabase_realtime SET TABLE sessions, session_players, session_events (id), dice_rolls",
        "publication supabase_realtime of public.session_events",
    ),
    // Comments, and more attributes of schemas, tables, columns and sequences.
    ("ALTER SCHEMA private OWNER TO authenticated", "schema private"),
    ("COMMENT ON SCHEMA private IS NULL", "comment on schema private"),
    ("DROP SCHEMA private CASCADE", "comment on schema private"),
    ("COMMENT ON SCHEMA auth IS 'mine'", "comment on schema auth"),
    ("COMMENT ON TABLE users IS NULL", "comment on table public.users"),
    ("COMMENT ON COLUMN users.bio IS 'Everything'", "comment on column bio of public.users"),
    ("COMMENT ON TABLE sparc_migrations IS NULL", "comment on table public.sparc_migrations"),
    (
        "ALTER TABLE sessions RESET (autovacuum_vacuum_threshold)",
        "setting autovacuum_vacuum_threshold of public.sessions",
    ),
    (
        "ALTER TABLE session_events SET (vacuum_index_cleanup = off)",
        "setting vacuum_index_cleanup of public.session_events",
    ),
    (
        "ALTER TABLE users ALTER email SET STATISTICS 100, ALTER email SET (n_distinct = -1)",
        "statistics of column email of public.users",
    ),
    ("ALTER TABLE sessions ALTER code SET STATISTICS -1", "statistics of column code of public.sessions"),
    ("ALTER TABLE users ALTER bio SET STORAGE EXTERNAL", "column bio of public.users"),
    ("ALTER TABLE adventures ALTER content SET COMPRESSION pglz", "column content of public.adventures"),
    ("ALTER TABLE creatures ALTER description TYPE text COLLATE \"C\"", "column description of public.creatures"),
    ("ALTER TABLE creatures ALTER description TYPE varchar(20)", "column description of public.creatures"),
    (
        "DROP TRIGGER check_profile_change ON users; DROP TRIGGER set_updated_at ON users; DROP VIEW profiles;
         ALTER TABLE users ALTER bio TYPE varchar(20);
         CREATE TRIGGER check_profile_change BEFORE UPDATE OF bio ON users
         FOR EACH ROW EXECUTE FUNCTION private.refuse_change_of_closed_profile();
         CREATE VIEW profiles AS SELECT id, bio FROM users",
        "column bio of public.users",
    ),
    ("ALTER TABLE session_events ALTER seq SET GENERATED BY DEFAULT", "column seq of public.session_events"),
    (
        "ALTER TABLE users DROP COLUMN bio CASCADE;
         ALTER TABLE users ADD COLUMN bio text GENERATED ALWAYS AS (email) STORED",
        "column bio of public.users",
    ),
    (
        "ALTER TABLE users DROP COLUMN bio CASCADE;
         ALTER TABLE users ADD COLUMN bio integer GENERATED ALWAYS AS (games_played) STORED",
        "column bio of public.users",
    ),
    (
        "ALTER TABLE creatures DROP COLUMN description CASCADE;
         ALTER TABLE creatures ADD COLUMN description integer GENERATED ALWAYS AS IDENTITY",
        "column description of public.creatures",
    ),
    // The type of the function's result differs, so `up` must drop the function and the default that calls it.
    (
        "DROP FUNCTION private.draw_session_code() CASCADE;
         CREATE FUNCTION private.draw_session_code() RETURNS varchar LANGUAGE sql AS $$ SELECT 'ABCDEF' $$;
         ALTER TABLE users ALTER bio SET DEFAULT private.draw_session_code()",
        "column bio of public.users",
    ),
    (
        "ALTER TABLE session_events ALTER seq DROP IDENTITY; CREATE SEQUENCE session_events_seq_seq;
         ALTER TABLE session_events ALTER seq SET DEFAULT nextval('session_events_seq_seq')",
        "sequence public.session_events_seq_seq",
    ),
    ("ALTER TABLE session_events ALTER seq SET INCREMENT 2", "sequence public.session_events_seq_seq"),
    ("ALTER TABLE session_events ALTER seq SET MAXVALUE 1000 SET CYCLE", "sequence public.session_events_seq_seq"),
    ("ALTER TABLE session_events ALTER seq SET CACHE 100", "sequence public.session_events_seq_seq"),
    ("ALTER TABLE session_events ALTER seq SET MINVALUE -5 SET START 2", "sequence public.session_events_seq_seq"),
    ("ALTER SEQUENCE session_events_seq_seq SET UNLOGGED", "sequence public.session_events_seq_seq"),
    // Keys, constraints and indexes.
    (
        "ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE,
           ADD CONSTRAINT users_pkey PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED",
        "constraint users_pkey on public.users",
    ),
    (
        "ALTER TABLE sessions DROP CONSTRAINT sessions_code_key, ADD CONSTRAINT sessions_code_key UNIQUE (code, id)",
        "constraint sessions_code_key on public.sessions",
    ),
    (
        "ALTER TABLE creatures ALTER CONSTRAINT creatures_adventure_id_fkey DEFERRABLE INITIALLY DEFERRED",
        "constraint creatures_adventure_id_fkey on public.creatures",
    ),
    (
        "ALTER TABLE users DROP CONSTRAINT bounded_bio,
           ADD CONSTRAINT bounded_bio CHECK (char_length(bio) <= 2000) NOT VALID",
        "constraint bounded_bio on public.users",
    ),
    // This also drops the constraint's index, and with it the table's replica identity, which the manifest has in the
    // line of the table.
    (
        "ALTER TABLE session_players DROP CONSTRAINT session_players_replica_identity_key",
        "table public.session_players",
    ),
    (
        "DROP INDEX idx_sessions_status; CREATE INDEX idx_sessions_status ON sessions (status) WITH (fillfactor = 50)",
        "index idx_sessions_status on public.sessions",
    ),
    (
        "DROP INDEX idx_session_events_seq; CREATE INDEX idx_session_events_seq ON session_events (session_id, seq)",
        "index idx_session_events_seq on public.session_events",
    ),
    // Functions.
    ("ALTER FUNCTION private.is_seer(uuid) VOLATILE", "function private.is_seer(uuid)"),
    ("ALTER FUNCTION private.is_seer(uuid) STRICT", "function private.is_seer(uuid)"),
    ("ALTER FUNCTION private.is_seer(uuid) COST 7", "function private.is_seer(uuid)"),
    ("ALTER FUNCTION private.is_seer(uuid) PARALLEL RESTRICTED", "function private.is_seer(uuid)"),
    ("ALTER FUNCTION private.is_seer(uuid) LEAKPROOF", "function private.is_seer(uuid)"),
    ("ALTER FUNCTION private.is_seer(uuid) RESET ALL", "function private.is_seer(uuid)"),
    ("ALTER FUNCTION private.is_seer(uuid) SET work_mem = '1GB'", "function private.is_seer(uuid)"),
    (
        "DROP FUNCTION private.roll_dice() CASCADE; CREATE PROCEDURE private.roll_dice() LANGUAGE sql AS 'SELECT 1'",
        "function private.roll_dice()",
    ),
    ("DROP FUNCTION auth.role() CASCADE", "function auth.role()"),
    ("ALTER FUNCTION auth.uid() SECURITY DEFINER", "function auth.uid()"),
    ("REVOKE EXECUTE ON FUNCTION auth.uid() FROM authenticated", "grant on function auth.uid() to authenticated"),
    ("DROP SCHEMA auth CASCADE", "schema auth"),
    ("DROP SCHEMA auth CASCADE", "column email of auth.users"),
    // Triggers.
    (
        "DROP TRIGGER set_updated_at ON users;
         CREATE TRIGGER set_updated_at BEFORE UPDATE OF bio ON users FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at()",
        "trigger set_updated_at on public.users",
    ),
    (
        "DROP TRIGGER set_updated_at ON users;
         CREATE TRIGGER set_updated_at BEFORE UPDATE ON users FOR EACH ROW WHEN (NEW.bio IS NOT NULL)
         EXECUTE FUNCTION private.touch_updated_at()",
        "trigger set_updated_at on public.users",
    ),
    (
        "DROP TRIGGER set_updated_at ON users;
         CREATE CONSTRAINT TRIGGER set_updated_at AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at()",
        "trigger set_updated_at on public.users",
    ),
    ("ALTER TABLE users ENABLE ALWAYS TRIGGER set_updated_at", "trigger set_updated_at on public.users"),
    // Policies.
    (
        "DROP POLICY \"Users can update own profile\" ON users;
         CREATE POLICY \"Users can update own profile\" ON users FOR ALL TO authenticated USING (true)",
        "policy \"Users can update own profile\" on public.users",
    ),
    (
        "DROP POLICY \"Users can update own profile\" ON users;
         CREATE POLICY \"Users can update own profile\" ON users AS RESTRICTIVE FOR UPDATE TO authenticated USING (true)",
        "policy \"Users can update own profile\" on public.users",
    ),
    ("ALTER POLICY \"Users can update own profile\" ON users WITH CHECK (true)", "policy \"Users can update own profile\" on public.users"),
    (
        "DO $$
         BEGIN
           IF to_regrole('\"anon, authenticated\"') IS NULL THEN CREATE ROLE \"anon, authenticated\"; END IF;
         END
         $$;
         ALTER POLICY \"Published adventures visible to all\" ON adventures TO \"anon, authenticated\"",
        "policy \"Published adventures visible to all\" on public.adventures",
    ),
    // Views.
    ("ALTER VIEW private.published_adventures SET (security_barrier = true)", "view private.published_adventures"),
    ("ALTER VIEW private.published_adventures SET (security_invoker = false)", "view private.published_adventures"),
    ("ALTER VIEW private.published_adventures OWNER TO authenticated", "view private.published_adventures"),
    (
        "CREATE SCHEMA x;
         CREATE VIEW x.users AS
         SELECT id, email AS display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
         FROM users;
         CREATE OR REPLACE VIEW profiles WITH (security_invoker=true) AS
         SELECT id, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
         FROM x.users",
        "view public.profiles",
    ),
    (
        "DROP VIEW private.published_adventures CASCADE;
         CREATE MATERIALIZED VIEW private.published_adventures AS SELECT * FROM public.adventures",
        "view private.published_adventures",
    ),
    // Privileges.
    ("REVOKE USAGE ON TYPE attribute FROM PUBLIC", "grant on type public.attribute to PUBLIC"),
    ("GRANT USAGE ON TYPE attribute TO anon WITH GRANT OPTION", "grant on type public.attribute to anon"),
    (
        "GRANT EXECUTE ON FUNCTION private.is_seer(uuid) TO authenticated WITH GRANT OPTION",
        "grant on function private.is_seer(uuid) to authenticated",
    ),
    ("GRANT REFERENCES (id) ON users TO anon", "grant on table public.users to anon"),
    ("GRANT ALL ON private.published_adventures TO PUBLIC", "grant on table private.published_adventures to PUBLIC"),
    ("REVOKE SELECT (display_name) ON users FROM anon", "grant on table public.users to anon"),
    ("GRANT CREATE ON SCHEMA public TO anon", "grant on schema public to anon"),
    // The owner's privileges.
    ("REVOKE ALL ON users FROM CURRENT_USER", "table public.users"),
    ("REVOKE INSERT ON private.account_gates FROM CURRENT_USER", "table private.account_gates"),
    (
        "REVOKE EXECUTE ON FUNCTION private.create_or_reopen_profile(uuid, text, jsonb) FROM CURRENT_USER",
        "function private.create_or_reopen_profile(uuid, text, jsonb)",
    ),
    ("REVOKE SELECT ON profiles FROM CURRENT_USER", "view public.profiles"),
    ("REVOKE ALL ON SEQUENCE session_events_seq_seq FROM CURRENT_USER", "sequence public.session_events_seq_seq"),
    ("REVOKE USAGE ON TYPE attribute FROM CURRENT_USER", "type public.attribute"),
    ("REVOKE USAGE ON SCHEMA private FROM CURRENT_USER", "schema private"),
    // The records of `up`: the list of applied migrations, and `private.sparc_record`.
    ("ALTER TABLE sparc_migrations DROP COLUMN applied_at", "column applied_at of public.sparc_migrations"),
    ("ALTER TABLE sparc_migrations ALTER applied_at TYPE text", "column applied_at of public.sparc_migrations"),
    ("ALTER TABLE sparc_migrations RENAME version TO name", "column version of public.sparc_migrations"),
    ("ALTER TABLE sparc_migrations DROP CONSTRAINT sparc_migrations_pkey", "constraint sparc_migrations_pkey on public.sparc_migrations"),
    ("ALTER TABLE sparc_migrations DISABLE ROW LEVEL SECURITY", "row security on public.sparc_migrations"),
    ("DROP TABLE sparc_migrations", "table public.sparc_migrations"),
    (
        "DELETE FROM sparc_migrations WHERE version LIKE '%tables'",
        "migration m20261101_000002_tables in public.sparc_migrations",
    ),
    ("TRUNCATE sparc_migrations", "migration m20261101_000001_platform in public.sparc_migrations"),
    ("ALTER TABLE private.sparc_record DROP COLUMN value", "column value of private.sparc_record"),
    // Many objects at once.
    (
        "DROP TABLE users, characters, adventures, creatures, sessions, session_players, dice_rolls, session_events,
           tutorial_progress, archived_sessions, archived_session_players, archived_dice_rolls CASCADE",
        "table public.archived_sessions",
    ),
    ("DROP SCHEMA public CASCADE; CREATE SCHEMA public", "table public.users"),
    ("DROP SCHEMA private CASCADE", "schema private"),
];
