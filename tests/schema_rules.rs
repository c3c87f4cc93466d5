//! Rules for the whole schema, checked in PostgreSQL's system catalogs. *The specification* is the document that
//! defined the game's database (`docs/decisions.md`).

use crate::world::World;

/// Asserts that a query returns no row in a new database. Each row would name an object that breaks a rule.
pub async fn assert_no_rows(sql: &str) {
    let violations: Vec<String> = World::new().await.owner().fetch_values(sql).await.unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test]
async fn every_table_has_row_security() {
    assert_no_rows(
        "SELECT relname::text FROM pg_class
          WHERE relnamespace IN ('public'::regnamespace, 'private'::regnamespace)
            AND relkind IN ('r', 'p') AND NOT relrowsecurity",
    )
    .await;
}

#[tokio::test]
async fn every_foreign_key_has_an_index() {
    assert_no_rows(
        "SELECT conrelid::regclass || '.' || conname
          FROM pg_constraint
          WHERE contype = 'f' AND connamespace = 'public'::regnamespace
            AND NOT EXISTS (
              SELECT FROM pg_index
              WHERE indrelid = conrelid AND indpred IS NULL AND indkey[0] = conkey[1] AND cardinality(conkey) = 1
            )",
    )
    .await;
}

#[tokio::test]
async fn no_index_is_a_prefix_of_another() {
    assert_no_rows(
        "SELECT shorter.indexrelid::regclass || ' is a prefix of ' || longer.indexrelid::regclass
          FROM pg_index AS shorter
          JOIN pg_index AS longer ON longer.indrelid = shorter.indrelid AND longer.indexrelid <> shorter.indexrelid
          WHERE shorter.indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
            AND NOT shorter.indisunique AND shorter.indpred IS NULL AND longer.indpred IS NULL
            AND shorter.indexprs IS NULL AND longer.indexprs IS NULL
            AND (longer.indkey::text || ' ') LIKE (shorter.indkey::text || ' %')
            AND (longer.indoption::text || ' ') LIKE (shorter.indoption::text || ' %')
            AND shorter.indexrelid::regclass::text NOT IN (
              -- The specification requires this index, although the index of a unique constraint could replace it.
              'idx_characters_user_id'
            )",
    )
    .await;
}

#[tokio::test]
async fn every_function_pins_its_search_path() {
    assert_no_rows(
        "SELECT oid::regprocedure::text FROM pg_proc
          WHERE (
              pronamespace IN ('public'::regnamespace, 'private'::regnamespace)
              -- On the platform (Supabase), schema `auth` is not ours. Elsewhere, we create a stand-in for it, with a
              -- comment that says who made it.
              OR pronamespace = 'auth'::regnamespace
                AND obj_description('auth'::regnamespace, 'pg_namespace') LIKE 'made by sparc%'
            )
            AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']",
    )
    .await;
}

#[tokio::test]
async fn no_function_in_public_is_security_definer() {
    assert_no_rows(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef",
    )
    .await;
}

#[tokio::test]
async fn visitors_may_call_only_the_listed_functions() {
    assert_no_rows(
        "SELECT oid::regprocedure::text FROM pg_proc
          WHERE pronamespace IN ('public'::regnamespace, 'private'::regnamespace)
            AND has_function_privilege('anon', oid, 'EXECUTE')
            AND proname NOT IN ('get_session_details', 'session_details', 'my_session_ids',
                                'my_archived_session_ids', 'can_see_adventure', 'best_rated_ids_after', 'newest_adventures',
                                'most_played_adventures', 'best_rated_adventures', 'is_service')",
    )
    .await;
}

#[tokio::test]
async fn no_api_role_has_a_privilege_on_a_private_table() {
    assert_no_rows(
        "SELECT concat_ws(' ', role, privilege, relname)
         FROM pg_class,
           unnest(ARRAY['anon', 'authenticated', 'service_role']) AS role,
           unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
         WHERE relnamespace = 'private'::regnamespace AND relkind = 'r'
           AND (has_table_privilege(role, pg_class.oid, privilege)
             OR privilege NOT IN ('DELETE', 'TRUNCATE', 'TRIGGER')
               AND has_any_column_privilege(role, pg_class.oid, privilege))",
    )
    .await;
}

