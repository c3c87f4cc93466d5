//! The tests that are not run on mutants, and the mutants that no test can kill.

/// Parts of the names of the tests that this program never runs: those whose outcome does not depend on the schema's
/// rules (tests of the test server, the documentation, the migrations and so on), and those that make random calls
/// (`model::`, `random_programs::`, `soak::`, and some of `faults::` and `standby::`). The test that uses the extension
/// `plpgsql_check` is not run either, because the extension would find fault with the text of a changed function
/// itself.
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

/// Why no test fails without a lock that is taken in the order of the rows' ids before an UPDATE.
const ROWS_ARE_UPDATED_IN_ORDER: &str = "without this lock, the UPDATE that follows locks the rows in the same order, \
    because of the plan that PostgreSQL chooses today; it may choose another";

/// The kind and name of each mutant that the tests do not detect, because another rule covers it or because of today's
/// query plans, with the reason. (In the reasons, a *live* session is one that has not ended, and a live seat is a seat
/// that is held in such a session.)
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
        "in the tests, the lock of the profile, which is taken next, makes the same transactions wait; this lock, of the \
         account's row in `private.account_gates`, is needed because all transactions must take it first",
    ),
    // The triggers `limit_*_rows` refuse statements with too many rows, and statements of closed accounts.
    (
        "trigger",
        "session_players.limit_inserted_rows",
        "the limit on an account's live seats is lower, and the function that counts them also refuses closed accounts",
    ),
    (
        "trigger",
        "sessions.limit_inserted_rows",
        "the limit on an account's live sessions is lower, and the function that counts them also refuses closed \
         accounts",
    ),
    (
        "trigger",
        "users.limit_updated_rows",
        "users change only their own profile; a statement that also closes the account fails, because closing changes \
         the same row",
    ),
    ("lock", "private.update_user_stats(): 1", ROWS_ARE_UPDATED_IN_ORDER),
    ("lock", "private.update_user_stats(): 2", ROWS_ARE_UPDATED_IN_ORDER),
];
