//! A call that only reads usually returns before its transaction has ended. The transaction still ends, and leaves
//! nothing behind.

use std::pin::pin;

use sea_orm::{
    ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QueryResult, Statement, TransactionTrait,
    sea_query::{Asterisk, Query},
};
use sparc::{entity::characters, service::Operations};
use tokio::select;
use uuid::Uuid;

use super::{
    documented::read_documentation,
    fixture::Fixture,
    operations,
    round_trips::{
        NUMBER_WORDS, ResponseProxy, connect_through_new_proxy, connect_url_through_new_proxy, connect_url_through_port,
    },
    sources::declared_reads,
};
use crate::{random_programs::poll_then_drop, world::World};

/// In a transaction with one query, the number of responses (to the begin and to the query) before the response to the
/// commit.
const RESPONSES_BEFORE_COMMIT: u32 = 2;

/// Makes the call while the proxy delivers only the next `response_count` responses. Returns whether the call
/// finishes without the response that follows these, and the call's result.
async fn call_and_detect_early_return<T>(
    proxy: &ResponseProxy,
    response_count: u32,
    call: impl Future<Output = T>,
) -> (bool, T) {
    let mut call = pin!(call);
    proxy.hold_after(response_count);
    let early_outcome = select! {
        biased;
        outcome = &mut call => Some(outcome),
        () = proxy.wait_until_held() => None,
    };
    match early_outcome {
        // Deliver the response that the call did not wait for, so that its transaction can end.
        Some(outcome) => {
            proxy.wait_until_held().await;
            proxy.release();
            (true, outcome)
        }
        None => {
            proxy.release();
            (false, call.await)
        }
    }
}

