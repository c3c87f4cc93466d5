//! The tables, one file each, in SeaQuery. What they do (functions, triggers) and who may touch them (policies,
//! grants) stands in `sql/`.
//!
//! Names are the specification's. PostgreSQL names what the specification leaves unnamed; where a name must be given
//! here (foreign keys, checks over two columns), it is the one that PostgreSQL would have chosen.

use sea_orm_migration::prelude::*;

mod adventures;
mod archive;
mod characters;
mod creatures;
mod dice_rolls;
mod enums;
mod session_events;
mod session_players;
mod sessions;
mod tutorial_progress;
mod users;

/// SQL that makes types, tables and indexes, in the order in which they need each other; unqualified names are in `public`.
pub(crate) fn create() -> Vec<String> {
    let mut sql: Vec<String> = enums::create().map(|r#type| r#type.to_string(PostgresQueryBuilder)).collect();
    for part in definitions() {
        sql.push(part.table.to_string(PostgresQueryBuilder));
        sql.extend(part.indexes.iter().map(|index| index.to_string(PostgresQueryBuilder)));
    }
    // SeaQuery has no words for the place of NULLs in an index.
    sql.push(
        "CREATE INDEX idx_characters_last_played
         ON public.characters (last_played_at DESC NULLS LAST)"
            .to_owned(),
    );
    sql.push(
        "CREATE INDEX idx_adventures_best_rated
         ON public.adventures (average_rating DESC NULLS LAST, id)
         WHERE status = 'published'"
            .to_owned(),
    );
    sql
}

/// SQL that takes tables and types away, in the opposite order.
pub(crate) fn drop() -> Vec<String> {
    let tables = TABLES.iter().rev().map(|name| format!("DROP TABLE IF EXISTS public.{name} CASCADE"));
    tables.chain(TYPES.iter().map(|name| format!("DROP TYPE IF EXISTS public.{name} CASCADE"))).collect()
}

/// SQL that makes one table again, without its indexes.
pub(crate) fn create_one(name: &str) -> Option<String> {
    let at = TABLES.iter().position(|table| *table == name)?;
    Some(definitions().get(at)?.table.to_string(PostgresQueryBuilder))
}

/// Pure functions that the checks ask.
pub(crate) const CHECK_FUNCTIONS: &str = include_str!("../../sql/tables/check_functions.sql");

/// One row an account, which its writes lock; and what a deleted seat tells its subscribers.
pub(crate) const GATES: &str = include_str!("../../sql/tables/gates.sql");

/// What was asked when a row was created.
pub(crate) const REQUESTS: &str = include_str!("../../sql/tables/requests.sql");

/// What the API shows of tables and columns.
pub(crate) const COMMENTS: &str = include_str!("../../sql/tables/comments.sql");

/// Size limits of what a client writes.
pub(crate) const SIZE_LIMITS: &str = include_str!("../../sql/tables/size_limits.sql");

/// Closes what default privileges opened.
pub(crate) const REVOKED_DEFAULTS: &str = include_str!("../../sql/tables/revoked_defaults.sql");

/// When tables are vacuumed.
pub(crate) const VACUUM_SETTINGS: &str = include_str!("../../sql/tables/vacuum.sql");

/// Every table of ours, in the order of creation.
pub(crate) const TABLES: [&str; 12] = [
    "users",
    "characters",
    "adventures",
    "creatures",
    "sessions",
    "session_players",
    "dice_rolls",
    "session_events",
    "tutorial_progress",
    "archived_sessions",
    "archived_session_players",
    "archived_dice_rolls",
];

/// Every enumerated type of ours.
pub(crate) use enums::TYPES;

/// One table with the indexes that are its own.
struct TableDefinition {
    table: TableCreateStatement,
    indexes: Vec<IndexCreateStatement>,
}

fn definitions() -> Vec<TableDefinition> {
    vec![
        users::definition(),
        characters::definition(),
        adventures::definition(),
        creatures::definition(),
        sessions::definition(),
        session_players::definition(),
        dice_rolls::definition(),
        session_events::definition(),
        tutorial_progress::definition(),
        archive::sessions(),
        archive::session_players(),
        archive::dice_rolls(),
    ]
}

/// A column of the given name, not null.
fn required(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).not_null().to_owned()
}

/// A column of the given name that may be null.
fn optional(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name))
}

/// `id UUID PRIMARY KEY DEFAULT gen_random_uuid()`.
fn id() -> ColumnDef {
    required("id").uuid().primary_key().default(Expr::cust("gen_random_uuid()")).to_owned()
}

/// `NAME TIMESTAMPTZ NOT NULL DEFAULT now()`.
fn timestamp_now(name: &'static str) -> ColumnDef {
    required(name).timestamp_with_time_zone().default(Expr::cust("now()")).to_owned()
}

/// `NAME INTEGER NOT NULL DEFAULT 0 CHECK (NAME >= 0)`: a counter that the server keeps.
fn counter(name: &'static str) -> ColumnDef {
    required(name).integer().default(0).check(Expr::cust(format!("{name} >= 0"))).to_owned()
}

/// A foreign key, named as PostgreSQL would.
fn foreign_key(
    table: &'static str,
    column: &'static str,
    target: impl IntoTableRef,
    on_delete: ForeignKeyAction,
) -> ForeignKeyCreateStatement {
    let mut key = ForeignKey::create();
    key.name(format!("{table}_{column}_fkey")).from(Alias::new(table), Alias::new(column)).to(target, Alias::new("id"));
    // NO ACTION is the default, and stays unsaid as in the specification.
    if !matches!(on_delete, ForeignKeyAction::NoAction) {
        key.on_delete(on_delete);
    }
    key.to_owned()
}

fn index(name: &'static str, table: &'static str) -> IndexCreateStatement {
    Index::create().name(name).table(Alias::new(table)).to_owned()
}

/// An index over plain ascending columns.
fn index_on(name: &'static str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = index(name, table);
    for column in columns {
        index.col(Alias::new(*column));
    }
    index
}

/// A named table check.
fn named(name: &'static str, condition: &'static str) -> Check {
    Check::named(name, Expr::cust(condition))
}
