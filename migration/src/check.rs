//! Compares a database with the manifest, the list of every object of the schema with its definition.

use std::{collections::BTreeMap, fmt};

use crate::{
    catalog::CatalogObject, manifest, migrations::migration_names, printable::escape_unprintable, record, renames,
    state::State, versions,
};

/// One object that differs from the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The object as the manifest names it: `index idx_users_email on public.users`. An applied migration that
    /// `public.sparc_migrations` does not list is named `migration NAME in public.sparc_migrations`. An entry of the
    /// program's record that is missing or incomplete is named `entry NAME of private.sparc_record`.
    pub object: String,
    /// Its definition in the database. `None` if it is missing.
    pub found: Option<String>,
    /// Its definition in the manifest. `None` if it must not exist.
    pub expected: Option<String>,
    /// The object's current name, if it is missing because it was renamed.
    pub renamed_to: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        let line = match (&self.renamed_to, &self.found, &self.expected) {
            (Some(current_name), ..) => format!("renamed: {object}, to {current_name}"),
            (None, None, Some(expected)) => format!("missing: {object} ({expected})"),
            (None, Some(found), Some(expected)) => format!("changed: {object}, from {expected} to {found}"),
            (None, Some(found), None) if object.starts_with("grant ") => {
                format!("changed: {object}, from nothing to {found}")
            }
            (None, _, None) => format!("left over: {object}, created by an earlier version"),
        };
        f.write_str(&escape_unprintable(&line))
    }
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Names of migrations that are not applied.
    pub pending: Vec<String>,
    /// The differences from the manifest. `up` repairs them, or returns an error if it cannot repair one of them.
    pub differences: Vec<Difference>,
    /// Objects that are not part of the schema, and choices left to the operator. `up` does not change them.
    pub hints: Vec<String>,
}

impl Report {
    /// Returns whether every migration is applied and nothing differs.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.pending.is_empty() && self.differences.is_empty()
    }
}

