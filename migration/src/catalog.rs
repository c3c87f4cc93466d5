//! The objects in a database's catalog that a manifest covers, and the properties of the database that decide which
//! lines of the manifest apply to it.

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{owner::SCHEMA_OWNER_SQL, query, record::Record, repeatable};

/// An object in the database, or an attribute of an object, such as a privilege or a comment.
#[derive(Clone, Debug, FromQueryResult)]
pub(crate) struct CatalogObject {
    /// The object as the manifest names it: `index idx_users_email on public.users`.
    pub(crate) name: String,
    /// Its definition, in the form that the manifest has.
    pub(crate) definition: String,
    /// The system catalog that contains it; for a column, `pg_class`, which contains its table. `None` for jobs, roles
    /// and `session_replication_role`, and for attributes of another object, such as privileges, row-level security and
    /// comments.
    pub(crate) class: Option<String>,
    /// Its oid in that catalog. For an attribute, the oid of the object to which it belongs; for a role, the role's
    /// oid; for a job, the job's id; for `session_replication_role`, 0.
    pub(crate) objid: i64,
    /// For a column, and for its comment and its statistics target, the number of the column; `objid` is then the oid
    /// of the table. Otherwise 0.
    pub(crate) subid: i32,
}

/// Properties of a database that decide which lines of the manifest apply to it.
#[derive(Clone, Debug, Default, FromQueryResult)]
pub(crate) struct Environment {
    /// Whether these migrations created schema `auth` as a stand-in for Supabase's (even if somebody has dropped it
    /// since).
    pub(crate) has_platform_stand_in: bool,
    /// Whether Supabase's table `realtime.messages`, which holds broadcasts, exists.
    pub(crate) has_realtime: bool,
    /// Whether `pg_cron` is installed, and this role has USAGE on its schema.
    pub(crate) has_cron: bool,
    /// Whether these migrations created schema `private`, or will create it, because it does not exist.
    pub(crate) private_schema_is_ours: bool,
}

impl Environment {
    pub(crate) async fn read<C: ConnectionTrait>(db: &C, record: &Record) -> Result<Self, DbErr> {
        let mut environment: Self = query::fetch_one(
            db,
            "SELECT
               EXISTS (
                 SELECT
                 FROM pg_catalog.pg_namespace
                 WHERE nspname = 'auth' AND obj_description(oid, 'pg_namespace') LIKE 'made by sparc%'
               ) AS has_platform_stand_in,
               EXISTS (
                 SELECT
                 FROM pg_catalog.pg_class
                 JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
                 WHERE nspname = 'realtime' AND relname = 'messages'
               ) AS has_realtime,
               EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron')
                 AND EXISTS (
                   SELECT
                   FROM pg_catalog.pg_namespace
                   WHERE nspname = 'cron' AND has_schema_privilege(oid, 'USAGE')
                 ) AS has_cron,
               to_regnamespace('private') IS NULL
                 OR coalesce(obj_description(to_regnamespace('private'), 'pg_namespace'), '') LIKE 'made by sparc%'
                 AS private_schema_is_ours",
        )
        .await?;
        // If schema `auth`, or the comment on `auth` or `private`, was dropped, only `private.sparc_record` still says
        // that these migrations created that schema.
        environment.has_platform_stand_in |= record.schemas.contains("auth");
        environment.private_schema_is_ours |= record.schemas.contains("private");
        Ok(environment)
    }

    /// Returns whether the object's line in the manifest applies to this database.
    pub(crate) fn line_applies(&self, object: &str) -> bool {
        if object.starts_with("job ") {
            self.has_cron
        } else if object.starts_with("policy ") && object.ends_with(" on realtime.messages") {
            self.has_realtime
        } else if object == "comment on schema private" {
            self.private_schema_is_ours
        } else {
            self.has_platform_stand_in || !belongs_to_stand_in(object)
        }
    }
}

/// Whether the object belongs to the stand-in for Supabase's schema `auth`. The game's triggers on `auth.users` do not
/// belong to it, nor do the game's functions, even if an argument has a type of schema `auth`.
fn belongs_to_stand_in(object: &str) -> bool {
    !object.starts_with("trigger ")
        && (object.contains(" auth.")
            || object.starts_with("grant on schema auth ")
            || object == "schema auth"
            || object == "comment on schema auth")
        && !object.starts_with("function private.")
        && !object.starts_with("function public.")
}

/// Reads all objects in the database that a manifest covers. The call must be in a transaction, whose `search_path` is
/// `pg_catalog` afterwards.
pub(crate) async fn read_objects<C: ConnectionTrait>(
    db: &C,
    environment: &Environment,
) -> Result<Vec<CatalogObject>, DbErr> {
    db.execute_unprepared("SET LOCAL search_path = pg_catalog").await?;
    let mut catalog_sql = include_str!("../sql/manifest/catalog.sql").to_owned();
    if environment.has_platform_stand_in {
        catalog_sql = catalog_sql.replace("/* stand-in */ false", "true");
    }
    let mut found: Vec<CatalogObject> = query::fetch_all(db, &catalog_sql).await?;
    if environment.has_cron {
        let job_names: Vec<String> = repeatable::jobs().into_iter().map(|(name, _)| name).collect();
        let jobs_sql = format!(
            // A role without the privileges of the schema's owner cannot do the job's work. If such a role runs the
            // job, the definition says so.
            "SELECT
               'job ' || jobname AS name,
               command || CASE
                 WHEN coalesce(
                   (SELECT pg_has_role(oid, {SCHEMA_OWNER_SQL}, 'USAGE') FROM pg_roles WHERE rolname = username), false
                 ) THEN ''
                 ELSE ', run by ' || quote_ident(username) || ' without the privileges of the owner'
               END AS definition,
               NULL::text AS class,
               jobid AS objid,
               0 AS subid
             FROM cron.job
             WHERE database = current_database() AND jobname IN ({})",
            query::literals(job_names.iter().map(String::as_str))
        );
        found.extend(query::fetch_all::<_, CatalogObject>(db, &jobs_sql).await?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::Environment;

    #[test]
    fn lines_of_the_stand_in_and_of_jobs_do_not_apply_to_supabase_without_cron() {
        let supabase_without_cron = Environment::default();
        for (object, expected) in [
            ("table auth.users", false),
            ("column id of auth.users", false),
            ("grant on function auth.uid() to anon", false),
            ("grant on schema auth to anon", false),
            ("trigger on_auth_user_created on auth.users", true),
            ("table public.users", true),
            ("job archive-sessions", false),
        ] {
            assert_eq!(supabase_without_cron.line_applies(object), expected, "{object}");
        }
    }
}
