//! What `up` does about a difference: the statements that make the database what the manifest says.

use std::collections::BTreeSet;

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

use crate::{
    PreflightError,
    check::{Difference, Report, State},
    dependents,
    manifest::{self, Found, on_table},
    rules,
    statements::{Statement, Target},
    tables,
};

/// Statements, in order, and one change for each object that they are about.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) statements: Vec<Repair>,
    pub(crate) changes: Vec<Change>,
}

/// One statement, and the object that it is about.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    pub(crate) sql: String,
    /// A constraint or unique index that rows may stand in the way of, with its table and definition.
    pub(crate) asks_rows: Option<Asked>,
}

/// What rows are asked for: see [`crate::rows`].
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) object: String,
    pub(crate) table: String,
    pub(crate) definition: String,
}

/// What becomes of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created(String),
    Changed(String),
    Dropped(String),
}

impl Plan {
    /// Reads what depends on what would be dropped; changes nothing.
    pub(crate) async fn make<C: ConnectionTrait>(db: &C, state: &State, report: &Report) -> Result<Self, DbErr> {
        let mut plan = Self::default();
        let impossible: Vec<String> =
            report.differences.iter().filter(|difference| is_beyond(difference)).map(ToString::to_string).collect();
        if !impossible.is_empty() {
            return Err(PreflightError::NotRepairable { found: impossible }.into());
        }

        let found = state.found();
        let dropped: Vec<&Found> = report
            .differences
            .iter()
            .filter(|difference| difference.found.is_some() && must_be_dropped(difference))
            .filter_map(|difference| found.get(difference.object.as_str()).copied())
            .collect();
        // What the cascade takes of ours is made again, like what was missing.
        let cascaded = dependents::of(db, state, &dropped).await?;
        for kinds in [["policy", "trigger"], ["constraint", "index"], ["view", "function"]] {
            for object in dropped.iter().filter(|object| kinds.contains(&manifest::kind(&object.object))) {
                plan.push(drop(&object.object));
            }
        }

        let mut missing: BTreeSet<String> =
            cascaded.into_iter().filter(|object| state.expected.contains_key(object)).collect();
        let mut changed = Vec::new();
        for difference in &report.differences {
            let object = difference.object.clone();
            plan.changes.push(match (&difference.found, &difference.expected) {
                (None, _) => Change::Created(object.clone()),
                (Some(_), None) if !object.starts_with("grant ") => Change::Dropped(object.clone()),
                _ => Change::Changed(object.clone()),
            });
            match (&difference.found, &difference.expected) {
                (None, Some(_)) => _ = missing.insert(object),
                (Some(_), Some(_)) if must_be_dropped(difference) => _ = missing.insert(object),
                _ => changed.push(difference),
            }
        }
        // What is made again has no privileges; what changes its owner loses those of the owner before.
        let is_bare = |name: &str| {
            let view = name.replacen("table ", "view ", 1);
            missing.contains(name)
                || missing.contains(&view)
                || changed
                    .iter()
                    .any(|difference| is_anothers(difference) && [name, &view].contains(&&*difference.object))
        };
        let privileges: Vec<String> = state
            .expected
            .keys()
            .filter(|object| {
                let rest = object.strip_prefix("grant on ").and_then(|rest| rest.rsplit_once(" to "));
                rest.is_some_and(|(name, _)| is_bare(name))
            })
            .cloned()
            .collect();
        missing.extend(privileges);
        plan.structure(state, &missing, &changed);
        plan.rules(state, &missing, &changed);
        plan.privileges(state, &missing, &changed);
        // What was made again has no comments.
        if missing.iter().any(|object| matches!(manifest::kind(object), "table" | "column")) {
            plan.push(tables::COMMENTS);
        }
        // Who signed up while no trigger told us of it.
        if missing.iter().any(|object| object.starts_with("trigger ") && object.ends_with(" on auth.users")) {
            plan.push(rules::BACKFILL);
        }
        Ok(plan)
    }

    fn push(&mut self, sql: impl Into<String>) {
        self.statements.push(Repair { sql: sql.into(), asks_rows: None });
    }

