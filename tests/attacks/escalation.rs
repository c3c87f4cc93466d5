//! No function, operator or other object that a caller creates runs with another role's privileges.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{dry_run, execute_in, sql_outcome};
use crate::{
    maintenance::insert_old_events,
    world::{
        GameSession, SqlCaller, World, insert_attribute_check_sql, insert_character_sql, insert_heroic_save_sql,
        insert_seat_sql,
    },
};

/// If the search path of a function does not name `pg_temp`, PostgreSQL looks for types and tables among the caller's
/// temporary ones first.
#[tokio::test]
async fn every_function_has_the_search_path_pg_catalog_and_then_pg_temp() {
    let world = World::new().await;
    let functions_with_another_path: Vec<String> = world
        .owner()
        .fetch_values(
            "SELECT format('%s %s', function.oid::regprocedure, proconfig)
             FROM pg_proc AS function
             WHERE pronamespace IN ('public'::regnamespace, 'private'::regnamespace, 'auth'::regnamespace)
               -- On the platform (Supabase), the functions in `auth` are the platform's, and are not checked.
               AND (
                 pronamespace <> 'auth'::regnamespace
                 OR obj_description('auth'::regnamespace, 'pg_namespace') LIKE 'made by sparc%'
               )
               AND NOT EXISTS (
                 SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = function.oid AND deptype = 'e'
               )
               AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']",
        )
        .await
        .unwrap();
    assert!(functions_with_another_path.is_empty(), "{functions_with_another_path:?}");
}