impl State {
    /// Compares the database with the manifest. If migrations are pending, the report lists nothing but them.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report { pending: self.pending_migrations(), ..Report::default() };
        if !report.pending.is_empty() {
            return report;
        }
        let found_by_name = self.found_by_name();
        let renames = renames::find(self);
        // The columns, indexes and so on of a renamed table are found under its new name. So the report mentions them
        // neither as missing nor as new. If schema `private` itself was renamed, the same applies to every object whose
        // name or definition mentions that schema.
        let private_schema_was_renamed = renames.iter().any(|rename| rename.object == "schema private");
        let is_affected_by_rename = |object: &str| {
            let mentions_private_schema = |text: &str| text.contains("private.") || text.contains("schema private");
            if private_schema_was_renamed
                && (mentions_private_schema(object)
                    || self.expected.get(object).is_some_and(|definition| mentions_private_schema(definition)))
            {
                return true;
            }
            let table = manifest::table_of(object).unwrap_or_default();
            renames.iter().any(|rename| {
                [&rename.object, &rename.renamed_to].iter().any(|name| name.strip_prefix("table ") == Some(table))
            })
        };
        // If a definition refers to a renamed table or type, the database prints the definition with the new name. The
        // definition is correct once the old name is restored. So the new name in it is replaced by the old one before
        // the definition is compared.
        let with_expected_names = |definition: &str| {
            renames.iter().fold(definition.to_owned(), |definition, rename| {
                match (rename.renamed_to.split_once(' '), rename.object.split_once(' ')) {
                    (Some(("table" | "type", current_name)), Some((_, name))) => definition.replace(current_name, name),
                    _ => definition,
                }
            })
        };
        let difference = |object: &str, found: Option<&CatalogObject>, expected: Option<&String>| Difference {
            object: object.to_owned(),
            found: found.map(|found| found.definition.clone()),
            expected: expected.cloned(),
            renamed_to: renames.iter().find(|rename| rename.object == object).map(|rename| rename.renamed_to.clone()),
        };
        for name in &self.unlisted_migrations {
            let object = format!("migration {name} in public.sparc_migrations");
            report.differences.push(difference(&object, None, Some(&"applied".to_owned())));
        }
        report.differences.extend(self.differences_of_record(&found_by_name));
        for (object, expected) in &self.expected {
            let found = found_by_name.get(object.as_str()).copied();
            if found.is_some_and(|found| {
                found.definition == *expected || with_expected_names(&found.definition) == *expected
            }) {
                continue;
            }
            if found.is_none() && self.is_operators_choice(object, &found_by_name) {
                report.hints.push(format!("{object} is missing, which is the operator's choice"));
            } else if !is_affected_by_rename(object) || renames.iter().any(|rename| rename.object == *object) {
                report.differences.push(difference(object, found, Some(expected)));
            }
        }
        for found in &self.found_objects {
            let object = &found.name;
            if self.expected.contains_key(object) || is_affected_by_rename(object) {
                continue;
            }
            if self.record.objects.contains(object) || self.is_privilege_on_expected_object(object) {
                report.differences.push(difference(object, Some(found), None));
            } else if self.is_worth_a_hint(object) && !renames.iter().any(|rename| rename.renamed_to == *object) {
                report.hints.push(format!("{object} is not part of the schema; up does not change it"));
            }
        }
        report.hints.iter_mut().for_each(|hint| *hint = escape_unprintable(hint));
        report
    }

    /// Returns a difference for each entry of `private.sparc_record` that is missing or incomplete. Returns none if the
    /// role cannot read the record, or if a newer version of this program wrote it: its entries may have another form.
    fn differences_of_record(&self, found_by_name: &BTreeMap<&str, &CatalogObject>) -> Vec<Difference> {
        let record = &self.record;
        if !record.is_readable || versions::check_not_migrated_by_newer_version(record).is_err() {
            return Vec::new();
        }
        let mut differences = Vec::new();
        let mut add = |entry: &str, found: Option<String>, expected: String| {
            let object = format!("entry {entry} of private.sparc_record");
            differences.push(Difference { object, found, expected: Some(expected), renamed_to: None });
        };
        // The text of an incomplete entry; `None` if the entry is missing.
        let join_found = |names: &[&str]| (!names.is_empty()).then(|| names.join(", "));
        // An earlier version's number is no difference: the next `up` replaces it.
        if record.version.is_none() {
            add("version", None, env!("CARGO_PKG_VERSION").to_owned());
        }
        let migrations = migration_names();
        if !migrations.iter().all(|name| record.migrations.contains(name)) {
            let found: Vec<&str> = record.migrations.iter().map(String::as_str).collect();
            add("migrations", join_found(&found), migrations.join(", "));
        }
        // Objects that do not exist are differences themselves.
        let unrecorded_count = record::objects_to_record()
            .iter()
            .filter(|object| found_by_name.contains_key(object.as_str()) && !record.objects.contains(*object))
            .count();
        if unrecorded_count > 0 {
            let found = (!record.objects.is_empty()).then(|| format!("all but {unrecorded_count} of them"));
            add("objects", found, "the functions, triggers, policies and views of the schema".to_owned());
        }
        let environment = &self.environment;
        let schemas: Vec<&str> =
            [("auth", environment.has_platform_stand_in), ("private", environment.private_schema_is_ours)]
                .into_iter()
                .filter_map(|(schema, is_ours)| is_ours.then_some(schema))
                .collect();
        if !schemas.iter().all(|schema| record.schemas.contains(*schema)) {
            let found: Vec<&str> = record.schemas.iter().map(String::as_str).collect();
            add("schemas", join_found(&found), schemas.join(", "));
        }
        differences
    }

    /// Whether the operator may have removed the missing object on purpose: it is a table's membership in the
    /// publication `supabase_realtime`, which itself exists, or a job that was scheduled before.
    fn is_operators_choice(&self, object: &str, found_by_name: &BTreeMap<&str, &CatalogObject>) -> bool {
        match manifest::kind(object) {
            "publication of" => found_by_name.contains_key("publication supabase_realtime"),
            // If `private.sparc_record` is not readable, the jobs may have been scheduled before, so a missing job is
            // not reported as a difference.
            "job" => self.record.jobs_were_scheduled || !self.record.is_readable,
            _ => false,
        }
    }

    /// Whether the object is a privilege on one of the schema's objects.
    fn is_privilege_on_expected_object(&self, object: &str) -> bool {
        let Some((name, _)) = object.strip_prefix("grant on ").and_then(|rest| rest.rsplit_once(" to ")) else {
            return false;
        };
        // In the manifest, a privilege on a view is a `grant on table`, because GRANT has no keyword for views.
        self.expected.contains_key(name)
            || name.strip_prefix("table ").is_some_and(|view| self.expected.contains_key(&format!("view {view}")))
    }

    /// Whether the report mentions the object, which is not part of the schema, as a hint for the operator.
    fn is_worth_a_hint(&self, object: &str) -> bool {
        match manifest::kind(object) {
            // These objects are mentioned only if they belong to a table or view of the schema.
            "column" | "constraint" | "index" | "trigger" | "policy" | "rule" | "setting" | "statistics" | "child"
            | "parent" => manifest::name_and_table(object).is_some_and(|(_, relation)| {
                ["table", "view"].iter().any(|kind| self.expected.contains_key(&format!("{kind} {relation}")))
            }),
            // These objects are mentioned only if they are in schema `private`.
            "function" | "table" | "view" | "sequence" | "type" | "domain" => object.contains(" private."),
            _ => false,
        }
    }
}
