//! What a plan of repairs consists of: its statements, the objects that they repair, and what is to be repaired.

use std::collections::BTreeSet;

use crate::{check::Difference, manifest, state::State};

/// The statements that repair all differences. The methods of this type change nothing in the database: they only add
/// statements to the plan, although some of them query the database.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In the order in which they must run.
    pub(crate) statements: Vec<Repair>,
    /// One change for each object that differs.
    pub(crate) changes: Vec<Change>,
    /// Statements that restore the privileges of operators' roles on objects that are dropped and created again: views,
    /// functions and bookkeeping tables.
    pub(super) operator_grants: Vec<Repair>,
}

/// A statement of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    pub(crate) sql: String,
    /// The object that the error message names if the database rejects the statement.
    pub(crate) object: Option<ObjectUnderRepair>,
}

/// The object that a statement repairs.
#[derive(Clone, Debug)]
pub(crate) struct ObjectUnderRepair {
    /// Its name in the manifest; for the recount of counters, a description.
    pub(crate) name: String,
    /// The table whose rows may violate the object's definition: see [`crate::violations`].
    pub(crate) table: Option<String>,
    /// Its definition in the manifest, or `NOT NULL` and the column's name if the statement makes a column NOT NULL.
    /// Empty if no rows can violate it.
    pub(crate) definition: String,
}

/// What the repairs do to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created(String),
    Changed(String),
    Dropped(String),
}

/// What the plan must repair, grouped by the kind of repair.
pub(super) struct Defects<'a> {
    pub(super) state: &'a State,
    /// The missing objects, those that the plan drops and creates again, and the privileges to grant again because its
    /// statements remove them.
    pub(super) to_create: BTreeSet<String>,
    /// The other differences: objects to alter, privileges to revoke, and objects that the plan only drops.
    pub(super) to_alter_or_drop: Vec<&'a Difference>,
}

impl Defects<'_> {
    pub(super) fn to_create_of_kind(&self, kind: &'static str) -> impl Iterator<Item = &String> {
        self.to_create.iter().filter(move |object| manifest::kind(object) == kind)
    }

    /// Returns every object to create or alter that is in the manifest, with its definition there.
    pub(super) fn to_restore(&self) -> impl Iterator<Item = (&str, &str)> {
        let to_alter = self
            .to_alter_or_drop
            .iter()
            .filter(|difference| difference.expected.is_some())
            .map(|difference| &difference.object);
        self.to_create.iter().chain(to_alter).filter_map(|object| {
            let definition = self.state.expected.get(object)?;
            Some((object.as_str(), definition.as_str()))
        })
    }
}

impl Plan {
    /// Adds a statement that belongs to no particular object. If the database rejects it, the error names no object.
    pub(super) fn push(&mut self, sql: impl Into<String>) {
        self.statements.push(Repair { sql: sql.into(), object: None });
    }

    /// Adds a statement that repairs one object. If the database rejects it, the error names that object. If existing
    /// rows may violate the object's definition, as with constraints and unique indexes, `table_and_definition` must be
    /// given, so that the error message can name those rows.
    pub(super) fn push_repair(&mut self, sql: String, object: &str, table_and_definition: Option<(&str, &str)>) {
        let (table, definition) = table_and_definition.unzip();
        let object_under_repair = ObjectUnderRepair {
            name: object.to_owned(),
            table: table.map(str::to_owned),
            definition: definition.unwrap_or_default().to_owned(),
        };
        self.statements.push(Repair { sql, object: Some(object_under_repair) });
    }
}
