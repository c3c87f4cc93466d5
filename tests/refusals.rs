//! For every way in which the database refuses a statement, the service has an error whose message tells a person what
//! was wrong.

use sea_orm::{ConnectionTrait, EntityTrait};
use sparc::{
    entity::{characters, session_players, users},
    service::{Error, Operations},
};

use crate::{
    sqlstates::{
        ADMIN_SHUTDOWN, CHECK_VIOLATION, DEADLOCK_DETECTED, DISK_FULL, FOREIGN_KEY_VIOLATION, INSUFFICIENT_PRIVILEGE,
        INTERNAL_ERROR, INVALID_TEXT_REPRESENTATION, OUT_OF_MEMORY, QUERY_CANCELED, READ_ONLY_SQL_TRANSACTION,
        SERIALIZATION_FAILURE, TOO_MANY_CONNECTIONS, UNIQUE_VIOLATION, UNTRANSLATABLE_CHARACTER,
    },
    world::World,
};

/// Raises an error in the database, and returns the service's error for it. The detail is needed only for `SP003` (a
/// refused change of a session's status): the service reads the two statuses from it.
async fn service_error(world: &World, sqlstate: &str, constraint: &str, table: &str, message: &str) -> Error {
    let sql = format!(
        "DO $do$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}', CONSTRAINT = '{constraint}', TABLE = '{table}',
           MESSAGE = '{message}', DETAIL = 'waiting -> paused'; END $do$"
    );
    world.pool.execute_unprepared(&sql).await.unwrap_err().into()
}

/// Returns whether a person can act on the error: it is not a generic one, and its message is a sentence without
/// `internal_name` (the constraint or the SQLSTATE that caused the error).
fn is_actionable(error: &Error, internal_name: &str) -> bool {
    // The service says `row` if it has no noun for what the constraint concerns.
    let is_generic =
        matches!(error, Error::Database(_) | Error::RuleViolated { .. } | Error::IdConflict { what: "row" });
    // A single word is no sentence.
    !is_generic && !error.to_string().contains(internal_name) && error.to_string().contains(' ')
}

/// Returns the noun that messages use for a row of a table that a foreign key references.
fn noun_of(referenced_table: &str) -> &'static str {
    match referenced_table {
        "users" | "auth.users" => "user",
        "adventures" => "adventure",
        "characters" => "character",
        "creatures" => "creature",
        "sessions" | "archived_sessions" => "session",
        "dice_rolls" | "archived_dice_rolls" => "roll",
        table => panic!("this test must know the noun for {table}"),
    }
}

#[tokio::test]
async fn every_constraint_has_an_error_that_says_what_was_wrong() {
    let world = World::new().await;
    let constraints = world
        .owner()
        .fetch_values::<String>(
            "SELECT concat_ws(' ', contype, conname, conrelid::regclass, confrelid::regclass) FROM pg_constraint
             WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'u', 'p', 'f')
               AND conrelid <> 'sparc_migrations'::regclass
             UNION ALL
             SELECT concat_ws(' ', 'u', indexrelid::regclass, indrelid::regclass, '-') FROM pg_index
             WHERE indisunique AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
               AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
        )
        .await
        .unwrap();
    assert!(constraints.len() > 80, "the query must find the constraints: {}", constraints.len());
    let mut unexplained = Vec::new();
    for line in constraints {
        let [kind, constraint, table, referenced_table] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let errors = match kind {
            "c" => vec![service_error(&world, CHECK_VIOLATION, constraint, table, "new row violates").await],
            // The service tells the two directions of a foreign key apart by the message.
            "f" => vec![
                service_error(&world, FOREIGN_KEY_VIOLATION, constraint, table, "insert or update violates").await,
                service_error(&world, FOREIGN_KEY_VIOLATION, constraint, table, "update or delete violates").await,
            ],
            _ => vec![service_error(&world, UNIQUE_VIOLATION, constraint, table, "duplicate key").await],
        };
        if kind == "f" {
            // An insert or update is refused because the referenced row does not exist.
            let noun = noun_of(referenced_table);
            assert!(matches!(errors[0], Error::NotFound { what } if what == noun), "{line}: {errors:?}");
        }
        if !errors.iter().all(|error| is_actionable(error, constraint)) {
            unexplained.push(format!("{line}: {errors:?}"));
        }
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
}

