//! The commands that change the database, and the changes that they report.

use std::fmt;

use crate::printable::escape_unprintable;

/// A command of the migrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Apply this many pending migrations, or all of them. If none is pending afterwards, repair the differences from
    /// the manifest.
    Up(Option<u32>),
    /// Undo this many applied migrations, or all of them, the last applied first.
    Down(Option<u32>),
    /// Undo all migrations, and drop the list of migrations.
    Reset,
    /// Undo all migrations, then apply them again.
    Refresh,
}

impl Command {
    /// Returns the maximum number of migrations that the command undoes.
    pub(super) fn max_undo_count(self) -> u32 {
        match self {
            Self::Down(count) => count.unwrap_or(u32::MAX),
            Self::Reset | Self::Refresh => u32::MAX,
            Self::Up(_) => 0,
        }
    }
}

/// One change to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaChange {
    /// The named migration was applied.
    Applied(String),
    /// The named migration was undone.
    Undone(String),
    /// All functions, triggers, policies and views, of which there are this many, were created.
    CreatedObjects(usize),
    /// A renamed object (the first name) got its original name back (the second).
    Renamed(String, String),
    /// A missing object was created.
    Created(String),
    /// An object was altered to its definition in the manifest.
    Changed(String),
    /// An object that is no longer part of the schema was dropped.
    Dropped(String),
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match self {
            Self::Applied(name) => format!("applied {name}"),
            Self::Undone(name) => format!("undone  {name}"),
            Self::CreatedObjects(count) => {
                format!("created {count} functions, triggers, policies and views, and their privileges")
            }
            Self::Renamed(wrong_name, object) => format!("renamed {wrong_name} to {object}"),
            Self::Created(object) => format!("created {object}"),
            Self::Changed(object) => format!("changed {object}"),
            Self::Dropped(object) => format!("dropped {object}"),
        };
        f.write_str(&escape_unprintable(&line))
    }
}
