//! Each kind of object that an operator (a person, not PostgreSQL's operator) can add to a migrated database. If the
//! object depends on one of ours, `reset` fails with an error that names the object, and changes nothing. Otherwise,
//! `reset` leaves the object as it is. Also: `reset` refuses if somebody has renamed or moved one of our objects.

use sea_orm::ConnectionTrait;
use sparc::migration::sea_orm_migration::MigratorTrait;

use super::{Migrator, drift::create_migrated_database, query_lines, read_catalog, refusal_message};

/// SQL that creates a dependent object, and how the message names the object.
const DEPENDENTS: &[(&str, &str)] = &[
    // Tables and columns.
    ("CREATE TABLE t (x int) INHERITS (users)", "table public.t"),
    ("CREATE TABLE t (id uuid REFERENCES users)", "constraint t_id_fkey on table public.t"),
    ("CREATE TABLE t (kind attribute)", "table public.t"),
    ("CREATE TABLE t (kinds attribute[])", "table public.t"),
    ("CREATE TABLE t (person users)", "table public.t"),
    ("CREATE TABLE t (people users[])", "table public.t"),
    ("CREATE TABLE t (kind text DEFAULT 'might'::attribute)", "table public.t"),
    ("CREATE TABLE t (code text DEFAULT private.draw_session_code())", "table public.t"),
    ("CREATE TABLE t (n bigint DEFAULT nextval('session_events_seq_seq'))", "table public.t"),
    (
        "CREATE TABLE t (a text, g text GENERATED ALWAYS AS (CASE 'might'::attribute WHEN 'wit' THEN a END) STORED)",
        "table public.t",
    ),
    ("CREATE TABLE t (s jsonb CONSTRAINT c CHECK (private.are_valid_stats(s)))", "constraint c on table public.t"),
    ("CREATE TABLE t (s jsonb); CREATE INDEX i ON t (private.are_valid_stats(s))", "index public.i"),
    ("ALTER TABLE users ADD COLUMN note text", "column note of table public.users"),
    ("ALTER TABLE users ADD COLUMN \"seen on\" text", "column \"seen on\" of table public.users"),
    ("ALTER TABLE users ADD CONSTRAINT c CHECK (bio <> '')", "constraint c on table public.users"),
    ("CREATE INDEX i ON users (bio)", "index public.i"),
    ("CREATE STATISTICS s ON seer_id, adventure_id FROM sessions", "statistics object public.s"),
    (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
         CREATE FOREIGN TABLE t (kind attribute) SERVER s",
        "foreign table public.t",
    ),
    // Types.
    ("CREATE DOMAIN d AS attribute", "type public.d"),
    ("CREATE DOMAIN d AS attribute[]", "type public.d"),
    ("CREATE DOMAIN d AS users", "type public.d"),
    ("CREATE DOMAIN d AS jsonb CHECK (private.are_valid_stats(VALUE))", "type public.d"),
    ("CREATE TYPE c AS (kind attribute)", "type public.c"),
    ("CREATE TYPE r AS RANGE (subtype = attribute)", "type public.r"),
    // Views.
    ("CREATE VIEW v AS SELECT id FROM users", "view public.v"),
    ("CREATE VIEW v AS SELECT id FROM profiles", "view public.v"),
    ("CREATE MATERIALIZED VIEW v AS SELECT id FROM users", "materialized view public.v"),
    ("CREATE RULE r AS ON INSERT TO profiles DO INSTEAD NOTHING", "rule r on view public.profiles"),
    // Functions, operators, casts, triggers, policies and rules.
    ("CREATE FUNCTION f(users) RETURNS text LANGUAGE sql AS 'SELECT $1.bio'", "function public.f(public.users)"),
    ("CREATE FUNCTION f() RETURNS SETOF users LANGUAGE sql AS 'TABLE public.users'", "function public.f()"),
    (
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM users; END",
        "function public.f()",
    ),
    (
        "CREATE FUNCTION f() RETURNS boolean LANGUAGE sql BEGIN ATOMIC SELECT private.is_seer(NULL); END",
        "function public.f()",
    ),
    ("CREATE PROCEDURE p(attribute) LANGUAGE sql AS ''", "function public.p(public.attribute)"),
    (
        "CREATE FUNCTION f(int, attribute) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE AGGREGATE a(attribute) (SFUNC = f, STYPE = int)",
        "function public.a(public.attribute)",
    ),
    (
        "CREATE FUNCTION f(attribute, attribute) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR ~~~ (LEFTARG = attribute, RIGHTARG = attribute, FUNCTION = f)",
        "operator public.~~~(public.attribute,public.attribute)",
    ),
    ("CREATE CAST (attribute AS text) WITH INOUT", "cast from public.attribute to text"),
    (
        "CREATE TABLE t (updated_at timestamptz);
         CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at()",
        "trigger g on table public.t",
    ),
    ("CREATE TABLE t (id uuid); CREATE POLICY p ON t USING (private.is_seer(id))", "policy p on table public.t"),
    (
        "CREATE TABLE t (id uuid); CREATE POLICY p ON t USING (id IN (SELECT id FROM users))",
        "policy p on table public.t",
    ),
    ("CREATE POLICY p ON users FOR SELECT TO anon USING (false)", "policy p on table public.users"),
    (
        "CREATE TABLE t (id uuid); CREATE RULE r AS ON INSERT TO t DO ALSO DELETE FROM users WHERE id = NEW.id",
        "rule r on table public.t",
    ),
    // Replication and default privileges.
    ("CREATE PUBLICATION p FOR TABLE users (id) WHERE (id IS NOT NULL)", "publication of table public.users"),
    ("CREATE PUBLICATION p FOR TABLES IN SCHEMA private", "publication of schema private in publication p"),
    (
        "CREATE SUBSCRIPTION dependent CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false, slot_name = NONE);
         INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
         SELECT oid, 'public.users'::regclass, 'r' FROM pg_subscription WHERE subname = 'dependent'",
        "subscription dependent",
    ),
    (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA private GRANT EXECUTE ON FUNCTIONS TO anon",
        "default privileges on new functions",
    ),
];