#[tokio::test]
async fn no_api_role_may_call_a_trigger_function() {
    assert_no_rows(
        "SELECT oid::regprocedure::text
          FROM pg_proc, (VALUES ('anon'), ('authenticated'), ('service_role')) AS api_roles (role)
          WHERE prorettype = 'trigger'::regtype AND pronamespace <> 'pg_catalog'::regnamespace
            AND has_function_privilege(api_roles.role, oid, 'EXECUTE')",
    )
    .await;
}

#[tokio::test]
async fn there_is_at_most_one_permissive_policy_per_table_role_and_command() {
    assert_no_rows(
        "SELECT tablename || ' ' || role || ' ' || command
          FROM pg_policies CROSS JOIN unnest(roles) AS role
          JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS command ON cmd IN (command, 'ALL')
          WHERE permissive = 'PERMISSIVE'
          GROUP BY tablename, role, command HAVING count(*) > 1",
    )
    .await;
}

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    assert_no_rows(
        "SELECT relname || coalesce('.' || attname, '')
          FROM pg_class
          LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
          WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'sparc_migrations'
            AND (col_description(pg_class.oid, attnum) IS NULL OR obj_description(pg_class.oid, 'pg_class') IS NULL)",
    )
    .await;
}

#[tokio::test]
async fn every_policy_is_for_anon_or_authenticated_only() {
    assert_no_rows(
        "SELECT policyname::text FROM pg_policies
          WHERE schemaname = 'public' AND NOT roles <@ '{anon,authenticated}'::name[]",
    )
    .await;
}

/// PostgreSQL evaluates `(SELECT auth.uid())` once per statement, and `auth.uid()` alone once per row.
#[tokio::test]
async fn no_policy_evaluates_the_callers_identity_per_row() {
    assert_no_rows(
        "SELECT policyname::text
          FROM pg_policies, unnest(ARRAY[qual, with_check]) AS condition
          WHERE replace(condition, '( SELECT auth.uid() AS uid)', '') ~ 'auth\\.'",
    )
    .await;
}

#[tokio::test]
async fn no_api_role_may_truncate_or_reference_a_table_or_create_triggers() {
    assert_no_rows(
        "SELECT relname || ' ' || role || ' ' || privilege
          FROM pg_class,
            (VALUES ('anon'), ('authenticated'), ('service_role')) AS api_roles (role),
            (VALUES ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) AS privileges (privilege)
          WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
            AND (has_table_privilege(role, pg_class.oid, privilege)
              OR privilege = 'REFERENCES' AND has_any_column_privilege(role, pg_class.oid, privilege))",
    )
    .await;
}

#[tokio::test]
async fn visitors_may_write_no_table() {
    assert_no_rows(
        "SELECT relname || ' ' || privilege
          FROM pg_class, (VALUES ('INSERT'), ('UPDATE'), ('DELETE')) AS privileges (privilege)
          WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
            AND (has_table_privilege('anon', pg_class.oid, privilege)
              OR privilege <> 'DELETE' AND has_any_column_privilege('anon', pg_class.oid, privilege))",
    )
    .await;
}

#[tokio::test]
async fn no_api_role_may_access_the_table_of_migrations_or_a_sequence() {
    assert_no_rows(
        "SELECT relname || ' ' || role
          FROM pg_class, (VALUES ('anon'), ('authenticated'), ('service_role')) AS api_roles (role)
          WHERE relnamespace = 'public'::regnamespace
            AND (relname = 'sparc_migrations'
                AND (has_any_column_privilege(role, pg_class.oid, 'SELECT, INSERT, UPDATE')
                  OR has_table_privilege(role, pg_class.oid, 'DELETE, TRUNCATE'))
              OR CASE relkind WHEN 'S' THEN has_sequence_privilege(role, pg_class.oid, 'SELECT, USAGE, UPDATE') END)",
    )
    .await;
}

