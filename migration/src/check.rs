//! What of a database is not as this program carries it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{
    Migrator,
    manifest::{self, Found, Lines, Place},
    preflight, query, rules,
};

/// One object that is not as this program carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The object as the manifest names it: `index idx_users_email on public.users`.
    pub object: String,
    /// Its definition in the database; none where it is missing.
    pub found: Option<String>,
    /// Its definition in the manifest; none where it must not be there.
    pub expected: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match (&self.found, &self.expected) {
            (None, Some(expected)) => write!(f, "missing: {object} ({expected})"),
            (Some(found), Some(expected)) => write!(f, "changed: {object}, from {expected} to {found}"),
            (Some(found), None) if object.starts_with("grant ") => {
                write!(f, "changed: {object}, from nothing to {found}")
            }
            (_, None) => write!(f, "left over: {object}, which an earlier version made"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Structure that is not applied, by name.
    pub pending: Vec<String>,
    /// What `up` would repair.
    pub differences: Vec<Difference>,
    /// What is there besides, and what an operator chose.
    pub hints: Vec<String>,
}

impl Report {
    /// Whether the database is what this program carries.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.pending.is_empty() && self.differences.is_empty()
    }
}

/// A database, and what this program expects of it.
pub(crate) struct State {
    pub(crate) place: Place,
    pub(crate) found: Vec<Found>,
    pub(crate) expected: Lines,
    pub(crate) applied: Option<Vec<String>>,
    pub(crate) record: Record,
}

/// What the program remembers of this database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) is_readable: bool,
    pub(crate) version: Option<String>,
    pub(crate) objects: BTreeSet<String>,
    pub(crate) has_jobs: bool,
}

#[derive(FromQueryResult)]
struct Remembered {
    name: String,
    value: String,
}

impl Record {
    async fn read<C: ConnectionTrait>(db: &C) -> Result<Self, DbErr> {
        if !preflight::can_read(db, "private", "sparc_record").await? {
            return Ok(Self::default());
        }
        let mut record = Self { is_readable: true, ..Self::default() };
        for row in query::all::<_, Remembered>(db, "SELECT name, value FROM private.sparc_record").await? {
            match row.name.as_str() {
                "version" => record.version = Some(row.value),
                "objects" => record.objects = row.value.lines().map(str::to_owned).collect(),
                "jobs" => record.has_jobs = true,
                _ => {}
            }
        }
        Ok(record)
    }
}

impl State {
    /// In a transaction, whose `search_path` it leaves at `pg_catalog`.
    pub(crate) async fn read<C: ConnectionTrait>(db: &C) -> Result<Self, DbErr> {
        let place = Place::read(db).await?;
        let record = Record::read(db).await?;
        let applied = preflight::applied(db).await?;
        if let Some(applied) = &applied {
            preflight::check_known(applied, record.version.as_deref())?;
        }
        let found = manifest::read(db, &place).await?;
        let mut expected = manifest::carried();
        expected.retain(|object, _| place.applies(object));
        Ok(Self { place, found, expected, applied, record })
    }

    pub(crate) fn found(&self) -> BTreeMap<&str, &Found> {
        self.found.iter().map(|found| (found.object.as_str(), found)).collect()
    }

    /// Whether a program of ours made the object, this one or an earlier one.
    pub(crate) fn is_ours(&self, object: &str) -> bool {
        self.expected.contains_key(object) || self.record.objects.contains(object)
    }

    /// Structure that is still to be applied.
    pub(crate) fn pending(&self) -> Vec<String> {
        let names = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect::<Vec<_>>();
        match &self.applied {
            Some(applied) => names.into_iter().filter(|name| !applied.contains(name)).collect(),
            // A role that may not read the list: the catalog says.
            None if self.found().contains_key("table public.sparc_migrations") => Vec::new(),
            None => names,
        }
    }

    pub(crate) fn report(&self) -> Report {
        let mut report = Report { pending: self.pending(), ..Report::default() };
        if !report.pending.is_empty() {
            return report;
        }
        let found = self.found();
        for (object, expected) in &self.expected {
            match found.get(object.as_str()) {
                Some(there) if there.definition == *expected => {}
                Some(there) => report.differences.push(Difference {
                    object: object.clone(),
                    found: Some(there.definition.clone()),
                    expected: Some(expected.clone()),
                }),
                None if self.is_operators_choice(object, &found) => {
                    report.hints.push(format!("{object} is not there; that is the operator's choice"));
                }
                None => report.differences.push(Difference {
                    object: object.clone(),
                    found: None,
                    expected: Some(expected.clone()),
                }),
            }
        }
        for there in &self.found {
            let object = &there.object;
            if self.expected.contains_key(object) {
                continue;
            }
            if self.record.objects.contains(object) || self.is_privilege_on_ours(object) {
                report.differences.push(Difference {
                    object: object.clone(),
                    found: Some(there.definition.clone()),
                    expected: None,
                });
            } else if self.is_worth_a_hint(object) {
                report.hints.push(format!("{object} is not part of the schema, and is left alone"));
            }
        }
        report
    }

    /// What the database holds, and the jobs that `pg_cron` is given.
    pub(crate) fn actual(&self) -> Lines {
        let mut lines: Lines =
            self.found.iter().map(|found| (found.object.clone(), found.definition.clone())).collect();
        lines.extend(rules::jobs().into_iter().map(|(name, command)| (format!("job {name}"), command)));
        lines
    }

    /// What the database holds, and what this program carries where that does not apply in it.
    pub(crate) fn manifest(&self) -> String {
        let mut lines = self.actual();
        lines.extend(
            manifest::carried()
                .into_iter()
                .filter(|(object, _)| !object.starts_with("job ") && !self.place.applies(object)),
        );
        manifest::print(&lines)
    }

    /// Membership of the publication, and jobs that were scheduled once.
    fn is_operators_choice(&self, object: &str, found: &BTreeMap<&str, &Found>) -> bool {
        match manifest::kind(object) {
            "publication of" => found.contains_key("publication supabase_realtime"),
            "job" => self.record.has_jobs || !self.record.is_readable,
            _ => false,
        }
    }

    /// A privilege of the API's roles that nothing gives them.
    fn is_privilege_on_ours(&self, object: &str) -> bool {
        let Some((name, _)) = object.strip_prefix("grant on ").and_then(|rest| rest.rsplit_once(" to ")) else {
            return false;
        };
        self.expected.contains_key(name)
            || name.strip_prefix("table ").is_some_and(|view| self.expected.contains_key(&format!("view {view}")))
    }

    fn is_worth_a_hint(&self, object: &str) -> bool {
        match manifest::kind(object) {
            // On a table of ours; what belongs to a table of the operator's goes without saying.
            "column" | "constraint" | "index" | "trigger" | "policy" => manifest::on_table(object)
                .is_some_and(|(_, table)| self.expected.contains_key(&format!("table {table}"))),
            "function" | "table" | "view" | "type" | "domain" => object.contains(" private."),
            _ => false,
        }
    }
}
