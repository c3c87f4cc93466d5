//! Broadcasts: on the platform (Supabase), each event of a session is also broadcast, and only the session's
//! participants receive it.

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

use crate::{
    migrations::platform_server,
    world::{GameSession, SqlCaller, World, insert_attribute_check_sql, into_sql_error},
};

/// Creates a migrated database like that of a Supabase project, and returns it with a pool of the superuser's
/// connections.
async fn new_platform_world() -> (World, DatabaseConnection) {
    let database = platform_server().await.create_migrated().await.unwrap();
    let superuser = sea_orm::Database::connect(database.superuser_url()).await.unwrap();
    let owner_pool = database.connect(10).await.unwrap();
    (World::from_database(database, owner_pool), superuser)
}

/// Returns the topic of a session's broadcasts.
fn topic(game: &GameSession) -> String {
    format!("session:{}", game.session_id)
}

async fn count_broadcasts(world: &World, game: &GameSession) -> i64 {
    let messages = format!("realtime.messages WHERE topic = '{}' AND extension = 'broadcast'", topic(game));
    world.owner().count(&messages).await
}

/// What somebody may do in a topic.
#[derive(Debug, PartialEq, Eq)]
struct TopicAccess {
    reads: bool,
    writes_broadcasts: bool,
    /// Announces to the others in the topic that the caller is connected.
    tracks_presence: bool,
}

const NO_ACCESS: TopicAccess = TopicAccess { reads: false, writes_broadcasts: false, tracks_presence: false };

/// Returns what the caller may do in the topic. To find out, runs the statements with which the platform's Realtime
/// server checks a client, and rolls them back.
async fn topic_access(caller: &SqlCaller, topic: &str) -> TopicAccess {
    let select_messages = format!("SELECT FROM realtime.messages WHERE topic = '{topic}'");
    let write_broadcast = format!(
        "INSERT INTO realtime.messages (topic, extension, event) VALUES ('{topic}', 'broadcast', 'dice_rolled')"
    );
    let track_presence = format!("INSERT INTO realtime.messages (topic, extension) VALUES ('{topic}', 'presence')");
    TopicAccess {
        reads: dry_run_affects_rows(caller, topic, &select_messages).await,
        writes_broadcasts: dry_run_affects_rows(caller, topic, &write_broadcast).await,
        tracks_presence: dry_run_affects_rows(caller, topic, &track_presence).await,
    }
}

/// Runs a statement with `realtime.topic` set to the topic, as Realtime does for a client who joins it, and rolls back.
/// Returns whether the statement returned or inserted rows. Panics if the statement failed for any other reason than a
/// missing privilege or row security.
async fn dry_run_affects_rows(caller: &SqlCaller, topic: &str, sql: &str) -> bool {
    let transaction = caller.begin().await;
    transaction.execute_unprepared(&format!("SET LOCAL realtime.topic = '{topic}'")).await.unwrap();
    let affects_rows = match transaction.execute_unprepared(sql).await {
        Ok(result) => result.rows_affected() > 0,
        Err(error) => {
            let error = into_sql_error(error);
            assert!(error.is_insufficient_privilege(), "{topic}: {error:?}");
            false
        }
    };
    transaction.rollback().await.unwrap();
    affects_rows
}

#[tokio::test]
async fn every_event_is_sent_as_a_private_broadcast_with_its_seq() {
    let (world, _superuser) = new_platform_world().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    player.caller.execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await.unwrap();
    let event_count = world.owner().count(&format!("session_events WHERE session_id = '{}'", game.session_id)).await;
    for event_type in ["player_joined", "dice_rolled"] {
        let events = format!("session_events WHERE session_id = '{}' AND event_type = '{event_type}'", game.session_id);
        assert_eq!(world.owner().count(&events).await, 1, "{event_type}");
    }
    assert_eq!(count_broadcasts(&world, &game).await, event_count);
    let matching_messages = format!(
        "realtime.messages AS message
         JOIN session_events AS event ON event.id::text = message.payload ->> 'id'
         WHERE message.topic = '{}' AND message.private AND message.event = event.event_type
           AND (message.payload ->> 'seq')::bigint = event.seq AND message.payload -> 'payload' = event.payload",
        topic(&game)
    );
    assert_eq!(world.owner().count(&matching_messages).await, event_count);
}