#[tokio::test]
async fn every_table_with_updated_at_has_a_trigger_that_maintains_it() {
    assert_no_rows("SELECT attrelid::regclass::text
          FROM pg_attribute
          WHERE attname = 'updated_at' AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r')
            AND NOT EXISTS (
              SELECT FROM pg_trigger
              WHERE tgrelid = attrelid AND tgfoid = 'private.touch_updated_at'::regproc
            )")
    .await;
}

#[tokio::test]
async fn realtime_publishes_the_four_tables_of_a_session() {
    let owner = World::new().await.owner();
    let published_tables: Vec<String> = owner
        .fetch_values(
            "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'supabase_realtime' ORDER BY 1",
        )
        .await
        .unwrap();
    assert_eq!(published_tables, ["dice_rolls", "session_events", "session_players", "sessions"]);
}

#[tokio::test]
async fn indexes_and_triggers_have_the_names_of_the_specification() {
    let owner = World::new().await.owner();
    for name in [
        "idx_users_display_name",
        "idx_users_created_at",
        "idx_characters_user_id",
        "idx_characters_class",
        "idx_characters_last_played",
        "idx_adventures_creator_id",
        "idx_adventures_status",
        "idx_adventures_published",
        "idx_adventures_difficulty",
        "idx_adventures_content",
        "idx_sessions_seer_id",
        "idx_sessions_adventure_id",
        "idx_sessions_status",
        "idx_sessions_public_waiting",
        "idx_session_players_character",
        "idx_session_players_active",
        "idx_dice_rolls_character",
        "idx_dice_rolls_created",
        "idx_dice_rolls_type",
        "idx_session_events_created",
        "idx_tutorial_completed",
    ] {
        assert_eq!(owner.count(&format!("pg_class WHERE relname = '{name}' AND relkind = 'i'")).await, 1, "{name}");
    }
    // The specification has these three too, but this schema leaves them out.
    for name in ["idx_sessions_code", "idx_session_events_session", "idx_dice_rolls_session"] {
        assert_eq!(
            owner.count(&format!("pg_class WHERE relname = '{name}'")).await,
            0,
            "{name} would duplicate another index"
        );
    }
    for trigger in [
        "on_auth_user_created",
        "enforce_character_limit",
        "set_session_code",
        "enforce_session_capacity",
        "cleanup_events_trigger",
        "on_session_complete",
    ] {
        assert_eq!(owner.count(&format!("pg_trigger WHERE tgname = '{trigger}'")).await, 1, "{trigger}");
    }
}

#[tokio::test]
async fn the_foreign_keys_and_their_delete_actions_are_the_listed_ones() {
    let mut keys: Vec<String> = World::new()
        .await
        .owner()
        .fetch_values(
            "SELECT conrelid::regclass || '.' || conname || ' -> ' || confrelid::regclass
               || CASE confdeltype
                    WHEN 'a' THEN '' WHEN 'c' THEN ' cascade' WHEN 'n' THEN ' set null' ELSE ' other action'
                  END
             FROM pg_constraint
             WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND convalidated",
        )
        .await
        .unwrap();
    keys.sort();
    let expected = [
        "adventures.adventures_creator_id_fkey -> users cascade",
        "archived_dice_rolls.archived_dice_rolls_character_id_fkey -> characters",
        "archived_dice_rolls.archived_dice_rolls_creature_id_fkey -> creatures set null",
        "archived_dice_rolls.archived_dice_rolls_original_roll_id_fkey -> archived_dice_rolls",
        "archived_dice_rolls.archived_dice_rolls_session_id_fkey -> archived_sessions cascade",
        "archived_session_players.archived_session_players_character_id_fkey -> characters",
        "archived_session_players.archived_session_players_session_id_fkey -> archived_sessions cascade",
        "archived_session_players.archived_session_players_user_id_fkey -> users",
        "archived_sessions.archived_sessions_adventure_id_fkey -> adventures",
        "archived_sessions.archived_sessions_seer_id_fkey -> users",
        "characters.characters_user_id_fkey -> users cascade",
        "creatures.creatures_adventure_id_fkey -> adventures cascade",
        "dice_rolls.dice_rolls_character_id_fkey -> characters",
        "dice_rolls.dice_rolls_creature_id_fkey -> creatures set null",
        "dice_rolls.dice_rolls_original_roll_id_fkey -> dice_rolls",
        "dice_rolls.dice_rolls_session_id_fkey -> sessions cascade",
        "session_events.session_events_session_id_fkey -> sessions cascade",
        "session_players.session_players_character_id_fkey -> characters",
        "session_players.session_players_session_id_fkey -> sessions cascade",
        "session_players.session_players_user_id_fkey -> users",
        "sessions.sessions_adventure_id_fkey -> adventures",
        "sessions.sessions_seer_id_fkey -> users",
        "tutorial_progress.tutorial_progress_user_id_fkey -> users cascade",
        "users.users_account_id_fkey -> auth.users set null",
    ];
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn only_the_listed_columns_are_nullable() {
    let nullable_columns: Vec<String> = World::new()
        .await
        .owner()
        .fetch_values(
            "SELECT relname || ': ' || string_agg(attname, ' ' ORDER BY attnum)
             FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
             WHERE relnamespace IN ('public'::regnamespace, 'private'::regnamespace) AND relkind = 'r'
               AND relname <> 'sparc_migrations' AND attnum > 0 AND NOT attnotnull AND NOT attisdropped
             GROUP BY relname ORDER BY relname",
        )
        .await
        .unwrap();
    let expected = [
        "adventures: description thumbnail_url artwork_url published_at average_rating",
        "archived_dice_rolls: character_id creature_id description animation_seed original_roll_id rolled_by",
        "archived_session_players: left_at removed_at",
        "archived_sessions: looking_for scheduled_start current_scene_id current_encounter_id started_at ended_at",
        "characters: last_played_at retired_at",
        "creatures: description",
        "dice_rolls: character_id creature_id description animation_seed original_roll_id rolled_by",
        "request_digests: requested_by",
        "session_events: sender_id",
        "session_players: left_at removed_at",
        "sessions: looking_for scheduled_start current_scene_id current_encounter_id started_at ended_at",
        "tutorial_progress: path completed_at",
        "users: avatar_url bio account_id closed_at",
    ];
    assert_eq!(nullable_columns, expected);
}

#[tokio::test]
async fn plpgsql_check_finds_nothing_in_any_function() {
    let world = World::new().await;
    let plpgsql_check_extension = "pg_available_extensions WHERE name = 'plpgsql_check'";
    if world.owner().count(plpgsql_check_extension).await == 0 {
        eprintln!("skipped: this server has no plpgsql_check");
        return;
    }
    world.superuser().await.execute("CREATE EXTENSION plpgsql_check SCHEMA public").await.unwrap();
    let findings = world
        .owner()
        .fetch_values::<String>(
            "SELECT concat_ws(' ', function.oid::regprocedure, found.lineno, found.level, found.message)
             FROM pg_proc AS function
             LEFT JOIN pg_trigger AS trigger ON trigger.tgfoid = function.oid AND NOT trigger.tgisinternal
             CROSS JOIN LATERAL plpgsql_check_function_tb(
               function.oid, coalesce(trigger.tgrelid, 0), all_warnings => true,
               oldtable => (SELECT max(tgoldtable) FROM pg_trigger WHERE tgfoid = function.oid),
               newtable => (SELECT max(tgnewtable) FROM pg_trigger WHERE tgfoid = function.oid)
             ) AS found
             WHERE function.pronamespace IN ('private'::regnamespace, 'public'::regnamespace)
               AND function.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')
               AND (trigger.oid IS NOT NULL OR function.prorettype <> 'trigger'::regtype)
               AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = function.oid AND deptype = 'e')
               -- `broadcast_event` calls a function that only the platform has.
               AND NOT (function.proname = 'broadcast_event' AND found.message LIKE '%realtime%')
               -- The functions `refuse_...` only raise an error. They are VOLATILE, because the planner may leave out a
               -- call of a function that is not VOLATILE.
               AND NOT (function.proname LIKE 'refuse%' AND found.message LIKE 'routine is marked as VOLATILE%')
               -- `try_lock_rows_of_sessions` locks rows, which only a VOLATILE function may do. The extension does not
               -- see that, because the lock is inside WITH.
               AND NOT (function.proname = 'try_lock_rows_of_sessions' AND found.message LIKE 'routine is marked as VOLATILE%')
             ORDER BY 1",
        )
        .await
        .unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}