/// The API of the platform (Supabase) serves the functions and views of schema `public`.
#[tokio::test]
async fn nothing_that_the_api_serves_runs_with_its_owners_privileges() {
    let world = World::new().await;
    let objects_with_owners_privileges: Vec<String> = world
        .owner()
        .fetch_values(
            "SELECT function.oid::regprocedure::text FROM pg_proc AS function
             WHERE pronamespace = 'public'::regnamespace AND prosecdef
               AND (has_function_privilege('anon', oid, 'EXECUTE') OR has_function_privilege('authenticated', oid, 'EXECUTE'))
             UNION ALL
             SELECT oid::regclass::text FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
               AND NOT coalesce(reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on']",
        )
        .await
        .unwrap();
    assert!(objects_with_owners_privileges.is_empty(), "{objects_with_owners_privileges:?}");
}

/// The SQLSTATE of the error that a trap (see [`CREATE_TRAPS`]) raises if it runs as a role other than the attacker's.
const TRAP_SPRUNG: &str = "ZZ666";

/// Creates the traps: for every base type of PostgreSQL (except arrays and those called `pg_...`) and each of our
/// enums, a domain of the same name, and for each table of schema `public` a temporary table of the same name. The
/// domains' checks and the tables' defaults raise [`TRAP_SPRUNG`] if they run as a role other than the attacker's. The
/// setting `sparc.attacker` contains the name of the attacker's role.
const CREATE_TRAPS: &str = "
DO $traps$
DECLARE
  original record;
BEGIN
  CREATE FUNCTION pg_temp.check_role(name pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$
  BEGIN
    IF pg_catalog.current_setting('sparc.attacker') <> current_user::pg_catalog.text THEN
      RAISE EXCEPTION USING ERRCODE = 'ZZ666', MESSAGE = pg_catalog.format('%s runs as %s', name, current_user);
    END IF;
    RETURN true;
  END $$;
  FOR original IN
    SELECT typname AS name, nspname AS schema
    FROM pg_catalog.pg_type AS type
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = typnamespace
    WHERE (nspname = 'pg_catalog' AND typtype = 'b' AND typcategory <> 'A' AND typname !~ '^(pg_|_)')
      OR (nspname = 'public' AND typtype = 'e')
  LOOP
    EXECUTE pg_catalog.format(
      'CREATE DOMAIN pg_temp.%I AS %I.%I CHECK (pg_temp.check_role(%L))',
      original.name, original.schema, original.name, original.name
    );
  END LOOP;
  FOR original IN
    SELECT relname AS name FROM pg_catalog.pg_class WHERE relnamespace = 'public'::pg_catalog.regnamespace AND relkind = 'r'
  LOOP
    EXECUTE pg_catalog.format(
      'CREATE TEMPORARY TABLE %I (id pg_catalog.uuid DEFAULT CASE WHEN pg_temp.check_role(%L) THEN NULL::pg_catalog.uuid END)',
      original.name, original.name
    );
  END LOOP;
END
$traps$";

/// Creates functions and operators with names that our SQL often uses. They check the role with the function
/// `check_role`, which [`CREATE_TRAPS`] creates. PostgreSQL should find none of them, because it finds functions and
/// operators in `pg_temp` only by their qualified names, whatever the search path; the test confirms this.
const CREATE_IMPOSTORS: &str = "
CREATE FUNCTION pg_temp.now() RETURNS pg_catalog.timestamptz LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_temp.check_role('now'); RETURN pg_catalog.now(); END $$;
CREATE FUNCTION pg_temp.format(pg_catalog.text, VARIADIC pg_catalog.text[]) RETURNS pg_catalog.text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_temp.check_role('format'); RETURN ''; END $$;
CREATE FUNCTION pg_temp.gen_random_uuid() RETURNS pg_catalog.uuid LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_temp.check_role('gen_random_uuid'); RETURN pg_catalog.gen_random_uuid(); END $$;
CREATE FUNCTION pg_temp.uid() RETURNS pg_catalog.uuid LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_temp.check_role('uid'); RETURN NULL; END $$;
CREATE FUNCTION pg_temp.same(pg_catalog.uuid, pg_catalog.uuid) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_temp.check_role('same'); RETURN true; END $$;
CREATE OPERATOR pg_temp.= (LEFTARG = pg_catalog.uuid, RIGHTARG = pg_catalog.uuid, FUNCTION = pg_temp.same);
CREATE OPERATOR pg_temp.<> (LEFTARG = pg_catalog.uuid, RIGHTARG = pg_catalog.uuid, FUNCTION = pg_temp.same)";

/// Functions that users may call and that only raise an error.
const REFUSING_FUNCTIONS: [&str; 2] = ["refuse_too_many_rows", "refuse_several_sessions"];

/// The rows that the statements of a player and a Seer need.
struct Fixture {
    world: World,
    /// An active session. Its first player and its Seer are the callers of the statements.
    game: GameSession,
    /// A failed roll of the player's in the session, which a heroic save can repeat.
    failed_roll_id: Uuid,
    /// A draft adventure of the Seer's.
    draft_adventure_id: Uuid,
    /// A creature of the session's adventure.
    creature_id: Uuid,
    /// A character of the player's without a seat.
    spare_character_id: Uuid,
    /// Another Seer's public session, which waits for players.
    waiting_game: GameSession,
}

impl Fixture {
    async fn new() -> Self {
        let world = World::new().await;
        let (game, waiting_game) = (world.new_active_session(2).await, world.new_session(1).await);
        world.update_session(&waiting_game, "is_public = true").await;
        let player = &game.players[0];
        let failed_roll_id = world.new_failed_roll(game.session_id, player.character_id).await;
        let spare_character_id = world.new_character(player.user_id).await;
        let (seer_id, draft_adventure_id) = (game.seer.user_id(), world.new_draft_adventure(game.seer.user_id()).await);
        let sql =
            format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id", game.adventure_id);
        let creature_id = world.owner().fetch_value(&sql).await.unwrap();
        for account in [seer_id, player.user_id] {
            let sql = format!("INSERT INTO tutorial_progress (user_id) VALUES ('{account}')");
            world.owner().execute(&sql).await.unwrap();
        }
        // An event that is more than a day old. The statements that insert an event also delete old events.
        insert_old_events(&world, game.session_id, 1).await;
        Self { world, game, failed_roll_id, draft_adventure_id, creature_id, spare_character_id, waiting_game }
    }

    /// Returns statements with their callers: writes to every table that a player or a Seer may write, calls of every
    /// function that they may call (except [`REFUSING_FUNCTIONS`]), and some queries. Each statement succeeds if none
    /// of the others has been run.
    fn statements(&self) -> Vec<(SqlCaller, String)> {
        let Self { game, failed_roll_id, draft_adventure_id, creature_id, spare_character_id, waiting_game, .. } = self;
        let (player, seer) = (&game.players[0], game.seer.user_id());
        let (session, adventure, character) = (game.session_id, game.adventure_id, player.character_id);
        let fellow_character = game.players[1].character_id;
        let player_statements = [
            insert_character_sql(Uuid::new_v4(), player.user_id),
            format!("UPDATE public.characters SET name = 'Renamed', equipment = '[1]' WHERE id = '{character}'"),
            format!("UPDATE public.characters SET retired_at = now() WHERE id = '{spare_character_id}'"),
            format!("DELETE FROM public.characters WHERE id = '{spare_character_id}'"),
            format!("UPDATE public.users SET bio = 'Plays.', display_name = 'Ada' WHERE id = '{}'", player.user_id),
            format!("UPDATE public.tutorial_progress SET skipped = true WHERE user_id = '{}'", player.user_id),
            format!("UPDATE public.tutorial_progress SET path = 'player', current_step = 'character-basics' WHERE user_id = '{}'", player.user_id),
            insert_seat_sql(waiting_game.session_id, player.user_id, *spare_character_id),
            format!("UPDATE public.session_players SET is_active = false WHERE session_id = '{session}' AND user_id = '{}'", player.user_id),
            insert_attribute_check_sql(session, character),
            insert_heroic_save_sql(session, character, *failed_roll_id),
            format!("INSERT INTO public.session_events (session_id, event_type, payload) VALUES ('{session}', 'client.wave', '[1]')"),
            format!("SELECT * FROM public.get_session_details('{session}')"),
            format!("SELECT * FROM public.get_session_details('{}')", waiting_game.session_id),
            format!("SELECT * FROM private.session_details('{session}')"),
            format!("SELECT * FROM private.change_hit_points('{character}', -1)"),
            format!("SELECT * FROM private.rolls_of_character('{character}', 'attack', NULL, NULL, NULL, NULL, 10)"),
            format!("SELECT private.initiative_order(ARRAY['{failed_roll_id}']::pg_catalog.uuid[])"),
            "SELECT private.my_session_ids(), private.my_archived_session_ids(), private.my_email(), private.is_service()".to_owned(),
            "SELECT * FROM private.newest_adventures(NULL, NULL, 10)".to_owned(),
            "SELECT * FROM private.most_played_adventures(9, pg_catalog.gen_random_uuid(), 10)".to_owned(),
            "SELECT private.best_rated_ids_after(4.5, pg_catalog.gen_random_uuid(), 10)".to_owned(),
            "SELECT * FROM private.best_rated_adventures(NULL, NULL, 10)".to_owned(),
            format!("SELECT private.may_roll('{session}', '{character}', NULL), private.may_send_event('{session}')"),
            format!("SELECT private.can_see_adventure('{adventure}'), private.owns_adventure('{adventure}')"),
            format!("SELECT private.is_public_session('{session}'), private.is_public_archived_session('{session}')"),
            format!("SELECT private.may_take_seat('{}', '{}')", waiting_game.session_id, player.user_id),
            format!("SELECT private.is_same_request('characters', '{{\"id\": \"{character}\"}}'), private.is_client_parsable('[1]', 10)"),
            "SELECT private.sum_of_dice('{1}'), private.is_blank('x'), private.is_displayable_name('x'), private.are_valid_stats('{}')".to_owned(),
            "SELECT private.are_valid_modifiers('[]'), private.sum_of_modifiers('[]', 'flat')".to_owned(),
            "SELECT private.require_open_account(), private.require_and_lock_open_account(), private.event_history_id()".to_owned(),
            format!("SELECT private.can_follow_topic('session:{session}'), private.my_event_access('{session}'), private.require_event_access('{session}')"),
            format!("SELECT * FROM private.session_by_code((SELECT code::pg_catalog.text FROM public.sessions WHERE id = '{}'))", waiting_game.session_id),
            format!("SELECT * FROM private.join_by_code((SELECT code::pg_catalog.text FROM public.sessions WHERE id = '{}'), '{spare_character_id}')", waiting_game.session_id),
            "SELECT count(*) FROM public.sessions".to_owned(),
            "SELECT count(*) FROM public.dice_rolls".to_owned(),
            "SELECT count(*) FROM public.session_events".to_owned(),
            "SELECT count(*) FROM public.session_players".to_owned(),
            "SELECT count(*) FROM public.creatures".to_owned(),
            format!("SELECT private.close_account('{}')", player.user_id),
        ];
        let seer_statements = [
            format!("INSERT INTO public.adventures (creator_id, name, content) VALUES ('{seer}', 'New', '{{\"nodes\": []}}')"),
            format!("UPDATE public.adventures SET content = '{{\"nodes\": [1]}}', name = 'Renamed' WHERE id = '{draft_adventure_id}'"),
            format!("DELETE FROM public.adventures WHERE id = '{draft_adventure_id}'"),
            format!("INSERT INTO public.creatures (adventure_id, name, stats) VALUES ('{draft_adventure_id}', 'Rat', '{{\"might\": 1, \"grace\": 2, \"wit\": 3, \"heart\": 4}}')"),
            format!("UPDATE public.creatures SET abilities = '[1]' WHERE id = '{creature_id}'"),
            format!("DELETE FROM public.creatures WHERE id = '{creature_id}'"),
            format!("INSERT INTO public.sessions (seer_id, adventure_id) VALUES ('{seer}', '{adventure}')"),
            format!("UPDATE public.sessions SET status = 'paused' WHERE id = '{session}'"),
            format!("UPDATE public.sessions SET status = 'completed' WHERE id = '{session}'"),
            format!("UPDATE public.sessions SET current_scene_id = 'a', current_encounter_id = 'b', game_state = '[1]' WHERE id = '{session}'"),
            format!("UPDATE public.session_players SET is_active = false WHERE session_id = '{session}' AND user_id = '{}'", player.user_id),
            insert_attribute_check_sql(session, fellow_character),
            format!("INSERT INTO public.dice_rolls (session_id, creature_id, attribute, difficulty, roll_type, modifiers)
                     VALUES ('{session}', '{creature_id}', 'might', 10, 'attack', '[{{\"type\": \"dice\", \"value\": 2, \"source\": \"pack\"}}]')"),
            format!("SELECT * FROM private.change_hit_points('{fellow_character}', -1)"),
            format!("SELECT * FROM public.get_session_details('{session}')"),
            format!("SELECT private.may_add_creature('{adventure}'), private.is_seer('{session}')"),
            format!("SELECT * FROM private.replace_session_code('{session}')"),
            format!("SELECT private.close_account('{seer}')"),
        ];
        let player_caller = &game.players[0].caller;
        player_statements
            .into_iter()
            .map(|sql| (player_caller.clone(), sql))
            .chain(seer_statements.into_iter().map(|sql| (game.seer.clone(), sql)))
            // The table of each INSERT is qualified with its schema. Otherwise the statement would write to the
            // caller's temporary table.
            .map(|(caller, sql)| {
                (caller, sql.replace("INSERT INTO ", "INSERT INTO public.").replace("public.public.", "public."))
            })
            .collect()
    }
}

#[tokio::test]
async fn no_temporary_object_of_the_caller_runs_as_the_owner() {
    let fixture = Fixture::new().await;
    let all_statements = fixture.statements().into_iter().map(|(_, sql)| sql).collect::<Vec<_>>().join("\n");
    let functions: Vec<String> = fixture
        .world
        .owner()
        .fetch_values(
            "SELECT proname::text FROM pg_proc
             WHERE pronamespace IN ('public'::regnamespace, 'private'::regnamespace)
               AND has_function_privilege('authenticated', oid, 'EXECUTE')",
        )
        .await
        .unwrap();
    for function in functions {
        let is_called = all_statements.contains(&format!(".{function}("));
        assert!(is_called || REFUSING_FUNCTIONS.contains(&function.as_str()), "no statement calls {function}");
    }
    let mut escalations = Vec::new();
    for caller in [&fixture.game.players[0].caller, &fixture.game.seer] {
        let statements: Vec<String> =
            fixture.statements().into_iter().filter(|(sender, _)| sender.id == caller.id).map(|(_, sql)| sql).collect();
        // The first run, without traps, makes sure that each statement succeeds.
        for sql in &statements {
            assert_eq!(dry_run(caller, sql).await, "done", "{sql}");
        }
        for set_path in
            ["", "SET LOCAL search_path = pg_temp, pg_catalog, public", "SET LOCAL search_path = public, pg_temp"]
        {
            let transaction = caller.begin().await;
            for sql in ["SET LOCAL sparc.attacker = 'authenticated'", CREATE_TRAPS, CREATE_IMPOSTORS, set_path] {
                execute_in(&transaction, sql).await.unwrap();
            }
            for sql in &statements {
                execute_in(&transaction, "SAVEPOINT before").await.unwrap();
                let outcome = execute_in(&transaction, sql).await;
                // With a changed path, unqualified names in the statement itself refer to the caller's objects, which
                // run as the caller and can make the statement fail. So there, only the traps' own error is an
                // escalation.
                if outcome.as_ref().is_err_and(|refusal| set_path.is_empty() || refusal.sqlstate == TRAP_SPRUNG) {
                    escalations.push(format!("{set_path} {sql}: {outcome:?}"));
                }
                execute_in(&transaction, "ROLLBACK TO before").await.unwrap();
            }
            transaction.rollback().await.unwrap();
        }
    }
    assert!(escalations.is_empty(), "{}", escalations.join("\n"));
}

#[tokio::test]
async fn the_traps_catch_a_function_with_an_empty_search_path() {
    let world = World::new().await;
    world
        .owner()
        .execute(
            "CREATE FUNCTION private.unsafe_cast(given text) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
             AS $$ DECLARE converted uuid; BEGIN converted := given; RETURN converted; END $$;
             GRANT EXECUTE ON FUNCTION private.unsafe_cast(text) TO authenticated",
        )
        .await
        .unwrap();
    let attacker = world.new_user().await;
    let transaction = attacker.begin().await;
    // The function casts to `uuid`, a name without a schema, so the cast uses the attacker's domain.
    for sql in ["SET LOCAL sparc.attacker = 'authenticated'", CREATE_TRAPS] {
        execute_in(&transaction, sql).await.unwrap();
    }
    let call = format!("SELECT private.unsafe_cast('{}')", attacker.user_id());
    assert_eq!(execute_in(&transaction, &call).await.unwrap_err().sqlstate, TRAP_SPRUNG);
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn statements_of_the_service_and_of_visitors_spring_no_trap() {
    let fixture = Fixture::new().await;
    let world = &fixture.world;
    world.update_session(&fixture.game, "status = 'completed', ended_at = now() - INTERVAL '1 year'").await;
    for (caller, role, statements) in [
        (
            world.service(),
            "service_role",
            vec![
                "SELECT private.archive_sessions(10)".to_owned(),
                "SELECT private.delete_old_events(10)".to_owned(),
                "SELECT private.cancel_abandoned_sessions(10)".to_owned(),
                format!("SELECT private.close_account('{}')", fixture.waiting_game.seer.user_id()),
                "INSERT INTO auth.users (id, email) VALUES (pg_catalog.gen_random_uuid(), 'new@example.org')"
                    .to_owned(),
                format!(
                    "UPDATE auth.users SET email = 'other@example.org' WHERE id = '{}'",
                    fixture.game.players[0].user_id
                ),
                format!("DELETE FROM auth.users WHERE id = '{}'", fixture.game.players[1].user_id),
            ],
        ),
        (
            world.visitor(),
            "anon",
            vec![format!("SELECT * FROM public.get_session_details('{}')", fixture.waiting_game.session_id)],
        ),
    ] {
        for sql in statements {
            let transaction = caller.begin().await;
            transaction.execute_unprepared(&format!("SET LOCAL sparc.attacker = '{role}'")).await.unwrap();
            execute_in(&transaction, CREATE_TRAPS).await.unwrap();
            assert_eq!(sql_outcome(execute_in(&transaction, &sql).await), "done", "{sql}");
            transaction.rollback().await.unwrap();
        }
    }
}
