//! The Seer of an ended session can edit only its note (`looking_for`) and its visibility (`is_public`).

use super::{assert_invariants, attempt, dry_run, sqlstates::SESSION_OVER};
use crate::world::World;

#[tokio::test]
async fn the_seer_of_an_ended_session_changes_only_its_note_and_its_visibility() {
    let world = World::new().await;
    for status in ["completed", "cancelled"] {
        let game = world.new_active_session(1).await;
        let update_session_sql =
            |assignments: &str| format!("UPDATE sessions SET {assignments} WHERE id = '{}'", game.session_id);
        // The statement that ends a session may still change its game state.
        assert_eq!(
            attempt(&game.seer, &update_session_sql(&format!("game_state = '{{}}', status = '{status}'"))).await,
            "done"
        );
        for assignments in [
            "game_state = '{\"a\": 1}'",
            "current_scene_id = 'epilogue'",
            "current_encounter_id = 'revenge'",
            "max_players = 6",
            "scheduled_start = now() + INTERVAL '1 day'",
            "is_public = true, max_players = 5",
        ] {
            assert_eq!(
                attempt(&game.seer, &update_session_sql(assignments)).await,
                SESSION_OVER,
                "{status}: {assignments}"
            );
            assert_eq!(
                dry_run(&world.service(), &update_session_sql(assignments)).await,
                "done",
                "{status}: {assignments}"
            );
            let stranger = world.new_user().await;
            assert_eq!(attempt(&stranger, &update_session_sql(assignments)).await, "no row", "{status}: {assignments}");
        }
        let merge = format!(
            "MERGE INTO sessions USING (SELECT '{}'::uuid AS ended) AS wanted ON id = ended
             WHEN MATCHED THEN UPDATE SET game_state = '{{\"a\": 1}}'",
            game.session_id
        );
        assert_eq!(attempt(&game.seer, &merge).await, SESSION_OVER);
        // The last list of assignments includes `game_state`, but does not change its value.
        for assignments in
            ["is_public = true", "looking_for = 'Thank you'", "is_public = false, game_state = game_state"]
        {
            assert_eq!(attempt(&game.seer, &update_session_sql(assignments)).await, "done", "{status}: {assignments}");
        }
    }
    assert_invariants(&world).await;
}
