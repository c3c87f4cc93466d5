//! The state of a database: what it contains, which migrations are applied, and what the program recorded in it.

use std::collections::BTreeMap;

use sea_orm_migration::prelude::*;

use crate::{
    catalog::{self, CatalogObject, Environment},
    manifest::{self, Definitions},
    migrations::migration_names,
    record::{self, AppliedMigrations, Record},
    repeatable, versions,
};

/// The state of a database, and what this program expects in it.
pub(crate) struct State {
    pub(crate) environment: Environment,
    /// The database's objects of every kind that the manifest covers, whoever created them.
    pub(crate) found_objects: Vec<CatalogObject>,
    /// The lines of the manifest that apply to this database: each object that it must have, with its definition.
    pub(crate) expected: Definitions,
    /// Applied migrations, in order, including `unlisted_migrations`. `None` if the role cannot read
    /// `public.sparc_migrations`.
    pub(crate) applied_migrations: Option<Vec<String>>,
    /// Migrations that `private.sparc_record` lists as applied, but `public.sparc_migrations` does not.
    pub(crate) unlisted_migrations: Vec<String>,
    /// What the program recorded in `private.sparc_record`.
    pub(crate) record: Record,
}

impl State {
    /// Reads the state. The call must be in a transaction; it sets the transaction's `search_path` to `pg_catalog`.
    /// Returns an error if the server is too old, or if `public.sparc_migrations` lists a migration that this program
    /// does not have.
    pub(crate) async fn read<C: ConnectionTrait>(db: &C) -> Result<Self, DbErr> {
        versions::check_server_version(db).await?;
        let record = Record::read(db).await?;
        let environment = Environment::read(db, &record).await?;
        let mut unlisted_migrations = Vec::new();
        let applied_migrations = match record::read_applied(db).await? {
            AppliedMigrations::Unreadable => None,
            AppliedMigrations::Listed(mut listed) => {
                versions::check_migrations_known(&listed, record.version.as_deref())?;
                unlisted_migrations.extend(record.migrations.iter().filter(|name| !listed.contains(name)).cloned());
                listed.extend(unlisted_migrations.iter().cloned());
                listed.sort_unstable();
                Some(listed)
            }
        };
        let found_objects = catalog::read_objects(db, &environment).await?;
        let mut expected = manifest::definitions();
        expected.retain(|object, _| environment.line_applies(object));
        Ok(Self { environment, found_objects, expected, applied_migrations, unlisted_migrations, record })
    }

    /// Returns the database's objects by their names in the manifest.
    pub(crate) fn found_by_name(&self) -> BTreeMap<&str, &CatalogObject> {
        self.found_objects.iter().map(|found| (found.name.as_str(), found)).collect()
    }

    /// Whether the object belongs to the schema of this version, or an earlier version created it.
    pub(crate) fn is_ours(&self, object: &str) -> bool {
        self.expected.contains_key(object) || self.record.objects.contains(object)
    }

    /// Whether an earlier version has installed the whole schema (only then does the record list migrations), and
    /// migrations of this version are pending.
    pub(crate) fn needs_upgrade(&self) -> bool {
        !self.record.migrations.is_empty() && !self.pending_migrations().is_empty()
    }

    /// Returns the migrations that are not applied.
    pub(crate) fn pending_migrations(&self) -> Vec<String> {
        let names = migration_names();
        match &self.applied_migrations {
            Some(applied) => names.into_iter().filter(|name| !applied.contains(name)).collect(),
            // The role cannot read `public.sparc_migrations`. If that is a table (and not, for example, a view of that
            // name), all migrations count as applied.
            None if self.found_by_name().contains_key("table public.sparc_migrations") => Vec::new(),
            None => names,
        }
    }

    /// Whether the whole schema is installed, but `private.sparc_record` lacks something without which an upgrade would
    /// go wrong. Without the version, `up` would not notice that a newer version has migrated the database. Without the
    /// list of migrations, it would install the schema a second time. Without the list of objects, it would keep
    /// objects that this version no longer has.
    pub(crate) fn has_damaged_record(&self) -> bool {
        // Policies and triggers are created last, so if one exists, the whole schema is installed.
        let is_installed = self.found_objects.iter().any(|found| {
            matches!(manifest::kind(&found.name), "policy" | "trigger")
                && found.name.contains(" on public.")
                && self.expected.contains_key(&found.name)
        });
        let record = &self.record;
        is_installed && (record.version.is_none() || record.migrations.is_empty() || record.objects.is_empty())
    }

    /// Returns the definitions of the database's objects. Because the database may lack `pg_cron`, the jobs'
    /// definitions are taken from `sql/jobs/schedule.sql`.
    pub(crate) fn found_definitions(&self) -> Definitions {
        let mut definitions: Definitions =
            self.found_objects.iter().map(|found| (found.name.clone(), found.definition.clone())).collect();
        definitions.extend(repeatable::jobs().into_iter().map(|(name, command)| (format!("job {name}"), command)));
        definitions
    }

    /// Returns the manifest of the database. The lines of objects that this database cannot have are taken from the
    /// committed manifest.
    pub(crate) fn full_manifest(&self) -> String {
        let mut definitions = self.found_definitions();
        definitions.extend(
            manifest::definitions()
                .into_iter()
                .filter(|(object, _)| !object.starts_with("job ") && !self.environment.line_applies(object)),
        );
        manifest::format_lines(&definitions)
    }
}