#[tokio::test]
async fn every_operation_that_reads_returns_before_its_commit_is_answered() {
    let fixture = Fixture::new().await;
    let (sparc, proxy) = connect_through_new_proxy(&fixture).await;
    let (documented, reads) = (read_documentation(), declared_reads());
    let (mut mismatches, mut early_return_count) = (Vec::new(), 0);
    for operation in operations().iter().filter(|operation| reads.contains(operation.name)) {
        let caller = fixture.as_caller(&sparc, operation.allowed_caller().unwrap());
        // The first call also prepares the statements.
        assert_eq!((operation.call_in_own_transaction)(&caller, &fixture).await, "done", "{}", operation.name);
        // The ping needs the only connection, so it waits until the commit of the call above has been answered.
        sparc.ping().await.unwrap();
        let round_trips_in_words =
            &documented.iter().find(|other| other.name == operation.name).unwrap().round_trips_in_words;
        let first_word = round_trips_in_words.split(' ').next();
        let round_trips = NUMBER_WORDS.iter().position(|word| first_word == Some(word)).unwrap();
        let responses_before_last = u32::try_from(round_trips).unwrap() - 1;
        let call = (operation.call_in_own_transaction)(&caller, &fixture);
        match call_and_detect_early_return(&proxy, responses_before_last, call).await {
            (true, "done") => early_return_count += 1,
            other => mismatches.push(format!("{}: {other:?}", operation.name)),
        }
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
    assert!(early_return_count >= 20, "only {early_return_count} operations returned early");
}

#[tokio::test]
async fn a_caller_waits_for_two_round_trips_to_read_and_three_to_write() {
    let fixture = Fixture::new().await;
    let (sparc, proxy) = connect_through_new_proxy(&fixture).await;
    let ada = sparc.as_user(fixture.player.user_id);
    let character = fixture.player.character_id;
    let raw_statement = || Statement::from_string(DbBackend::Postgres, "SELECT 1 AS one");
    macro_rules! assert_early_return_is {
        ($expected:literal, $context:literal, $call:expr) => {
            // The first call also prepares the statement.
            assert!($call.await.is_ok(), "{}", $context);
            sparc.ping().await.unwrap();
            let (returned_early, outcome) = call_and_detect_early_return(&proxy, RESPONSES_BEFORE_COMMIT, $call).await;
            assert!(outcome.is_ok(), "{}: {:?}", $context, outcome.err());
            assert_eq!(returned_early, $expected, "{}", $context);
        };
    }
    assert_early_return_is!(true, "one row", characters::Entity::find_by_id(character).one(&ada));
    assert_early_return_is!(true, "all rows", characters::Entity::find().all(&ada));
    assert_early_return_is!(true, "a count", characters::Entity::find().count(&ada));
    assert_early_return_is!(true, "an operation that reads", ada.characters().get(character));
    assert_early_return_is!(false, "an operation that writes", ada.characters().rename(character, "Nim"));
    assert_early_return_is!(false, "a transaction of the caller's", async {
        let tx = ada.begin().await?;
        characters::Entity::find_by_id(character).one(&tx).await?;
        tx.commit().await
    });
    // Raw SQL may write, so the caller waits for the commit, which also verifies the identity.
    assert_early_return_is!(false, "raw SQL", ada.query_one_raw(raw_statement()));
}

#[tokio::test]
async fn not_found_is_returned_before_the_rollback_is_answered() {
    let fixture = Fixture::new().await;
    let (sparc, proxy) = connect_through_new_proxy(&fixture).await;
    let ada = sparc.as_user(fixture.player.user_id);
    let unknown_character_id = Uuid::new_v4();
    assert!(ada.characters().get(unknown_character_id).await.is_err());
    sparc.ping().await.unwrap();
    let (returned_early, outcome) =
        call_and_detect_early_return(&proxy, RESPONSES_BEFORE_COMMIT, ada.characters().get(unknown_character_id)).await;
    assert_eq!(outcome.unwrap_err().code(), "not_found");
    assert!(returned_early);
    assert_eq!(ada.characters().get(fixture.player.character_id).await.unwrap().id, fixture.player.character_id);
}

/// What a serializable transaction has read is valid only once it has committed.
#[tokio::test]
async fn a_serializable_read_waits_for_its_commit() {
    let fixture = Fixture::new().await;
    let parameters = "&options=-c%20default_transaction_isolation%3Dserializable";
    let (sparc, proxy) = connect_url_through_new_proxy(fixture.world.url(), parameters).await;
    let ada = sparc.as_user(fixture.player.user_id);
    ada.users().me().await.unwrap();
    sparc.ping().await.unwrap();
    let (returned_early, outcome) =
        call_and_detect_early_return(&proxy, RESPONSES_BEFORE_COMMIT, ada.users().me()).await;
    assert_eq!(outcome.unwrap().id, fixture.player.user_id);
    assert!(!returned_early);
}

#[tokio::test]
async fn a_connection_counts_as_used_until_its_transaction_has_ended() {
    let fixture = Fixture::new().await;
    let (sparc, proxy) = connect_through_new_proxy(&fixture).await;
    let (ada, ben) = (sparc.as_user(fixture.player.user_id), sparc.as_user(fixture.seer));
    ada.users().me().await.unwrap();
    sparc.ping().await.unwrap();
    proxy.hold_after(RESPONSES_BEFORE_COMMIT);
    assert_eq!(ada.users().me().await.unwrap().id, fixture.player.user_id);
    proxy.wait_until_held().await;
    let status = sparc.user_pool_status();
    assert_eq!((status.connections, status.idle), (1, 0));
    // The next caller, another user, waits for the connection. (The call is polled once, and is passed by reference, so
    // it is not dropped.)
    let mut bens_call = pin!(ben.users().me());
    assert!(poll_then_drop(0, bens_call.as_mut()).await.is_none());
    assert_eq!(sparc.user_pool_status().waiting, 1);
    proxy.release();
    assert_eq!(bens_call.await.unwrap().id, fixture.seer);
    assert_eq!(sparc.user_pool_status().connections, 1);
    // Closing the pool also waits until the transaction has ended.
    sparc.ping().await.unwrap();
    proxy.hold_after(RESPONSES_BEFORE_COMMIT);
    ada.users().me().await.unwrap();
    proxy.wait_until_held().await;
    let mut closing = pin!(sparc.clone().close());
    assert!(poll_then_drop(3, closing.as_mut()).await.is_none());
    proxy.release();
    closing.await.unwrap();
    assert_eq!(sparc.user_pool_status().connections, 0);
    assert_eq!(ada.users().me().await.unwrap_err().code(), "pool_closed");
}

#[tokio::test]
async fn neither_a_read_nor_the_next_call_fails_if_the_connection_is_lost_before_the_answer_to_the_commit() {
    let fixture = Fixture::new().await;
    let (sparc, proxy) = connect_through_new_proxy(&fixture).await;
    let ada = sparc.as_user(fixture.player.user_id);
    for _ in 0..3 {
        ada.users().me().await.unwrap();
        sparc.ping().await.unwrap();
        proxy.cut_at(RESPONSES_BEFORE_COMMIT + 1);
        assert_eq!(ada.users().me().await.unwrap().id, fixture.player.user_id);
        // The only connection is gone, so the next call opens another.
        assert_eq!(ada.users().me().await.unwrap().id, fixture.player.user_id);
        assert_eq!(sparc.user_pool_status().connections, 1);
    }
}

#[tokio::test]
async fn a_runtime_that_shuts_down_before_the_commit_is_answered_leaves_no_transaction() {
    let fixture = Fixture::new().await;
    let (_, proxy) = connect_through_new_proxy(&fixture).await;
    let (url, id) = (fixture.world.url().to_owned(), fixture.player.user_id);
    let port = proxy.port;
    let proxy_in_task = proxy.clone();
    let read_task = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sparc = connect_url_through_port(&url, port, "").await;
            let ada = sparc.as_user(id);
            ada.users().me().await.unwrap();
            sparc.ping().await.unwrap();
            proxy_in_task.hold_after(RESPONSES_BEFORE_COMMIT);
            ada.users().me().await
        })
    });
    assert_eq!(read_task.await.unwrap().unwrap().id, id);
    proxy.release();
    crate::faults::assert_all_transactions_end(&fixture.world).await;
}