#[tokio::test]
async fn a_participant_has_no_access_to_another_topic_and_sends_presence_without_content() {
    let (world, _superuser) = new_platform_world().await;
    let (game, other_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let other_player = &other_game.players[0];
    other_player
        .caller
        .execute(&insert_attribute_check_sql(other_game.session_id, other_player.character_id))
        .await
        .unwrap();
    let caller = &game.players[0].caller;
    // Presence with content is refused even in the caller's own session, because Realtime would send the content to the
    // other participants.
    for (columns, values) in [
        ("topic, extension", format!("'{}', 'presence'", topic(&other_game))),
        ("topic, extension, event", format!("'{}', 'presence', 'dice_rolled'", topic(&game))),
        ("topic, extension, payload", format!("'{}', 'presence', '{{\"total\": 18}}'", topic(&game))),
        ("topic, extension, event, payload", format!("'{}', 'presence', 'dice_rolled', '{{}}'", topic(&other_game))),
        ("topic, extension, binary_payload", format!("'{}', 'presence', '\\x01'", topic(&game))),
    ] {
        let transaction = caller.begin().await;
        transaction.execute_unprepared(&format!("SET LOCAL realtime.topic = '{}'", topic(&game))).await.unwrap();
        let insert_presence = format!("INSERT INTO realtime.messages ({columns}) VALUES ({values})");
        let error = into_sql_error(transaction.execute_unprepared(&insert_presence).await.unwrap_err());
        assert!(error.is_insufficient_privilege(), "{columns}: {error:?}");
    }
    let transaction = caller.begin().await;
    transaction.execute_unprepared(&format!("SET LOCAL realtime.topic = '{}'", topic(&game))).await.unwrap();
    let select_messages = format!("SELECT FROM realtime.messages WHERE topic = '{}'", topic(&other_game));
    assert_eq!(transaction.execute_unprepared(&select_messages).await.unwrap().rows_affected(), 0);
}

#[tokio::test]
async fn no_setting_of_a_client_suppresses_the_broadcast_of_a_roll() {
    let (world, _superuser) = new_platform_world().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    // `sparc.broadcast` turns broadcasts off only if an operator sets it for the database. If broadcasts are possible,
    // the trigger caches this answer: it sets `sparc.can_broadcast_until` to the time at which the answer expires.
    for setting in [
        "sparc.broadcast = 'off'",
        "sparc.can_broadcast_until = 'tomorrow'",
        "sparc.can_broadcast_until = '0'",
        "sparc.can_broadcast_until = '-1'",
        "sparc.can_broadcast_until = '99999999999999999999'",
        "sparc.can_broadcast_until = 'infinity'",
        "timezone = 'Pacific/Kiritimati'",
        "timezone = '+167'",
        "timezone = '-167'",
        "datestyle = 'German'",
        "search_path = 'pg_temp'",
    ] {
        for scope in ["LOCAL", "SESSION"] {
            let broadcast_count_before = count_broadcasts(&world, &game).await;
            // Each case has a new connection, because a setting of the database session would stay for the next case.
            // The pool has only this connection, so the roll uses the connection with the setting.
            let world = world.with_single_connection().await;
            let caller = world.user(player.user_id);
            let mut transaction = caller.begin().await;
            transaction.execute_unprepared(&format!("SET {scope} {setting}")).await.unwrap();
            if scope == "SESSION" {
                transaction.commit().await.unwrap();
                transaction = caller.begin().await;
            }
            // With `search_path = 'pg_temp'`, only a qualified name finds the table.
            let insert_roll = insert_attribute_check_sql(game.session_id, player.character_id)
                .replace("INTO dice_rolls", "INTO public.dice_rolls");
            transaction.execute_unprepared(&insert_roll).await.unwrap();
            transaction.commit().await.unwrap();
            assert_eq!(count_broadcasts(&world, &game).await, broadcast_count_before + 1, "{scope} {setting}");
        }
    }
}

#[tokio::test]
async fn participants_read_broadcasts_and_track_presence_but_no_client_writes_a_broadcast() {
    let (world, _superuser) = new_platform_world().await;
    let (game, other_game) = (world.new_active_session(2).await, world.new_active_session(1).await);
    let topic_of_game = topic(&game);
    let participants_access = TopicAccess { reads: true, writes_broadcasts: false, tracks_presence: true };
    for (role, caller) in [("player", &game.players[0].caller), ("Seer", &game.seer)] {
        assert_eq!(topic_access(caller, &topic_of_game).await, participants_access, "{role}");
        assert_eq!(topic_access(caller, &topic(&other_game)).await, NO_ACCESS, "{role} of another session");
    }
    assert_eq!(topic_access(&world.new_user().await, &topic_of_game).await, NO_ACCESS, "a stranger");
    assert_eq!(topic_access(&world.visitor(), &topic_of_game).await, NO_ACCESS, "a visitor");
    let player_with_closed_account = &game.players[1];
    world
        .owner()
        .execute(&format!(
            "UPDATE auth.users SET deleted_at = now() WHERE id = '{}'",
            player_with_closed_account.user_id
        ))
        .await
        .unwrap();
    assert_eq!(topic_access(&player_with_closed_account.caller, &topic_of_game).await, NO_ACCESS, "a closed account");
}

#[tokio::test]
async fn a_malformed_topic_is_treated_like_the_topic_of_another_session() {
    let (world, superuser) = new_platform_world().await;
    let game = world.new_active_session(1).await;
    let id = game.session_id.to_string();
    let upper_case_id = id.to_uppercase();
    let malformed_topics = [
        "",
        "session",
        "session:",
        "session:x",
        "x",
        &id,
        &format!("session:{upper_case_id}"),
        &format!("Session:{id}"),
        &format!(" session:{id}"),
        &format!("session:{id} "),
        &format!("session:{id}:x"),
        &format!("session:{{{id}}}"),
        &format!("session:{}", id.replace('-', "")),
        &format!("sessions:{id}"),
        "session:%",
    ];
    for topic in malformed_topics {
        // If the topic had no message, the player would read none even if the policy allowed it.
        let insert =
            format!("INSERT INTO realtime.messages (topic, extension, private) VALUES ('{topic}', 'broadcast', true)");
        superuser.execute_unprepared(&insert).await.unwrap();
        assert_eq!(topic_access(&game.players[0].caller, topic).await, NO_ACCESS, "{topic:?}");
    }
}

#[tokio::test]
async fn a_roll_succeeds_even_if_its_broadcast_cannot_be_sent() {
    for obstacle in [
        // If no client has connected for some days, `realtime.messages` has no partition for the current day.
        "DO $$ DECLARE part regclass; BEGIN
           FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'realtime.messages'::regclass LOOP
             EXECUTE format('DROP TABLE %s', part);
           END LOOP; END $$",
        "ALTER TABLE realtime.messages OWNER TO supabase_admin;
         REVOKE ALL ON realtime.messages
           FROM postgres, anon, authenticated, service_role, supabase_realtime_admin",
        "DROP FUNCTION realtime.send(jsonb, text, text, boolean)",
        "CREATE OR REPLACE FUNCTION realtime.send(payload jsonb, event text, topic text, private boolean DEFAULT true)
         RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'out of order'; END $$",
        // With this setting, an operator turns broadcasts off.
        "ALTER DATABASE {database} SET sparc.broadcast = 'off'",
    ] {
        let (world, superuser) = new_platform_world().await;
        let game = world.new_active_session(1).await;
        let player = &game.players[0];
        let broadcast_count_before = count_broadcasts(&world, &game).await;
        let database = world.owner().fetch_value::<String>("SELECT quote_ident(current_database())").await.unwrap();
        superuser.execute_unprepared(&obstacle.replace("{database}", &database)).await.unwrap();
        // An open connection may have cached, in `sparc.can_broadcast_until`, that broadcasts are possible. So the roll
        // uses a new connection.
        let reconnected_world = world.with_new_pool().await;
        assert_eq!(
            reconnected_world
                .user(player.user_id)
                .execute(&insert_attribute_check_sql(game.session_id, player.character_id))
                .await,
            Ok(1),
            "{obstacle}"
        );
        assert_eq!(world.owner().count("dice_rolls").await, 1, "{obstacle}");
        let select_broadcast_count = sea_orm::Statement::from_string(
            sea_orm::DbBackend::Postgres,
            format!("SELECT count(*) FROM realtime.messages WHERE topic = '{}'", topic(&game)),
        );
        let row = superuser.query_one_raw(select_broadcast_count).await.unwrap().unwrap();
        let broadcast_count_after: i64 = row.try_get_by_index(0).unwrap();
        // The first obstacle also removes the earlier broadcasts.
        let expected_count = if obstacle.contains("DROP TABLE") { 0 } else { broadcast_count_before };
        assert_eq!(broadcast_count_after, expected_count, "{obstacle}: the roll must store no broadcast");
        superuser.close().await.unwrap();
    }
}

/// The platform locks `realtime.messages` when it removes an old partition. If an open transaction has read the table,
/// the removal waits for that transaction, and later statements wait for the removal. A roll waits for a moment at
/// most, and is then stored without being broadcast.
#[tokio::test]
async fn a_roll_does_not_wait_until_the_table_of_broadcasts_is_unlocked() {
    let (world, superuser) = new_platform_world().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let lock_holder = superuser.begin().await.unwrap();
    lock_holder.execute_unprepared("LOCK TABLE realtime.messages IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let roll_transaction = player.caller.begin().await;
    // A roll that waited until the table is unlocked would fail with this timeout.
    roll_transaction.execute_unprepared("SET LOCAL statement_timeout = '10s'").await.unwrap();
    let result = roll_transaction
        .execute_unprepared(&insert_attribute_check_sql(game.session_id, player.character_id))
        .await
        .unwrap();
    assert_eq!(result.rows_affected(), 1);
    roll_transaction.commit().await.unwrap();
    lock_holder.rollback().await.unwrap();
    superuser.close().await.unwrap();
}
