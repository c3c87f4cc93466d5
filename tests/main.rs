//! Integration tests against a real PostgreSQL, one module per concern, and the helpers that they share
//! (`generated_docs`, `random_operations`, `sqlstates`, `world`). A test that needs a database creates one.

#![allow(missing_docs)]

/// Asserts that the database refused a statement of plain SQL. If the second argument is `forbidden`, the SQLSTATE must
/// be `insufficient_privilege`: a privilege was missing, or row-level security, a trigger or a function refused the
/// statement. Without `forbidden`, the second and third arguments are the SQLSTATE and the constraint that the refusal
/// must have. Further arguments are a message, as in `assert!`.
macro_rules! assert_refused {
    ($outcome:expr, forbidden $(, $($why:tt)+)?) => {{
        let outcome = $outcome;
        assert!(
            outcome.as_ref().is_err_and(|refusal| refusal.is_insufficient_privilege()),
            "must be forbidden, but is {outcome:?} {}",
            String::new() $(+ &format!($($why)+))?
        );
    }};
    ($outcome:expr, $code:expr, $constraint:expr $(, $($why:tt)+)?) => {{
        let outcome = $outcome;
        assert!(
            outcome.as_ref().is_err_and(|refusal| refusal.has($code, $constraint)),
            "must be refused with {} {}, but is {outcome:?} {}",
            $code,
            $constraint,
            String::new() $(+ &format!($($why)+))?
        );
    }};
}

/// Asserts that the outcome is an error that matches the pattern. Further arguments are a message, as in `assert!`.
macro_rules! assert_error {
    ($outcome:expr, $error:pat $(, $($why:tt)+)?) => {{
        let outcome = $outcome;
        assert!(
            matches!(outcome, Err($error)),
            "must fail with {}, but is {outcome:?} {}",
            stringify!($error),
            String::new() $(+ &format!($($why)+))?
        );
    }};
}

mod access;
mod accounts;
mod adventures;
mod attacks;
mod bounds;
mod broadcasts;
mod catalogue_pagination;
mod characters;
mod columns_page;
mod connection_leftovers;
mod connections;
mod counters;
mod database_copies;
mod database_logins;
mod errors;
mod events;
mod every_table;
mod faults;
mod generated_docs;
mod heroic_saves;
mod idempotency;
mod identities;
mod initiative;
mod inputs;
mod interleavings;
mod join_codes;
mod joining;
mod live_events;
mod lobby;
mod maintenance;
mod maximum_sizes;
mod migrations;
mod model;
mod module_graph;
mod nested_transactions;
mod operations;
mod outages;
mod pagination;
mod plans;
mod pooler;
mod privacy;
mod races;
mod random_operations;
mod random_programs;
mod refusals;
mod repetitions_after_changes;
mod repository_text;
mod retries;
mod rolls;
mod row_streams;
mod schema_rules;
mod seats;
mod service_writes;
mod session_operations;
mod sessions;
mod sign_ups;
mod soak;
mod spans;
mod sqlstates;
mod standby;
mod subscribe_many;
mod testdb_server;
mod tokens;
mod tutorial;
mod unusual_texts;
mod world;
