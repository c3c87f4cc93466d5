//! Tokens without an account. The request runs with the role `authenticated`, but its claims name no account: the
//! subject (`sub`) is missing, empty or null, or there are no claims at all.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{
    populated_account::{all_writes, create_populated_account},
    sqlstates::{
        INSUFFICIENT_PRIVILEGE, INVALID_TEXT_REPRESENTATION, NOT_PARTICIPANT, UNKNOWN_ACCOUNT, UNKNOWN_JOIN_CODE,
        UNKNOWN_SESSION,
    },
};
use crate::world::{World, into_sql_error};

const CLAIMS_WITHOUT_ACCOUNT: [&str; 4] = [
    r#"{"role": "authenticated"}"#,
    r#"{"role": "authenticated", "sub": ""}"#,
    r#"{"role": "authenticated", "sub": null}"#,
    "",
];

#[tokio::test]
async fn a_token_without_an_account_writes_nothing() {
    let world = World::new().await;
    let fixture = create_populated_account(&world).await;
    let mut statements = all_writes(&fixture);
    let insert_creature = format!(
        "INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id",
        fixture.live_session.adventure_id
    );
    let creature_id: Uuid = world.owner().fetch_value(&insert_creature).await.unwrap();
    statements.push(format!(
        "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
         VALUES ('{}', '{creature_id}', 'might', 10, 'attack')",
        fixture.live_session.session_id
    ));
    statements.push(format!(
        "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.x')",
        fixture.live_session.session_id
    ));
    // Another transaction keeps `live_session` locked. A statement that waited for that lock would fail with an error
    // that is not listed below.
    let lock_holder = fixture.caller.begin().await;
    let lock_session =
        format!("UPDATE sessions SET looking_for = 'x' WHERE id = '{}'", fixture.live_session.session_id);
    lock_holder.execute_unprepared(&lock_session).await.unwrap();
    for sql in &statements {
        for claims in CLAIMS_WITHOUT_ACCOUNT {
            let transaction = fixture.caller.begin().await;
            let set_claims =
                format!("SET LOCAL lock_timeout = '2s'; SELECT set_config('request.jwt.claims', '{claims}', true)");
            transaction.execute_unprepared(&set_claims).await.unwrap();
            match transaction.execute_unprepared(sql).await {
                Ok(result) => assert_eq!(result.rows_affected(), 0, "{claims}: {sql}"),
                Err(error) => {
                    let sqlstate = into_sql_error(error).sqlstate;
                    assert!(
                        [
                            INSUFFICIENT_PRIVILEGE,
                            UNKNOWN_ACCOUNT,
                            UNKNOWN_JOIN_CODE,
                            NOT_PARTICIPANT,
                            UNKNOWN_SESSION,
                            // The empty subject is not a UUID, so its cast fails.
                            INVALID_TEXT_REPRESENTATION
                        ]
                        .contains(&sqlstate.as_str()),
                        "{sqlstate}: {claims}: {sql}"
                    );
                }
            }
            transaction.rollback().await.unwrap();
        }
    }
    lock_holder.rollback().await.unwrap();
}

#[tokio::test]
async fn a_token_without_an_account_does_not_learn_which_sessions_exist() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    for claims in CLAIMS_WITHOUT_ACCOUNT {
        let mut answers = Vec::new();
        for session_id in [game.session_id, Uuid::new_v4()] {
            // These two functions tell callers whether they may read the session's events.
            for function in ["my_event_access", "require_event_access"] {
                let transaction = world.user(game.seer.user_id()).begin().await;
                let set_claims = format!("SELECT set_config('request.jwt.claims', '{claims}', true)");
                transaction.execute_unprepared(&set_claims).await.unwrap();
                // Whether the function returns or raises an error, the block ends in an error. Its message is the
                // answer.
                let sql = format!("DO $$ BEGIN RAISE EXCEPTION '%', private.{function}('{session_id}'); END $$");
                let message = into_sql_error(transaction.execute_unprepared(&sql).await.unwrap_err()).message;
                answers.push((function, message));
                transaction.rollback().await.unwrap();
            }
        }
        // The first two answers are for the existing session, the last two for one that does not exist.
        assert_eq!(answers[..2], answers[2..], "{claims}");
    }
}