#[tokio::test]
async fn each_kind_of_dependent_object_is_named_and_nothing_changes() {
    let mut failures = Vec::new();
    for (sql, object) in DEPENDENTS {
        let (_database, owner, superuser) = create_migrated_database().await;
        superuser.execute_unprepared("SET search_path = public").await.unwrap();
        for statement in sql.split_inclusive(";\n") {
            superuser.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        let catalog_before = read_catalog(&superuser).await;
        match Migrator::reset(&owner).await {
            Ok(()) => failures.push(format!("{sql}: reset does not refuse")),
            Err(error) => {
                let message = refusal_message(error);
                // Only a few objects depend on the schema here, so the message must be short.
                if !message.contains(object) || message.len() > 300 {
                    failures.push(format!("{sql}: {message}"));
                }
            }
        }
        if read_catalog(&superuser).await != catalog_before {
            failures.push(format!("{sql}: something changed"));
        }
        // A database with a subscription cannot be dropped.
        superuser.execute_unprepared("DROP SUBSCRIPTION IF EXISTS dependent").await.unwrap();
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), DEPENDENTS.len(), failures.join("\n"));
}

#[tokio::test]
async fn objects_that_do_not_depend_on_the_schema_stay() {
    let (_database, owner, superuser) = create_migrated_database().await;
    superuser
        .execute_unprepared(
            "SET search_path = public;
             CREATE PUBLICATION all_tables FOR ALL TABLES;
             CREATE PUBLICATION schema_public FOR TABLES IN SCHEMA public;
             CREATE FUNCTION count_users() RETURNS bigint LANGUAGE plpgsql AS
               'BEGIN RETURN (SELECT count(*) FROM public.users); END';
             CREATE TABLE private.notes (id int);
             CREATE TABLE people (id uuid NOT NULL);
             ALTER TABLE users INHERIT people",
        )
        .await
        .unwrap();
    Migrator::reset(&owner).await.unwrap();
    // For each publication, the query returns its name, whether it is FOR ALL TABLES, and the number of its schemas.
    // Schema `private` stays because it contains the operator's table.
    let select_remaining_objects = "SELECT pubname || ' ' || puballtables || ' ' || (
                  SELECT count(*) FROM pg_publication_namespace WHERE pnpubid = pg_publication.oid
                )
                FROM pg_publication
                WHERE pubname IN ('all_tables', 'schema_public')
                UNION ALL
                SELECT pg_describe_object('pg_proc'::regclass, oid, 0) FROM pg_proc WHERE proname = 'count_users'
                UNION ALL
                SELECT oid::regclass::text FROM pg_class WHERE relname IN ('notes', 'people')
                ORDER BY 1";
    assert_eq!(
        query_lines(&superuser, select_remaining_objects).await,
        ["all_tables true 0", "function count_users()", "people", "private.notes", "schema_public false 1"]
    );
}

#[tokio::test]
async fn reset_of_renamed_or_moved_objects_is_refused_and_changes_nothing() {
    for (sql, object) in [
        ("ALTER TABLE users RENAME TO people", "table public.users, to table public.people"),
        ("ALTER TABLE users RENAME bio TO about", "column bio of public.users"),
        ("ALTER FUNCTION private.is_seer(uuid) RENAME TO seer", "function private.is_seer(uuid)"),
        ("CREATE SCHEMA elsewhere; ALTER TABLE users SET SCHEMA elsewhere", "table elsewhere.users"),
    ] {
        let (_database, owner, superuser) = create_migrated_database().await;
        superuser.execute_unprepared(&format!("SET search_path = public; {sql}")).await.unwrap();
        let catalog_before = read_catalog(&superuser).await;
        let message = refusal_message(Migrator::reset(&owner).await.unwrap_err());
        assert!(message.contains(object), "{sql}: {message}");
        assert_eq!(read_catalog(&superuser).await, catalog_before, "{sql}");
    }
}
