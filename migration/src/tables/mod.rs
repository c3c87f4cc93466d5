//! The types and the tables of schema `public`, in SeaQuery: one file for the types, one for each table, and one for
//! the three tables of the archive. Functions, triggers, policies and grants are in `sql/`.
//!
//! Where the game's specification (see `docs/decisions.md`) gives a name, the object has that name. An object that the
//! specification defines without a name has the name that PostgreSQL would choose. The code states that name explicitly
//! for foreign keys and for the checks of a table (not of a column). Other objects have names of our own.

use sea_orm_migration::prelude::*;

mod adventures;
mod archive;
mod characters;
mod creatures;
mod definition;
mod dice_rolls;
mod enums;
mod session_events;
mod session_players;
mod sessions;
mod tutorial_progress;
mod users;

use definition::TableDefinition;
pub(crate) use enums::TYPES;

/// Returns the SQL that creates types, tables and indexes, in the order of their dependencies. `search_path` must be
/// `public` when it runs.
pub(crate) fn create_sql() -> Vec<String> {
    let mut sql: Vec<String> = enums::create().map(|r#type| r#type.to_string(PostgresQueryBuilder)).collect();
    for definition in definitions() {
        sql.push(definition.table.to_string(PostgresQueryBuilder));
        sql.extend(definition.indexes.iter().map(|index| index.to_string(PostgresQueryBuilder)));
    }
    // SeaQuery cannot express NULLS LAST in an index.
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

/// Returns the SQL that drops tables and types, in the reverse order of their dependencies.
pub(crate) fn drop_sql() -> Vec<String> {
    let tables = TABLES.iter().rev().map(|name| format!("DROP TABLE IF EXISTS public.{name} CASCADE"));
    tables.chain(TYPES.iter().map(|name| format!("DROP TYPE IF EXISTS public.{name} CASCADE"))).collect()
}

/// Returns the SQL that creates one table, without its indexes. `None` if [`TABLES`] does not contain the name.
pub(crate) fn create_table_sql(name: &str) -> Option<String> {
    let position = TABLES.iter().position(|table| *table == name)?;
    Some(definitions().get(position)?.table.to_string(PostgresQueryBuilder))
}

/// SQL that creates the functions that check constraints call.
pub(crate) const CHECK_FUNCTIONS: &str = include_str!("../../sql/tables/check_functions.sql");

/// SQL that creates `private.account_gates` (one row per account, which every write by the account's user locks), and
/// sets the replica identity of `session_players`.
pub(crate) const GATES_AND_REPLICA_IDENTITY: &str = include_str!("../../sql/tables/gates_and_replica_identity.sql");

/// SQL that creates `private.request_digests`, which has a digest of each request that created a character, an
/// adventure, a creature or a session, and of each request of the service that created an account.
pub(crate) const REQUEST_DIGESTS: &str = include_str!("../../sql/tables/request_digests.sql");

/// SQL that sets the comments on tables and columns, which the API shows.
pub(crate) const COMMENTS: &str = include_str!("../../sql/tables/comments.sql");

/// SQL that adds check constraints on the size of what clients write, on the URLs of pictures, and on all times.
pub(crate) const VALUE_LIMITS: &str = include_str!("../../sql/tables/value_limits.sql");

/// SQL that enables row-level security on the tables, revokes what default privileges granted on them, and grants
/// EXECUTE on the functions that check constraints call.
pub(crate) const ROW_SECURITY_AND_REVOKES: &str = include_str!("../../sql/tables/row_security_and_revokes.sql");

/// SQL that sets the storage parameters of tables (for autovacuum) and of the index on the adventures' content, and the
/// statistics targets of two columns.
pub(crate) const STORAGE_AND_STATISTICS: &str = include_str!("../../sql/tables/storage_and_statistics.sql");

/// The name of every table in schema `public` but `sparc_migrations`, in the order of creation.
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

/// Returns the definitions of the tables in the order of [`TABLES`].
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sea_orm_migration::prelude::PostgresQueryBuilder;

    use super::{ROW_SECURITY_AND_REVOKES, TABLES, definitions};
    use crate::manifest;

    /// Supabase's default privileges grant the API's roles access to every new table. So a table that
    /// `row_security_and_revokes.sql` does not list would be accessible to them.
    #[test]
    fn row_security_and_revokes_sql_lists_every_table() {
        for table in TABLES {
            assert!(
                ROW_SECURITY_AND_REVOKES.contains(&format!("'public.{table}'")),
                "row_security_and_revokes.sql must list {table}"
            );
        }
    }

    /// `create_table_sql` finds a definition by the position of its name in `TABLES`.
    #[test]
    fn definitions_and_names_have_the_same_order() {
        let create_statements: Vec<String> =
            definitions().iter().map(|definition| definition.table.to_string(PostgresQueryBuilder)).collect();
        assert_eq!(create_statements.len(), TABLES.len());
        for (sql, table) in create_statements.iter().zip(TABLES) {
            assert!(sql.starts_with(&format!("CREATE TABLE \"{table}\" (")), "{table}: {sql}");
        }
    }

    /// `up` recognizes a renamed table or column by its comment in the manifest.
    #[test]
    fn no_two_tables_and_no_two_columns_of_a_table_have_the_same_comment() {
        let mut seen = BTreeSet::new();
        for (object, definition) in &manifest::definitions() {
            let Some(commented) = object.strip_prefix("comment on ") else { continue };
            let kind = manifest::kind(commented);
            // The table of a column; `None` for a table.
            let table = manifest::table_of(commented).filter(|_| kind == "column").map(str::to_owned);
            assert!(
                seen.insert((kind.to_owned(), table, definition.clone())),
                "{commented} has the comment of another one: {definition}"
            );
        }
        let count = |kind: &str| seen.iter().filter(|(seen_kind, ..)| seen_kind == kind).count();
        assert!(count("table") > TABLES.len() && count("column") > 100, "the comments were not found");
    }
}
