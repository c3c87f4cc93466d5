//! What a caller's statement leaves behind in its database session is undone before the next caller gets the
//! connection. Also: COPY, settings of the login and of the database, and DEALLOCATE and DISCARD in a transaction.

use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DbBackend, EntityTrait, QuerySelect, Statement, TransactionTrait,
    sea_query::{Alias, Expr, ExprTrait, Query},
};
use sparc::{
    entity::characters,
    service::{Error, IdentityConnection, Operations, Options, Sparc, characters::NewCharacter},
};

use crate::world::{World, outcome_code};

/// Returns the first column of a query's first row, which must be a text.
async fn fetch_text(caller: &IdentityConnection, sql: &str) -> String {
    let row = caller.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

/// A query that returns, as one text, what a statement can leave behind in a database session: the session user,
/// settings, advisory locks, channels, prepared statements, cursors and temporary tables. It leaves out the settings
/// `role` and `statement_timeout`, which the service sets for each caller. `pg_settings` does not show custom settings,
/// so the claims are read one by one.
const SELECT_DATABASE_SESSION_STATE: &str = "SELECT concat_ws('|', session_user::text,
    (SELECT string_agg(name || '=' || setting, ',') FROM pg_settings
     WHERE source = 'session' AND name NOT IN ('role', 'statement_timeout')),
    current_setting('request.jwt.claims', true), nullif(current_setting('request.jwt.claim.sub', true), ''),
    current_setting('TimeZone'), current_setting('default_transaction_read_only'), current_setting('search_path'),
    (SELECT string_agg(locktype, ',') FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    (SELECT string_agg(channel, ',') FROM pg_listening_channels() AS channel),
    (SELECT string_agg(name, ',') FROM pg_prepared_statements WHERE from_sql),
    (SELECT string_agg(name, ',') FROM pg_cursors WHERE name <> ''),
    (SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'))";

/// Statements that change the state of a database session, or try to.
const STATE_CHANGES: [&str; 21] = [
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET default_transaction_read_only = on",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET statement_timeout = 1",
    "SET search_path = pg_catalog",
    "SET application_name = 'mine'",
    "SET request.jwt.claim.sub = 'somebody'",
    "SELECT set_config('request.jwt.claims', '{}', false)",
    "SET lock_timeout = '1ms'",
    "UPDATE pg_settings SET setting = 'pg_catalog' WHERE name = 'search_path'",
    "LISTEN somebody",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_advisory_lock_shared(8)",
    "PREPARE mine AS SELECT 1",
    // The driver names its own prepared statements like this, so it could mistake this one for its own.
    "PREPARE sqlx_s_1 AS SELECT 1",
    "DEALLOCATE ALL",
    "DISCARD PLANS",
    "CREATE TEMPORARY TABLE mine (id integer)",
    "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "SET SESSION AUTHORIZATION authenticated",
    "SET ROLE authenticated",
];

/// How the transaction of a statement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The caller begins no transaction.
    NoTransaction,
    Commit,
    Rollback,
    Drop,
    /// A later statement fails, so the server answers the commit with a rollback.
    CommitAfterError,
}

const ENDINGS: [Ending; 5] =
    [Ending::NoTransaction, Ending::Commit, Ending::Rollback, Ending::Drop, Ending::CommitAfterError];

#[tokio::test]
async fn changes_that_a_statement_makes_to_a_database_session_are_undone_for_the_next_caller() {
    let world = World::new().await;
    let (ada, ben) = (world.new_player().await, world.new_player().await);
    let sparc_with_own_pool = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let existing_pool = world.with_single_connection().await.pool;
    for sparc in [sparc_with_own_pool, Sparc::from_connection(existing_pool)] {
        let ben = sparc.as_user(ben.user_id);
        let clean_state = fetch_text(&ben, SELECT_DATABASE_SESSION_STATE).await;
        for statement in STATE_CHANGES {
            for ending in ENDINGS {
                let ada = sparc.as_user(ada.user_id);
                // Some of the statements are refused. What matters here is only what they leave behind.
                if ending == Ending::NoTransaction {
                    let _ = ada.execute_unprepared(statement).await;
                } else {
                    let tx = ada.begin().await.unwrap();
                    let _ = tx.execute_unprepared(statement).await;
                    let _ = match ending {
                        Ending::Commit => tx.commit().await,
                        Ending::Rollback => tx.rollback().await,
                        Ending::CommitAfterError => {
                            let _ = tx.execute_unprepared("SELECT 1 / 0").await;
                            tx.commit().await
                        }
                        Ending::Drop => {
                            drop(tx);
                            Ok(())
                        }
                        Ending::NoTransaction => unreachable!(),
                    };
                }
                // The second round uses the statements that the driver has prepared in the first.
                for _ in 0..2 {
                    let characters = ben.characters().living().await;
                    assert!(
                        characters.as_ref().is_ok_and(|list| list.len() == 1),
                        "{statement}, {ending:?}: {characters:?}"
                    );
                    assert!(ben.users().me().await.is_ok(), "{statement}, {ending:?}");
                }
                let state = fetch_text(&ben, SELECT_DATABASE_SESSION_STATE).await;
                assert_eq!(state, clean_state, "{statement}, {ending:?}");
            }
        }
    }
}

#[tokio::test]
async fn changes_that_an_expression_of_a_query_makes_to_a_database_session_are_undone() {
    let world = World::new().await;
    let (ada, ben) = (world.new_player().await, world.new_player().await);
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ben = sparc.as_user(ben.user_id);
    let clean_state = fetch_text(&ben, SELECT_DATABASE_SESSION_STATE).await;
    for expression in [
        "set_config('TimeZone', 'Asia/Tokyo', false)",
        "pg_advisory_lock(7)::text",
        "\"set_config\"('search_path', 'pg_catalog', false)",
        "coalesce(set_config('request.jwt.claim.sub', 'x', false))",
        // PostgreSQL reads this as a call of the function with the number as its argument.
        "(7::bigint).pg_advisory_lock",
    ] {
        let find = characters::Entity::find().select_only().expr(Expr::cust(expression));
        // The query may be refused. What matters here is only what it leaves behind.
        let _ = find.into_tuple::<String>().all(&sparc.as_user(ada.user_id)).await;
        assert_eq!(fetch_text(&ben, SELECT_DATABASE_SESSION_STATE).await, clean_state, "{expression}");
        assert_eq!(ben.characters().living().await.unwrap().len(), 1, "{expression}");
    }
}

#[tokio::test]
async fn an_update_of_pg_settings_that_sea_orm_built_is_undone() {
    let world = World::new().await;
    let (ada, ben) = (world.new_player().await, world.new_player().await);
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let (ada, ben) = (sparc.as_user(ada.user_id), sparc.as_user(ben.user_id));
    let clean_state = fetch_text(&ben, SELECT_DATABASE_SESSION_STATE).await;
    for (name, setting) in
        [("search_path", "pg_catalog"), ("default_transaction_read_only", "on"), ("lock_timeout", "1ms")]
    {
        let update = Query::update()
            .table(Alias::new("pg_settings"))
            .value(Alias::new("setting"), setting)
            .and_where(Expr::col(Alias::new("name")).eq(name))
            .to_owned();
        ada.execute(&update).await.unwrap();
        assert_eq!(fetch_text(&ben, SELECT_DATABASE_SESSION_STATE).await, clean_state, "{name}");
        let tx = ada.begin().await.unwrap();
        tx.execute(&update).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(fetch_text(&ben, SELECT_DATABASE_SESSION_STATE).await, clean_state, "{name}, in a transaction");
    }
}

/// The clean-up after raw SQL must not deallocate the prepared statements that later calls use again.
#[tokio::test]
async fn raw_sql_does_not_deallocate_the_prepared_statements_of_other_callers() {
    let world = World::new().await;
    let (ada, ben) = (world.new_player().await, world.new_player().await);
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let (ada, ben) = (sparc.as_user(ada.user_id), sparc.as_user(ben.user_id));
    ben.characters().living().await.unwrap();
    let backend_pid = fetch_text(&ada, "SELECT pg_backend_pid()::text").await;
    let select_prepared_statement_count =
        "SELECT count(*)::text FROM pg_prepared_statements WHERE statement LIKE '%characters%'";
    assert_eq!(
        fetch_text(&ada, select_prepared_statement_count).await,
        "2",
        "the statement of `living`, and this query itself"
    );
    ben.characters().living().await.unwrap();
    assert_eq!(fetch_text(&ada, "SELECT pg_backend_pid()::text").await, backend_pid, "the connection must be the same");
    assert_eq!(
        fetch_text(&ada, select_prepared_statement_count).await,
        "2",
        "the statement of `living` must not be prepared again"
    );
}

#[tokio::test]
async fn copy_fails_without_waiting_for_the_deadline_and_the_next_call_succeeds() {
    let world = World::new().await;
    let player = world.new_player().await;
    world
        .pool
        .execute_unprepared("CREATE TABLE copied (id integer); GRANT ALL ON copied TO authenticated")
        .await
        .unwrap();
    let options = Options::default().max_connections(1).deadline(Duration::from_secs(2));
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let ada = sparc.as_user(player.user_id);
    let started_at = std::time::Instant::now();
    for copy_sql in
        ["COPY copied FROM STDIN", "COPY copied TO STDOUT", "/* */ copy copied from stdin with (format csv)"]
    {
        let outcome = ada.execute_unprepared(copy_sql).await.map_err(Error::from);
        assert_error!(outcome, Error::InvalidStatement { .. }, "{copy_sql}");
        assert_eq!(ada.characters().living().await.unwrap().len(), 1);
        let tx = ada.begin().await.unwrap();
        assert!(tx.execute_unprepared(copy_sql).await.is_err());
        assert!(tx.users().me().await.is_err(), "a later call in the transaction must fail");
        tx.rollback().await.unwrap();
        let tx = ada.begin().await.unwrap();
        assert!(tx.execute_unprepared(copy_sql).await.is_err());
        assert!(tx.commit().await.is_err());
        assert_eq!(ada.characters().living().await.unwrap().len(), 1, "the next caller must not be affected");
    }
    assert!(started_at.elapsed() < Duration::from_secs(2), "no call may wait for a deadline");
}

#[tokio::test]
async fn a_setting_of_the_login_or_the_database_cannot_replace_the_claims() {
    // Settings that another client of a pooler leaves behind have the same effect as the settings of this test.
    for target_expression in [
        "format('DATABASE %I', current_database())",
        "format('ROLE %I IN DATABASE %I', session_user, current_database())",
    ] {
        let world = World::new().await;
        let (ada, ben) = (world.new_player().await, world.new_player().await);
        let target: String = world.owner().fetch_value(&format!("SELECT {target_expression}")).await.unwrap();
        let superuser = world.superuser().await;
        for (name, value) in [
            ("request.jwt.claim.sub", ben.user_id.to_string()),
            ("request.jwt.claim.role", "service_role".to_owned()),
            ("request.jwt.claim", format!("{{\"sub\": \"{}\"}}", ben.user_id)),
        ] {
            superuser.execute(&format!("ALTER {target} SET {name} = '{value}'")).await.unwrap();
        }
        let reconnected_owner = world.with_new_pool().await.owner();
        let setting = reconnected_owner.fetch_value::<String>("SELECT current_setting('request.jwt.claim.sub')").await;
        assert_eq!(setting, Ok(ben.user_id.to_string()), "{target}");
        let sparc = Sparc::connect(world.url()).await.unwrap();
        let select_identity = "SELECT concat_ws('|', auth.uid(), auth.role(), auth.jwt() ->> 'sub')";
        assert_eq!(
            fetch_text(&sparc.as_user(ada.user_id), select_identity).await,
            format!("{0}|authenticated|{0}", ada.user_id),
            "{target}"
        );
        assert_eq!(fetch_text(&sparc.as_anon(), select_identity).await, "anon", "{target}");
        assert_eq!(fetch_text(&sparc.as_service(), select_identity).await, "service_role", "{target}");
        assert_eq!(sparc.as_user(ada.user_id).characters().living().await.unwrap()[0].id, ada.character_id, "{target}");
    }
}

#[tokio::test]
async fn a_transaction_continues_after_deallocate_and_discard() {
    let world = World::new().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ada = sparc.as_user(world.new_account().await);
    let count_characters = || async { characters::Entity::find().all(&ada).await.unwrap().len() };
    // This first call prepares the query on the only connection.
    count_characters().await;
    for statement in [
        "DEALLOCATE ALL",
        "DEALLOCATE PREPARE ALL",
        "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
        "DISCARD PLANS",
        "DISCARD TEMP",
        "DISCARD SEQUENCES",
    ] {
        let tx = ada.begin().await.unwrap();
        let profile = tx.users().me().await.unwrap();
        characters::Entity::find().all(&tx).await.unwrap();
        tx.execute_unprepared(statement).await.unwrap();
        for _ in 0..2 {
            assert_eq!(tx.users().me().await.unwrap(), profile, "{statement}");
            assert!(characters::Entity::find().all(&tx).await.is_ok(), "{statement}");
        }
        let inner = tx.begin().await.unwrap();
        inner.execute_unprepared(statement).await.unwrap();
        assert_eq!(inner.users().me().await.unwrap(), profile, "{statement}, nested");
        inner.commit().await.unwrap();
        tx.characters().create(NewCharacter { name: "Brunhild".into(), ..Default::default() }).await.unwrap();
        tx.commit().await.unwrap();
        let living_characters = ada.characters().living().await.unwrap();
        assert_eq!(living_characters.len(), 1, "{statement}");
        ada.characters().delete(living_characters[0].id).await.unwrap();
    }
    // PostgreSQL refuses DISCARD ALL in a transaction.
    let tx = ada.begin().await.unwrap();
    let outcome = tx.execute_unprepared("DISCARD ALL").await.map_err(Error::from);
    assert_eq!(outcome_code(outcome), "invalid_statement");
    tx.rollback().await.unwrap();
    assert_eq!(count_characters().await, 0);
    sparc.close().await.unwrap();
}