/// A read is first tried in a read-only transaction. If the read calls a function that writes (for example, through a
/// view or a policy), that attempt fails, and the statement runs again in a transaction that may write.
#[tokio::test]
async fn a_read_that_calls_a_writing_function_takes_effect_once() {
    let world = World::new().await;
    let owner = world.owner();
    for sql in [
        "CREATE TABLE logged_reads (id uuid)",
        "CREATE FUNCTION log_read() RETURNS uuid LANGUAGE sql VOLATILE SECURITY DEFINER
         AS 'INSERT INTO public.logged_reads SELECT auth.uid() RETURNING id'",
        "CREATE VIEW logging_view AS SELECT log_read() AS id",
        "GRANT SELECT ON logging_view TO authenticated",
    ] {
        world.pool.execute_unprepared(sql).await.unwrap();
    }
    let ada = world.sparc.as_user(world.new_account().await);
    let mut select = Query::select();
    select.column(Asterisk).from("logging_view");
    let reader_id = |row: QueryResult| row.try_get::<Uuid>("", "id").unwrap();
    assert_eq!(ada.query_one(&select).await.unwrap().map(reader_id), ada.user_id());
    assert_eq!(
        ada.query_all(&select).await.unwrap().into_iter().map(reader_id).collect::<Vec<_>>(),
        [ada.user_id().unwrap()]
    );
    assert_eq!(owner.count("logged_reads").await, 2, "each of the two queries must have written one row");
    // The read-only transactions that were tried first have ended.
    crate::faults::assert_all_transactions_end(&world).await;
}
