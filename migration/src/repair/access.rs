//! Repairs of access (row-level security, privileges, roles), of the publication, and of the jobs.

use super::plan::{Defects, Plan};
use crate::{
    manifest,
    owner::SCHEMA_OWNER_SQL,
    query,
    repeatable::{self, PUBLIC_AND_API_ROLES},
};

/// Whether default privileges (ALTER DEFAULT PRIVILEGES) apply to new objects of the kind.
fn has_default_privileges(kind: &str) -> bool {
    matches!(kind, "table" | "view" | "function" | "sequence" | "type" | "domain" | "schema")
}

impl Plan {
    /// Resets the setting `session_replication_role` wherever it is stored for a role or a database, even if the stored
    /// value is `origin`. The roles and databases are selected by the same conditions as in the catalog query. (For
    /// this transaction, `set_up_and_lock_sql` in `script` has already set the setting to `origin`.)
    pub(super) fn repair_session_replication_role(&mut self, defects: &Defects<'_>) {
        let object = "session_replication_role";
        if !defects.to_restore().any(|(name, _)| name == object) {
            return;
        }
        let sql = "DO $$
DECLARE
  role_or_database text;
BEGIN
  FOR role_or_database IN
    SELECT
      CASE
        WHEN setrole <> 0 THEN concat_ws(' IN DATABASE ', 'ROLE ' || setrole::regrole, quote_ident(datname))
        ELSE coalesce('DATABASE ' || quote_ident(datname), 'ROLE ALL')
      END
    FROM pg_db_role_setting
    LEFT JOIN pg_database ON pg_database.oid = setdatabase
    WHERE EXISTS (SELECT FROM unnest(setconfig) AS item WHERE lower(item) LIKE 'session\\_replication\\_role=%')
      AND (setdatabase = 0 OR datname = current_database())
      AND (
        setrole = 0
        OR setrole IN (
          SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('auth') AND relname = 'users'
        )
        OR EXISTS (
          SELECT
          FROM pg_roles AS api_role
          WHERE api_role.rolname IN ('anon', 'authenticated', 'service_role')
            AND pg_has_role(setrole, api_role.oid, 'MEMBER')
        )
      )
  LOOP
    EXECUTE format('ALTER %s RESET session_replication_role', role_or_database);
  END LOOP;
END
$$";
        self.push_repair(sql.to_owned(), object, None);
    }

    /// Grants owners what they lack on their own objects.
    pub(super) fn restore_privileges_of_owners(&mut self, defects: &Defects<'_>) {
        let found = defects.state.found_by_name();
        for difference in &defects.to_alter_or_drop {
            let object = difference.object.as_str();
            let owner_lacks_privileges = difference.expected.is_some()
                && difference.found.as_ref().is_some_and(|definition| definition.contains(", its owner lacks "));
            let (true, Some(catalog_object)) = (owner_lacks_privileges, found.get(object)) else { continue };
            let (kind, name) = object.split_once(' ').unwrap_or_default();
            let (kind_keyword, catalog, owner_column) = match kind {
                "schema" => ("SCHEMA", "pg_namespace", "nspowner"),
                "table" => ("TABLE", "pg_class", "relowner"),
                "sequence" => ("SEQUENCE", "pg_class", "relowner"),
                "function" => ("ROUTINE", "pg_proc", "proowner"),
                "type" => ("TYPE", "pg_type", "typowner"),
                // Views are created again, and then their owner has all privileges.
                _ => continue,
            };
            let sql = format!(
                "DO $do$
BEGIN
  EXECUTE format(
    'GRANT ALL ON {kind_keyword} %s TO %I',
    {},
    (SELECT pg_get_userbyid({owner_column}) FROM {catalog} WHERE oid = {})
  );
END
$do$",
                query::literal(name),
                catalog_object.objid
            );
            self.push_repair(sql, object, None);
        }
    }

    pub(super) fn repair_access(&mut self, defects: &Defects<'_>) {
        self.repair_row_security(defects);
        self.repair_privileges(defects);
        self.repair_roles(defects);
        self.repair_publication(defects);
        self.repair_jobs(defects);
    }

