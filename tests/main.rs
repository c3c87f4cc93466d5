//! Integration tests against a real PostgreSQL, one module per concern. Each test has its own database.

#![allow(missing_docs)]

/// Asserts that the database refused plain SQL: with `forbidden`, because of a missing privilege or row security, and
/// otherwise with the given SQLSTATE and constraint. If not, panics with the answer.
macro_rules! assert_refused {
    ($answer:expr, forbidden $(, $($why:tt)+)?) => {{
        let answer = $answer;
        assert!(
            answer.as_ref().is_err_and(|refused| refused.is_forbidden()),
            "must be forbidden, but is {answer:?} {}",
            String::new() $(+ &format!($($why)+))?
        );
    }};
    ($answer:expr, $code:expr, $constraint:expr $(, $($why:tt)+)?) => {{
        let answer = $answer;
        assert!(
            answer.as_ref().is_err_and(|refused| refused.is($code, $constraint)),
            "must be refused with {} {}, but is {answer:?} {}",
            $code,
            $constraint,
            String::new() $(+ &format!($($why)+))?
        );
    }};
}

/// Asserts that a call of the service failed with an error that matches the pattern; otherwise panics with the answer.
macro_rules! assert_fails {
    ($answer:expr, $error:pat $(, $($why:tt)+)?) => {{
        let answer = $answer;
        assert!(
            matches!(answer, Err($error)),
            "must fail with {}, but is {answer:?} {}",
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
mod catalog;
mod characters;
mod columns;
mod connections;
mod counters;
mod documents;
mod events;
mod every_table;
mod faults;
mod heroic_saves;
mod hosting;
mod identities;
mod inputs;
mod interleavings;
mod language;
mod leftovers;
mod live;
mod logins;
mod maintenance;
mod maximum_sizes;
mod migrations;
mod misleading_errors;
mod model;
mod nesting;
mod operations;
mod pages;
mod plans;
mod play;
mod pooler;
mod privacy;
mod programs;
mod races;
mod random_operations;
mod refusals;
mod repeats;
mod replicas;
mod retries;
mod rolls;
mod seats;
mod service;
mod sessions;
mod sign_ups;
mod soak;
mod spans;
mod standby;
mod streams;
mod subscribe_many;
mod testdb_server;
mod texts;
mod tutorial;
mod world;