#[tokio::test]
async fn every_sqlstate_of_the_schema_has_an_error_that_says_what_was_wrong() {
    let world = World::new().await;
    let sqlstates = world
        .owner()
        .fetch_values::<String>(
            "SELECT DISTINCT code[1] FROM pg_proc, regexp_matches(prosrc, 'ERRCODE = ''(\\w+)''', 'g') AS code
             WHERE pronamespace IN ('private'::regnamespace, 'public'::regnamespace) ORDER BY 1",
        )
        .await
        .unwrap();
    // The schema's own SQLSTATEs begin with `SP`.
    let own_sqlstates: Vec<&String> = sqlstates.iter().filter(|sqlstate| sqlstate.starts_with("SP")).collect();
    assert_eq!(
        own_sqlstates.len(),
        34,
        "the query must find every SQLSTATE of the schema; raise the number for a new one: {sqlstates:?}"
    );
    let mut messages = Vec::new();
    for sqlstate in &own_sqlstates {
        let error = service_error(&world, sqlstate, "", "", "refused").await;
        assert!(is_actionable(&error, sqlstate), "{sqlstate}: {error:?}");
        messages.push(error.to_string());
    }
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), own_sqlstates.len(), "every refusal must have its own message");
}

#[tokio::test]
async fn every_table_with_a_policy_has_an_error_that_says_who_may_write() {
    let world = World::new().await;
    let tables = world
        .owner()
        .fetch_values::<String>("SELECT DISTINCT tablename::text FROM pg_policies WHERE schemaname = 'public'")
        .await
        .unwrap();
    assert_eq!(tables.len(), 12, "the query must find every table");
    for table in tables {
        let message = format!("new row violates row-level security policy for table \"{table}\"");
        let error = service_error(&world, INSUFFICIENT_PRIVILEGE, "", "", &message).await;
        // The service says "only the service may do that" if it has no rule for the table.
        assert!(
            matches!(error, Error::NotAllowed { rule } if rule != "only the service may do that"),
            "{table}: {error:?}"
        );
    }
}

/// The functions that policies call use `private.refuse(reason, relation, rule)` to refuse a statement. The error then
/// has the name of the rule as its constraint.
#[tokio::test]
async fn every_rule_of_a_policy_has_its_own_error() {
    let world = World::new().await;
    let rules = world
        .owner()
        .fetch_values::<String>(
            "SELECT DISTINCT rule[1]
             FROM pg_proc,
               regexp_matches(prosrc, 'refuse\\(\\s*''[^'']+'',\\s*''\\w+'',\\s*''(\\w+)''\\s*\\)', 'g') AS rule
             WHERE pronamespace = 'private'::regnamespace ORDER BY 1",
        )
        .await
        .unwrap();
    assert_eq!(rules.len(), 9, "the query must find every rule: {rules:?}");
    let mut codes = Vec::new();
    for rule in &rules {
        let error = service_error(&world, INSUFFICIENT_PRIVILEGE, rule, "", "refused").await;
        assert!(!matches!(error, Error::NotAllowed { .. }), "{rule}");
        codes.push(error.code());
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), rules.len(), "{codes:?}");
}

#[tokio::test]
async fn errors_of_postgresql_itself_have_a_code_and_an_http_status_and_say_whether_to_retry() {
    let world = World::new().await;
    for (sqlstate, code, status, is_retryable) in [
        (SERIALIZATION_FAILURE, "busy", 503, true),
        (DEADLOCK_DETECTED, "busy", 503, true),
        (QUERY_CANCELED, "deadline_exceeded", 504, true),
        (ADMIN_SHUTDOWN, "connection_lost", 503, true),
        (TOO_MANY_CONNECTIONS, "pool_exhausted", 503, true),
        (DISK_FULL, "server_exhausted", 503, true),
        (OUT_OF_MEMORY, "server_exhausted", 503, true),
        (READ_ONLY_SQL_TRANSACTION, "read_only", 503, false),
        (INTERNAL_ERROR, "database", 500, false),
        (INVALID_TEXT_REPRESENTATION, "invalid_value", 422, false),
        (UNTRANSLATABLE_CHARACTER, "invalid_value", 422, false),
    ] {
        let error = service_error(&world, sqlstate, "", "", "refused").await;
        assert_eq!(
            (error.code(), error.http_status(), error.is_retryable()),
            (code, status, is_retryable),
            "{sqlstate}"
        );
    }
}

#[tokio::test]
async fn a_column_that_is_not_granted_is_explained() {
    let world = World::new().await;
    let player = world.new_player().await;
    let ada = world.sparc.as_user(player.user_id);
    let error = users::Entity::find().all(&ada).await.unwrap_err();
    assert!(error.to_string().contains("into_partial_model::<service::users::Profile>()"), "{error}");
    let error = Error::from(error);
    assert!(matches!(error, Error::ColumnNotGranted { table: "users", .. }), "{error:?}");
    let raised_level = characters::ActiveModel { level: sea_orm::ActiveValue::Set(10), ..Default::default() };
    let error = characters::Entity::update_many().set(raised_level).exec(&ada).await.unwrap_err();
    let error = Error::from(error);
    assert!(matches!(error, Error::ColumnNotGranted { table: "characters", .. }), "{error:?}");
    // A visitor has no privilege on any column of `session_players`, so the error names no column.
    let outcome = session_players::Entity::find().all(&world.sparc.as_anon()).await.map_err(Error::from);
    assert_error!(outcome, Error::NotAllowed { .. });
    assert!(ada.users().me().await.is_ok());
}