    fn repair_row_security(&mut self, defects: &Defects<'_>) {
        for (object, expected) in defects.to_restore().filter(|(object, _)| manifest::kind(object) == "row security") {
            let Some(table) = object.strip_prefix("row security on ") else { continue };
            let enable_or_disable = if expected.starts_with("enabled") { "ENABLE" } else { "DISABLE" };
            self.push_repair(format!("ALTER TABLE {table} {enable_or_disable} ROW LEVEL SECURITY"), object, None);
            if !expected.contains("forced") {
                self.push_repair(format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"), object, None);
            }
        }
    }

    fn repair_privileges(&mut self, defects: &Defects<'_>) {
        // When the earlier statements of the plan create objects, default privileges may grant access to them, which is
        // revoked here.
        for object in defects.to_create.iter().filter(|object| has_default_privileges(manifest::kind(object))) {
            let (kind, name) = object.split_once(' ').unwrap_or_default();
            let kind = if kind == "view" { "table" } else { kind };
            self.push_repair(format!("REVOKE ALL ON {kind} {name} FROM {PUBLIC_AND_API_ROLES}"), object, None);
        }
        let to_alter_or_drop = defects.to_alter_or_drop.iter().map(|difference| &difference.object);
        for object in defects.to_create.iter().chain(to_alter_or_drop) {
            let Some((target, role)) = object.strip_prefix("grant on ").and_then(|rest| rest.rsplit_once(" to "))
            else {
                continue;
            };
            if target == "schema public" {
                // The API roles keep USAGE on this schema, but none may create objects in it, not even through PUBLIC.
                self.push_repair(format!("REVOKE CREATE ON {target} FROM PUBLIC, {role} CASCADE"), object, None);
            } else {
                self.push_repair(format!("REVOKE ALL ON {target} FROM {role} CASCADE"), object, None);
            }
            if let Some(privileges) = defects.state.expected.get(object) {
                self.push_repair(format!("GRANT {privileges} ON {target} TO {role}"), object, None);
            }
        }
    }

    /// Removes the attributes, privileges and memberships that an API role must not have, and restores BYPASSRLS of
    /// `service_role`. The definition of a role is a list of phrases, which the catalog query writes.
    fn repair_roles(&mut self, defects: &Defects<'_>) {
        for difference in &defects.to_alter_or_drop {
            let (Some(role), Some(found), Some(expected)) =
                (difference.object.strip_prefix("role "), &difference.found, &difference.expected)
            else {
                continue;
            };
            let (phrases, parent_roles) = found.split_once(", member of ").unwrap_or((found, ""));
            let must_bypass = expected.starts_with("bypasses");
            // For a superuser, this phrase does not show whether the role has the attribute, so the attribute is always
            // set or removed.
            let bypasses = phrases.split(", ").next() == Some("bypasses row security");
            if must_bypass != bypasses || phrases.contains(", superuser") {
                let attribute = if must_bypass { "BYPASSRLS" } else { "NOBYPASSRLS" };
                self.push_repair(format!("ALTER ROLE {role} {attribute}"), &difference.object, None);
            }
            for phrase in phrases.split(", ") {
                let sql = match phrase {
                    "superuser" => format!("ALTER ROLE {role} NOSUPERUSER"),
                    "can log in" => format!("ALTER ROLE {role} NOLOGIN"),
                    "creates roles" => format!("ALTER ROLE {role} NOCREATEROLE"),
                    "creates databases" => format!("ALTER ROLE {role} NOCREATEDB"),
                    "replicates" => format!("ALTER ROLE {role} NOREPLICATION"),
                    "creates schemas in the database" => format!(
                        "DO $$
BEGIN
  EXECUTE format('REVOKE CREATE ON DATABASE %I FROM PUBLIC, {role} CASCADE', current_database());
END
$$"
                    ),
                    "creates objects in schema extensions" => {
                        format!("REVOKE CREATE ON SCHEMA extensions FROM PUBLIC, {role} CASCADE")
                    }
                    "disables triggers by session_replication_role" => {
                        format!("REVOKE ALL ON PARAMETER session_replication_role FROM PUBLIC, {role} CASCADE")
                    }
                    _ => continue,
                };
                self.push_repair(sql, &difference.object, None);
            }
            if !parent_roles.is_empty() {
                self.push_repair(revoke_memberships_sql(role, parent_roles), &difference.object, None);
            }
        }
    }

    fn repair_publication(&mut self, defects: &Defects<'_>) {
        let publication = "publication supabase_realtime";
        if defects.to_create.contains(publication) {
            self.push_repair(repeatable::PUBLICATION.to_owned(), publication, None);
            return;
        }
        if let Some(difference) = defects.to_alter_or_drop.iter().find(|difference| difference.object == publication) {
            let published_operations = difference.expected.as_deref().unwrap_or_default();
            self.push_repair(
                format!("ALTER PUBLICATION supabase_realtime SET (publish = '{published_operations}')"),
                publication,
                None,
            );
        }
        for difference in defects.to_alter_or_drop.iter().filter(|difference| difference.expected.is_some()) {
            let Some(table) = difference.object.strip_prefix("publication supabase_realtime of ") else { continue };
            for action in ["DROP", "ADD"] {
                let sql = format!("ALTER PUBLICATION supabase_realtime {action} TABLE {table}");
                self.push_repair(sql, &difference.object, None);
            }
        }
        // An operator may take a table out of the publication. But a table that was dropped left the publication
        // without that choice, so when the table is created again, it is also added to the publication again.
        for table in defects.to_create.iter().filter_map(|object| object.strip_prefix("table ")) {
            let object = format!("publication supabase_realtime of {table}");
            if defects.state.expected.contains_key(&object) {
                let sql = format!(
                    "DO $$
BEGIN
  IF NOT (SELECT puballtables FROM pg_publication WHERE pubname = 'supabase_realtime') THEN
    ALTER PUBLICATION supabase_realtime ADD TABLE {table};
  END IF;
END
$$"
                );
                self.push_repair(sql, &object, None);
            }
        }
    }

    fn repair_jobs(&mut self, defects: &Defects<'_>) {
        if defects.to_create_of_kind("job").next().is_some() {
            self.push(repeatable::JOBS);
        }
        for difference in &defects.to_alter_or_drop {
            let Some(name) = difference.object.strip_prefix("job ") else { continue };
            let command = difference.expected.as_deref().unwrap_or_default();
            // Only the command and the user are restored, because the schedule is the operator's choice. A job whose
            // user lacks the privileges of the owner is scheduled again, because `pg_cron` cannot change a job's user.
            let sql = format!(
                "DO $do$
DECLARE
  job record;
BEGIN
  FOR job IN SELECT * FROM cron.job WHERE jobname = {name} AND database = current_database() LOOP
    IF coalesce(
      (SELECT pg_has_role(oid, {SCHEMA_OWNER_SQL}, 'USAGE') FROM pg_roles WHERE rolname = job.username), false
    ) THEN
      PERFORM cron.alter_job(job.jobid, command := {command});
    ELSE
      PERFORM cron.unschedule(job.jobid);
      PERFORM cron.alter_job(cron.schedule({name}, job.schedule, {command}), active := job.active);
    END IF;
  END LOOP;
END
$do$",
                name = query::literal(name),
                command = query::literal(command)
            );
            self.push_repair(sql, &difference.object, None);
        }
    }
}

/// Returns the SQL that ends the role's memberships in `parent_roles`, a text of quoted names with `, ` between them.
/// (A name that itself contains this separator is not found in the text; then a difference is left, which `up`
/// reports.)
fn revoke_memberships_sql(role: &str, parent_roles: &str) -> String {
    // Since PostgreSQL 16, several roles can grant the same membership, and each of these grants is revoked on its own.
    // A REVOKE without GRANTED BY may choose another grantor than that of the grant to revoke.
    format!(
        "DO $$
DECLARE
  membership record;
BEGIN
  FOR membership IN
    SELECT roleid::regrole AS parent_role, grantor::regrole AS grantor
    FROM pg_auth_members
    WHERE member = '{role}'::regrole AND roleid::regrole::text = ANY (string_to_array({}, ', '))
  LOOP
    EXECUTE format(
      'REVOKE %s FROM {role} %s CASCADE',
      membership.parent_role,
      CASE
        WHEN current_setting('server_version_num')::integer >= 160000 THEN 'GRANTED BY ' || membership.grantor
        ELSE ''
      END
    );
  END LOOP;
END
$$",
        query::literal(parent_roles)
    )
}
