//! The errors of the checks and repairs.

use sea_orm_migration::prelude::*;

use crate::printable::escape_unprintable;

/// The reason why a command changed nothing. The message is one line with the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The server is older than version 15.
    #[error("PostgreSQL {found} is too old: upgrade the server to version 15 or newer.")]
    ServerTooOld {
        /// The server's version.
        found: String,
    },
    /// The server is a standby, which accepts no writes.
    #[error("This server is a read-only standby: connect to the primary.")]
    Standby,
    /// The role that migrates is one of the roles of Supabase's API: `anon`, `authenticated` or `service_role`.
    #[error(
        "Role \"{role}\" is one of the API's roles, which must not own the schema, because neither row security nor \
         privileges bind an owner: connect as another role."
    )]
    ApiRoleMigrates {
        /// The role that migrates.
        role: String,
    },
    /// The role lacks privileges.
    #[error(
        "Role \"{role}\" lacks {}: grant what is missing, or connect as a role that has it.",
        missing.join(" and ")
    )]
    MissingPrivileges {
        /// The role that migrates.
        role: String,
        /// Each missing privilege with its object, and each missing role attribute, membership or ownership.
        missing: Vec<String>,
    },
    /// The database has objects with names of the schema's objects, but no record that these migrations created them.
    #[error(
        "The database already has {}, and no record that these migrations made it: {}.",
        shorten_list(found),
        if *includes_most_objects {
            "if it was restored from a dump, restore the rows of sparc_migrations and private.sparc_record, too"
        } else {
            "use another database, or rename or drop these objects"
        }
    )]
    NameCollision {
        /// Each object's kind and name, such as `table public.users`.
        found: Vec<String>,
        /// Whether these are most of the schema's objects, as after a restore without rows.
        includes_most_objects: bool,
    },
    /// Other objects have taken the names of missing ones.
    #[error(
        "{} is missing and cannot be created, because its name is taken by {}: rename or drop that, and run `up` \
         again; nothing was changed.",
        missing.join(", "),
        found.join(", ")
    )]
    NameCollisionDuringRepair {
        /// Each missing object.
        missing: Vec<String>,
        /// Each object that has such a name, as PostgreSQL describes it.
        found: Vec<String>,
    },
    /// Tables or columns have each other's names, or one was renamed and another one has its old name.
    #[error(
        "Names were swapped: {}. Restore each name by hand (ALTER TABLE ... RENAME), and run `up` again; nothing was \
         changed.",
        found.join("; ")
    )]
    SwappedNames {
        /// Each object, and what it is according to its comment.
        found: Vec<String>,
    },
    /// Missing tables seem to have been moved to another PostgreSQL schema: tables there have the comments by which
    /// this program recognizes them.
    #[error(
        "Tables of the schema seem to have been moved: {}. Move them back (ALTER TABLE ... SET SCHEMA), or, if they \
         are copies, remove their comments (COMMENT ON TABLE ... IS NULL), and run `up` again; nothing was changed.",
        found.join(", ")
    )]
    MovedTables {
        /// Each table, as PostgreSQL describes it.
        found: Vec<String>,
    },
    /// Objects are renamed, so the objects to drop cannot be found by their names.
    #[error(
        "Objects of the schema were renamed: {}. Run `up`, which restores their names, and then this command; nothing \
         was changed.",
        found.join(", ")
    )]
    RenamedObjects {
        /// Each object's name in the manifest and its present name.
        found: Vec<String>,
    },
    /// `sparc_migrations` is missing or is not a table, a column of it is missing or differs, or it lacks the row of an
    /// applied migration.
    #[error(
        "public.sparc_migrations is not the list of applied migrations (columns version and applied_at, one row for \
         each migration): run `up`, which creates it again, and then this command; nothing was changed."
    )]
    InvalidMigrationsTable,
    /// The same as [`InvalidMigrationsTable`](Self::InvalidMigrationsTable), in a database that an earlier version
    /// migrated: this version has further migrations to apply, and does not repair the table before it applies them.
    #[error(
        "public.sparc_migrations is not the list of applied migrations: run `up` of version \
         {database_version} of this program, which creates that list again, and then `up` of version {}; nothing was \
         changed.",
        env!("CARGO_PKG_VERSION")
    )]
    InvalidMigrationsTableBeforeUpgrade {
        /// The version that the database records.
        database_version: String,
    },
    /// In a database that an earlier version migrated, `private.sparc_record` lacks an entry, and this version has
    /// further migrations to apply. Only the earlier version knows the entry.
    #[error(
        "private.sparc_record lacks the version, the migrations or the objects that this program recorded there: run \
         `up` of {database_version}, which restores them, and then this command; nothing was changed."
    )]
    DamagedRecordBeforeUpgrade {
        /// The version that the database records, such as `version 0.17.0 of this program`. If it records none, a
        /// phrase that means the version that installed the schema.
        database_version: String,
    },
    /// The database has migrations of a newer version of this program.
    #[error(
        "The database was migrated by {database_version} of this program, with {}, which version {} does not know: run \
         {database_version}, or give the URL of another database.",
        found.join(", "),
        env!("CARGO_PKG_VERSION")
    )]
    UnknownMigrations {
        /// The name of each migration that this program does not have.
        found: Vec<String>,
        /// The version that the database records, such as `version 0.18.0`, or `a newer version`.
        database_version: String,
    },
    /// The schema is that of a newer version of this program, and this one would downgrade it.
    #[error(
        "The database was migrated by version {database_version} of this program, and differs from version {}: run \
         version {database_version} or newer; nothing was changed.",
        env!("CARGO_PKG_VERSION")
    )]
    NewerVersion {
        /// The version that the database records.
        database_version: String,
    },
    /// A PostgreSQL schema `auth` exists that is not Supabase's.
    #[error("Schema \"auth\" exists without {missing}: use a Supabase database, or one without a schema \"auth\".")]
    IncompleteAuthSchema {
        /// Supabase's objects that are missing.
        missing: String,
    },
    /// Another role owns objects of the schema.
    #[error(
        "Role \"{role}\" is not a member of the role that owns {}: connect as their owner, or let an administrator \
         make \"{role}\" the owner (ALTER ... OWNER TO).",
        found.join(", ")
    )]
    NotOwner {
        /// The role that migrates.
        role: String,
        /// Each object, with its owner.
        found: Vec<String>,
    },
    /// An operator's objects would be dropped together with the schema's.
    #[error(
        "These objects are not part of the schema and depend on what would be dropped: {}. Drop or change them first; \
         nothing was changed.",
        found.join(", ")
    )]
    Dependents {
        /// Each object, as PostgreSQL describes it.
        found: Vec<String>,
    },
    /// The setting `session_replication_role` turns the triggers off, and the role may not change it.
    #[error(
        "The setting session_replication_role is not \"origin\", so no trigger fires, and this role may not change it: \
         let a superuser reset it (ALTER DATABASE ... RESET session_replication_role, or ALTER ROLE ... RESET), and \
         connect again; nothing was changed."
    )]
    TriggersDisabled,
    /// The configuration of the server turns the triggers off for all connections.
    #[error(
        "The server's configuration ({source_of_setting}) sets session_replication_role = {setting}, so no trigger \
         fires: let a superuser remove this setting (ALTER SYSTEM RESET session_replication_role; SELECT \
         pg_reload_conf()), or remove it from postgresql.conf or from the command that starts the server, and run `up` \
         again; nothing was changed."
    )]
    TriggersDisabledByServer {
        /// The value of `session_replication_role`: `replica` or `local`.
        setting: String,
        /// Where the server has the value from, as PostgreSQL calls it, such as `configuration file`.
        source_of_setting: String,
    },
    /// Another database session holds a lock that the command needs, or is ahead of the command in the queue for it.
    #[error(
        "Other database sessions hold a lock that this command needs, or wait for it ahead of this command \
         ({blockers}): end their transactions, and run the command again; nothing was changed."
    )]
    Locked {
        /// Each process that blocks the command, with the lock for which the command waits. The process holds that
        /// lock, or is ahead of the command in the queue for it.
        blockers: String,
    },
    /// There are differences that `up` cannot repair.
    #[error(
        "`up` cannot repair this: {}. Correct it by hand, and run `up` again; nothing was changed.",
        found.join("; ")
    )]
    NotRepairable {
        /// Each difference.
        found: Vec<String>,
    },
    /// The database rejected a repair.
    #[error(
        "`up` cannot repair {object}, because the database rejects the repair ({reason}): correct the cause by hand, \
         and run `up` again; nothing was changed."
    )]
    RepairRejected {
        /// The object.
        object: String,
        /// The message and the DETAIL of the database's error.
        reason: String,
    },
    /// A column that must not be NULL was dropped together with its values.
    #[error(
        "{object} must not be NULL, but was dropped with the values of {row_count} rows: restore them from a backup, \
         or add the column with its values by hand, and run `up` again; nothing was changed."
    )]
    ValuesLost {
        /// The column.
        object: String,
        /// The number of rows of the table.
        row_count: i64,
    },
    /// Rows violate a constraint, a unique index or NOT NULL that is to be restored.
    #[error(
        "{object} cannot be restored, because rows of {table} violate it: {rows}. Correct those rows, and run `up` \
         again; nothing was changed."
    )]
    ViolatingRows {
        /// The constraint or index, or `NOT NULL of column NAME of TABLE`.
        object: String,
        /// Its table.
        table: String,
        /// The number of these rows, and the keys of the first five.
        rows: String,
    },
}

impl From<MigrationError> for DbErr {
    fn from(error: MigrationError) -> Self {
        // The message contains names of objects, and a quoted name may contain any character.
        DbErr::Migration(escape_unprintable(&error.to_string()))
    }
}

/// Maximum number of objects that [`shorten_list`] lists.
const MAX_NAMES: usize = 10;

/// Returns a phrase with the first [`MAX_NAMES`] names and the number of further ones.
fn shorten_list(names: &[String]) -> String {
    let first = names.get(..MAX_NAMES).unwrap_or(names).join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
