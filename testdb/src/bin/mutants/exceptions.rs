//! The tests that are not run on mutants, and the mutants that no test can kill.

/// Parts of the names of the tests that this program never runs: those whose outcome does not depend on the schema's
/// rules (tests of the test server, the documents, the migrations and so on), and those that make random calls
/// (`model::`, `random_programs::`, `soak::`).
pub const SKIPPED_TESTS: &[&str] = &[
    "testdb_server::",
    "migrations::",
    "documented::",
    "spans::",
    "pooler::",
    "model::",
    "random_programs::",
    "soak::",
    "faults::",
    "standby::",
    "outages::",
    "repository_text::",
    "plpgsql_check",
];

/// The kind and name of each *equivalent* mutant, which no test can detect, with the reason. (In the reasons, a *live*
/// session is one that has not ended, and a live seat is a seat that is held in such a session.)
pub const EQUIVALENT_MUTANTS: &[(&str, &str, &str)] = &[
    (
        "bound",
        "adventures.adventures_max_players_check: 1 becomes 0",
        "`valid_player_range` and the minimum of `min_players` imply it",
    ),
    (
        "bound",
        "adventures.adventures_min_players_check: 6 becomes 7",
        "`valid_player_range` and the maximum of `max_players` imply it",
    ),
    (
        "lock",
        "private.change_email(uuid,text): 1",
        "the lock of the profile, which follows, makes the same transactions wait; the account's row in \
         `private.account_gates` comes first in the lock order",
    ),
    (
        "trigger",
        "session_players.limit_inserted_rows",
        "an account has fewer live seats than the limit of rows, and the function that counts them refuses closed \
         accounts",
    ),
    (
        "trigger",
        "sessions.limit_inserted_rows",
        "an account has fewer live sessions than the limit of rows, and the function that counts them refuses closed \
         accounts",
    ),
    (
        "trigger",
        "users.limit_updated_rows",
        "users change only their own profile, and closing the account in the same statement fails, because it changes \
         the same row",
    ),
    ("lock", "private.update_user_stats(): 1", "the plan locks the rows in order anyway, but no plan guarantees that"),
    ("lock", "private.update_user_stats(): 2", "the plan locks the rows in order anyway, but no plan guarantees that"),
];