    fn push_asking(&mut self, sql: String, object: &str, table: &str, definition: &str) {
        let asked = Asked { object: object.to_owned(), table: table.to_owned(), definition: definition.to_owned() };
        self.statements.push(Repair { sql, asks_rows: Some(asked) });
    }

    /// Schema, types, tables and columns.
    fn structure(&mut self, state: &State, missing: &BTreeSet<String>, changed: &[&Difference]) {
        let of_kind = |wanted: &'static str| missing.iter().filter(move |object| manifest::kind(object) == wanted);
        for object in of_kind("schema") {
            self.push(format!("CREATE {object}"));
        }
        for object in of_kind("type") {
            self.push(format!("CREATE {object} AS {}", state.expected[object]));
        }
        for object in of_kind("domain") {
            self.push(format!("CREATE {object} AS {}", state.expected[object]));
        }
        if of_kind("table").next().is_some() {
            // Checks of the tables call them.
            self.push(tables::CHECK_FUNCTIONS);
            self.push("SET LOCAL search_path = public");
        }
        let mut made = Vec::new();
        for name in tables::TABLES {
            if let Some(sql) = tables::create_one(name).filter(|_| missing.contains(&format!("table public.{name}"))) {
                self.push(sql);
                made.push(format!("public.{name}"));
            }
        }
        for object in of_kind("table") {
            let Some(name) = object.strip_prefix("table ").filter(|name| !made.iter().any(|made| made == name)) else {
                continue;
            };
            self.push(format!("CREATE TABLE {name} ()"));
        }
        self.push("SET LOCAL search_path = pg_catalog");
        for object in of_kind("column") {
            if let Some((name, table)) = on_table(object) {
                let exists = if made.iter().any(|made| made == table) { " IF NOT EXISTS" } else { "" };
                let definition = &state.expected[object];
                self.push_asking(
                    format!("ALTER TABLE {table} ADD COLUMN{exists} {name} {definition}"),
                    object,
                    table,
                    "",
                );
            }
        }
        for difference in changed.iter().filter(|difference| is_anothers(difference)) {
            self.push(give_to_owner(&difference.object));
        }
        for difference in changed {
            let (Some(is), Some(wanted)) = (&difference.found, &difference.expected) else { continue };
            match manifest::kind(&difference.object) {
                "type" => self.enum_values(&difference.object, is, wanted),
                "column" => self.column(&difference.object, is, wanted),
                "table" => self.table(&difference.object, is),
                _ => {}
            }
        }
    }

    fn enum_values(&mut self, object: &str, is: &str, wanted: &str) {
        let mut before: Option<&str> = None;
        for value in values(wanted) {
            if !values(is).contains(&value) {
                let place = before.map_or(String::new(), |before| format!(" AFTER {before}"));
                self.push(format!("ALTER {object} ADD VALUE {value}{place}"));
            }
            before = Some(value);
        }
    }

    fn column(&mut self, object: &str, is: &str, wanted: &str) {
        let Some((name, table)) = on_table(object) else { return };
        let (is, wanted) = (Column::parse(is), Column::parse(wanted));
        let alter = format!("ALTER TABLE {table} ALTER COLUMN {name}");
        if is.kind != wanted.kind {
            if is.default.is_some() {
                self.push(format!("{alter} DROP DEFAULT"));
            }
            self.push(format!("{alter} TYPE {} USING {name}::{}", wanted.kind, wanted.kind));
        }
        if is.default != wanted.default || is.kind != wanted.kind {
            match wanted.default {
                Some(default) => self.push(format!("{alter} SET DEFAULT {default}")),
                None => self.push(format!("{alter} DROP DEFAULT")),
            }
        }
        if is.not_null != wanted.not_null {
            if wanted.not_null {
                self.push_asking(format!("{alter} SET NOT NULL"), object, table, &format!("NOT NULL {name}"));
            } else {
                self.push(format!("{alter} DROP NOT NULL"));
            }
        }
        if is.generated != wanted.generated {
            if is.generated.is_some() {
                self.push(format!("{alter} DROP IDENTITY IF EXISTS"));
            }
            if let Some(generated) = wanted.generated {
                self.push(format!("{alter} ADD {generated}"));
                // A new sequence begins after the numbers that are there.
                self.push(format!(
                    "SELECT setval(pg_get_serial_sequence('{table}', '{name}'), coalesce(max({name}), 0) + 1, false) FROM {table}"
                ));
            }
        }
    }

