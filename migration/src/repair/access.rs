//! Repairs of access (row-level security, privileges, roles), and of what is set up once: the publication and the jobs.

use super::{Plan, Work};
use crate::{manifest, query, repeatable};

/// Whether default privileges apply to new objects of that kind.
fn is_granted_by_default(kind: &str) -> bool {
    matches!(kind, "table" | "view" | "function" | "sequence" | "type" | "domain" | "schema")
}

impl Plan {
    pub(super) fn repair_access(&mut self, work: &Work<'_>) {
        self.repair_row_security(work);
        self.repair_privileges(work);
        self.repair_roles(work);
        self.repair_publication(work);
        self.repair_jobs(work);
    }

    fn repair_row_security(&mut self, work: &Work<'_>) {
        for (object, expected) in work.to_repair().filter(|(object, _)| manifest::kind(object) == "row security") {
            let Some(table) = object.strip_prefix("row security on ") else { continue };
            let enable = if expected.starts_with("enabled") { "ENABLE" } else { "DISABLE" };
            self.push_for(format!("ALTER TABLE {table} {enable} ROW LEVEL SECURITY"), object, None);
            if !expected.contains("forced") {
                self.push_for(format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"), object, None);
            }
        }
    }

    fn repair_privileges(&mut self, work: &Work<'_>) {
        // Default privileges may have granted access to what the statements before create.
        for object in work.missing.iter().filter(|object| is_granted_by_default(manifest::kind(object))) {
            let (kind, name) = object.split_once(' ').unwrap_or_default();
            let kind = if kind == "view" { "table" } else { kind };
            self.push_for(
                format!("REVOKE ALL ON {kind} {name} FROM PUBLIC, anon, authenticated, service_role"),
                object,
                None,
            );
        }
        let changed = work.changed.iter().map(|difference| &difference.object);
        for object in work.missing.iter().chain(changed) {
            let Some((on, role)) = object.strip_prefix("grant on ").and_then(|rest| rest.rsplit_once(" to ")) else {
                continue;
            };
            if on == "schema public" {
                // The platform decides about USAGE; no API role may create objects there.
                self.push_for(format!("REVOKE CREATE ON {on} FROM PUBLIC, {role} CASCADE"), object, None);
            } else {
                self.push_for(format!("REVOKE ALL ON {on} FROM {role} CASCADE"), object, None);
            }
            if let Some(privileges) = work.state.expected.get(object) {
                self.push_for(format!("GRANT {privileges} ON {on} TO {role}"), object, None);
            }
        }
    }

    /// Restores the attributes that decide whether row-level security applies to the API roles. A role to which it must
    /// apply leaves all roles of which it is a member.
    fn repair_roles(&mut self, work: &Work<'_>) {
        for (object, expected) in work.to_repair().filter(|(object, _)| manifest::kind(object) == "role") {
            let Some(role) = object.strip_prefix("role ") else { continue };
            if expected.starts_with("bypasses") {
                self.push_for(format!("ALTER ROLE {role} BYPASSRLS"), object, None);
                continue;
            }
            let sql = format!(
                "DO $$
DECLARE
  granted name;
BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = '{role}') THEN
    ALTER ROLE {role} NOSUPERUSER;
  END IF;
  IF (SELECT rolbypassrls FROM pg_roles WHERE rolname = '{role}') THEN
    ALTER ROLE {role} NOBYPASSRLS;
  END IF;
  FOR granted IN
    SELECT rolname
    FROM pg_auth_members
    JOIN pg_roles ON pg_roles.oid = roleid
    WHERE member = '{role}'::regrole
  LOOP
    EXECUTE format('REVOKE %I FROM {role}', granted);
  END LOOP;
END
$$"
            );
            self.push_for(sql, object, None);
        }
    }

    fn repair_publication(&mut self, work: &Work<'_>) {
        let publication = "publication supabase_realtime";
        if work.missing.contains(publication) {
            self.push_for(repeatable::PUBLICATION.to_owned(), publication, None);
            return;
        }
        if let Some(difference) = work.changed.iter().find(|difference| difference.object == publication) {
            let publish = difference.expected.as_deref().unwrap_or_default();
            self.push_for(
                format!("ALTER PUBLICATION supabase_realtime SET (publish = '{publish}')"),
                publication,
                None,
            );
        }
        // A table that is dropped leaves the publication, although nobody decided that. So when the table is created
        // again, it is also added to the publication again.
        for table in work.missing.iter().filter_map(|object| object.strip_prefix("table ")) {
            let object = format!("publication supabase_realtime of {table}");
            if work.state.expected.contains_key(&object) {
                let sql = format!(
                    "DO $$
BEGIN
  IF NOT (SELECT puballtables FROM pg_publication WHERE pubname = 'supabase_realtime') THEN
    ALTER PUBLICATION supabase_realtime ADD TABLE {table};
  END IF;
END
$$"
                );
                self.push_for(sql, &object, None);
            }
        }
    }

    fn repair_jobs(&mut self, work: &Work<'_>) {
        if work.missing_of_kind("job").next().is_some() {
            self.push(repeatable::JOBS);
        }
        for difference in work.changed.iter().filter(|difference| difference.object.starts_with("job ")) {
            let name = difference.object.trim_start_matches("job ");
            let command = difference.expected.as_deref().unwrap_or_default();
            // Only the command is restored, because the schedule is the operator's choice.
            let sql = format!(
                "SELECT cron.alter_job(jobid, command := {}) FROM cron.job WHERE jobname = {} AND database = current_database()",
                query::literal(command),
                query::literal(name)
            );
            self.push_for(sql, &difference.object, None);
        }
    }
}