    fn table(&mut self, object: &str, is: &str) {
        let Some(table) = object.strip_prefix("table ") else { return };
        if is.contains(", unlogged") {
            self.push(format!("ALTER TABLE {table} SET LOGGED"));
        }
    }

    /// After its index is there.
    fn replica_identity(&mut self, object: &str, wanted: &str) {
        let Some(table) = object.strip_prefix("table ") else { return };
        if let Some(identity) = wanted.strip_prefix("replica identity ") {
            let identity = identity.split(", ").next().unwrap_or(identity).replace("index ", "using index ");
            self.push(format!("ALTER TABLE {table} REPLICA IDENTITY {identity}"));
        }
    }

    /// Functions and views; then what calls them.
    fn rules(&mut self, state: &State, missing: &BTreeSet<String>, changed: &[&Difference]) {
        let wanted: BTreeSet<&str> = missing
            .iter()
            .map(String::as_str)
            .chain(
                changed
                    .iter()
                    .filter(|difference| difference.expected.is_some())
                    .map(|difference| difference.object.as_str()),
            )
            .collect();
        let is_policy_in_block = in_blocks(state, "policy").any(|object| wanted.contains(object));
        let is_trigger_in_block = in_blocks(state, "trigger").any(|object| wanted.contains(object));
        let is_chosen = |statement: &Statement| match statement.target {
            Target::Other => {
                (is_policy_in_block && statement.sql.contains("CREATE POLICY"))
                    || (is_trigger_in_block && statement.sql.contains(" TRIGGER "))
            }
            _ => makes_any(statement, &wanted),
        };
        let chosen: Vec<Statement> = rules::statements().into_iter().filter(is_chosen).collect();
        let (first, then): (Vec<Statement>, Vec<Statement>) =
            chosen.into_iter().partition(|statement| matches!(statement.target, Target::Function(_) | Target::View(_)));
        for statement in &first {
            self.push(statement.sql);
        }
        for (kind, is_key) in [("constraint", true), ("index", false), ("constraint", false)] {
            for object in wanted.iter().filter(|object| manifest::kind(object) == kind) {
                let (Some((name, table)), definition) = (on_table(object), &state.expected[*object]) else { continue };
                let is_foreign = definition.starts_with("FOREIGN KEY");
                if kind == "index" {
                    self.push_asking(definition.clone(), object, table, definition);
                } else if is_key != is_foreign {
                    self.push(format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}"));
                    self.push_asking(
                        format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"),
                        object,
                        table,
                        definition,
                    );
                }
            }
        }
        for object in wanted.iter().filter(|object| manifest::kind(object) == "table") {
            self.replica_identity(object, &state.expected[*object]);
        }
        // Blocks make all of their policies.
        if is_policy_in_block {
            for (name, table) in in_blocks(state, "policy").filter_map(on_table) {
                self.push(format!("DROP POLICY IF EXISTS {name} ON {table}"));
            }
        }
        for statement in &then {
            if let Target::Policy(name, table) = &statement.target {
                self.push(format!("DROP POLICY IF EXISTS \"{}\" ON {table}", name.replace('"', "\"\"")));
            }
            self.push(statement.sql);
        }
    }

    /// Who may do what: row security, grants, and what is set up once.
    fn privileges(&mut self, state: &State, missing: &BTreeSet<String>, changed: &[&Difference]) {
        let row_security = |object: &str| object.strip_prefix("row security on ").map(str::to_owned);
        for table in missing
            .iter()
            .map(String::as_str)
            .chain(changed.iter().map(|difference| difference.object.as_str()))
            .filter_map(row_security)
        {
            self.push(format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
            if !state.expected[&format!("row security on {table}")].contains("forced") {
                self.push(format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"));
            }
        }
        // Default privileges opened what was made just now, to whom it may concern.
        for object in
            missing.iter().filter(|object| matches!(manifest::kind(object), "table" | "view" | "function" | "sequence"))
        {
            let (kind, name) = object.split_once(' ').unwrap_or_default();
            let kind = if kind == "view" { "table" } else { kind };
            self.push(format!("REVOKE ALL ON {kind} {name} FROM PUBLIC, anon, authenticated, service_role"));
        }
        for (object, wanted) in missing
            .iter()
            .map(|object| (object, state.expected.get(object)))
            .chain(changed.iter().map(|difference| (&difference.object, difference.expected.as_ref())))
        {
            let Some((on, role)) = object.strip_prefix("grant on ").and_then(|rest| rest.rsplit_once(" to ")) else {
                continue;
            };
            if on == "schema public" {
                // Who may use it is told by the platform; nobody of the API makes objects there.
                self.push(format!("REVOKE CREATE ON {on} FROM PUBLIC, {role} CASCADE"));
            } else {
                self.push(format!("REVOKE ALL ON {on} FROM {role} CASCADE"));
            }
            if let Some(privileges) = wanted {
                self.push(format!("GRANT {privileges} ON {on} TO {role}"));
            }
        }
        // A table that is made again was published because we said so, not because an operator did.
        for table in missing.iter().filter_map(|object| object.strip_prefix("table ")) {
            let is_published = state.expected.contains_key(&format!("publication supabase_realtime of {table}"));
            if is_published && !missing.contains("publication supabase_realtime") {
                self.push(format!("ALTER PUBLICATION supabase_realtime ADD TABLE {table}"));
            }
        }
        if missing.contains("publication supabase_realtime") {
            self.push(rules::PUBLICATION);
        } else if changed.iter().any(|difference| difference.object == "publication supabase_realtime") {
            let publish = &state.expected["publication supabase_realtime"];
            self.push(format!("ALTER PUBLICATION supabase_realtime SET (publish = '{publish}')"));
        }
        if missing.iter().any(|object| object.starts_with("job ")) {
            self.push(rules::JOBS);
        }
        for difference in changed.iter().filter(|difference| difference.object.starts_with("job ")) {
            let name = difference.object.trim_start_matches("job ");
            let command = difference.expected.as_deref().unwrap_or_default();
            // The command is ours, the schedule the operator's.
            self.push(format!(
                "SELECT cron.alter_job(jobid, command := {}) FROM cron.job WHERE jobname = {} AND database = current_database()",
                crate::query::literal(command),
                crate::query::literal(name)
            ));
        }
    }
}

/// What no statement puts right without losing rows.
fn is_beyond(difference: &Difference) -> bool {
    let (Some(is), Some(wanted)) = (&difference.found, &difference.expected) else { return false };
    match manifest::kind(&difference.object) {
        "type" => values(is).iter().any(|value| !values(wanted).contains(value)),
        "domain" => !is_anothers(difference),
        "sequence" => true,
        _ => false,
    }
}

/// Whether another role owns the object than the one that owns the rest.
fn is_anothers(difference: &Difference) -> bool {
    difference.found.as_deref().is_some_and(|found| found.contains(OTHERS))
        && difference.expected.as_deref().is_some_and(|expected| !expected.contains(OTHERS))
}

/// What the catalog query says of such an object.
const OTHERS: &str = "owned by another role";

fn give_to_owner(object: &str) -> String {
    format!(
        "DO $$
BEGIN
  EXECUTE format(
    'ALTER {object} OWNER TO %I',
    (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'public.sparc_migrations'::regclass)
  );
END
$$"
    )
}

/// What cannot be replaced in its place, or is no longer part of the schema.
fn must_be_dropped(difference: &Difference) -> bool {
    let signature = |definition: &str| definition.split(" language ").next().unwrap_or_default().to_owned();
    match (manifest::kind(&difference.object), &difference.found, &difference.expected) {
        (
            "grant" | "row security" | "job" | "publication" | "publication of" | "column" | "table" | "type"
            | "domain",
            ..,
        ) => false,
        (_, Some(_), None) => true,
        ("function", Some(is), Some(wanted)) => signature(is) != signature(wanted),
        ("view" | "index", Some(_), Some(_)) => true,
        _ => false,
    }
}

fn drop(object: &str) -> String {
    let (kind, rest) = object.split_once(' ').unwrap_or_default();
    match (kind, on_table(object)) {
        ("constraint", Some((name, table))) => format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}"),
        ("index", Some((name, table))) => {
            let schema = table.split('.').next().unwrap_or("public");
            format!("DROP INDEX IF EXISTS {schema}.{name}")
        }
        ("trigger" | "policy", Some(_)) => format!("DROP {kind} IF EXISTS {rest}"),
        // Policies, triggers and checks of ours go along, and are made again.
        _ => format!("DROP {kind} IF EXISTS {rest} CASCADE"),
    }
}

/// Drops every view, function and policy of ours that is not a part of a table.
pub(crate) fn withdraw(state: &State) -> Vec<String> {
    let mut sql = Vec::new();
    for kind in ["policy", "view", "function"] {
        for found in
            state.found.iter().filter(|found| manifest::kind(&found.object) == kind && state.is_ours(&found.object))
        {
            let is_elsewhere = found.object.ends_with(" on realtime.messages");
            if (kind == "policy" && !is_elsewhere) || found.object.starts_with("function auth.") {
                continue;
            }
            let (_, name) = found.object.split_once(' ').unwrap_or_default();
            let cascade = if kind == "policy" { "" } else { " CASCADE" };
            // One that went with another before it is gone.
            sql.push(format!("DROP {kind} IF EXISTS {name}{cascade}"));
        }
    }
    sql
}

/// Whether the statement makes one of the objects.
fn makes_any(statement: &Statement, objects: &BTreeSet<&str>) -> bool {
    let of_table = |kind: &str, name: &str, table: &str| {
        objects.contains(format!("{kind} {name} on {table}").as_str())
            || objects.contains(format!("{kind} \"{name}\" on {table}").as_str())
    };
    match &statement.target {
        Target::Function(name) => {
            let prefix = format!("function {name}(");
            objects.iter().any(|object| object.starts_with(&prefix))
        }
        Target::View(name) => objects.contains(format!("view {name}").as_str()),
        Target::Trigger(name, table) => of_table("trigger", name, table),
        Target::Policy(name, table) => of_table("policy", &name.replace('"', "\"\""), table),
        Target::Other | Target::Privilege => false,
    }
}

/// Policies or triggers that no plain statement makes: a block does, for many tables.
fn in_blocks<'a>(state: &'a State, kind: &'static str) -> impl Iterator<Item = &'a str> {
    let plain: Vec<Statement> =
        rules::statements().into_iter().filter(|statement| statement.target != Target::Other).collect();
    state
        .expected
        .keys()
        .map(String::as_str)
        .filter(move |object| manifest::kind(object) == kind)
        .filter(move |object| !plain.iter().any(|statement| makes_any(statement, &BTreeSet::from([*object]))))
}

/// The values of `enum ('a', 'b')`, quoted as they are.
fn values(definition: &str) -> Vec<&str> {
    let inside = definition.trim_start_matches("enum (").split(')').next().unwrap_or_default();
    inside.split(", ").collect()
}

/// A column's definition in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Column<'a> {
    kind: &'a str,
    not_null: bool,
    default: Option<&'a str>,
    generated: Option<&'a str>,
}

impl<'a> Column<'a> {
    fn parse(definition: &'a str) -> Self {
        let (rest, default) = match definition.split_once(" default ") {
            Some((rest, default)) if !rest.contains(" generated ") => (rest, Some(default)),
            _ => (definition, None),
        };
        let (rest, generated) = match rest.find(" generated ") {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let (kind, not_null) = match rest.strip_suffix(" not null") {
            Some(kind) => (kind, true),
            None => (rest, false),
        };
        Self { kind, not_null, default, generated }
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, values};

    #[test]
    fn a_column_is_read_in_its_parts() {
        let column = Column::parse("timestamp with time zone not null default now()");
        let expected =
            Column { kind: "timestamp with time zone", not_null: true, default: Some("now()"), generated: None };
        assert_eq!(column, expected);
        let column = Column::parse("bigint not null generated by default as identity");
        assert_eq!(
            (column.kind, column.not_null, column.generated),
            ("bigint", true, Some("generated by default as identity"))
        );
        assert_eq!(values("enum ('a', 'b')"), ["'a'", "'b'"]);
    }
}
