//! The service (the role `service_role`) may write several columns of a row in one statement. Each combination that is
//! tried here is either refused, or leaves the schema's invariants intact.

use sea_orm::ConnectionTrait;

use crate::{
    random_operations::broken_invariants_in,
    world::{GameSession, Player, World, into_sql_error},
};

/// A row, and assignments to its columns. Each UPDATE of the row makes one or two of these assignments.
struct RowUpdates {
    /// The table and the WHERE clause that selects the row.
    target: String,
    assignments: Vec<String>,
}

impl RowUpdates {
    /// Returns every UPDATE of the row with one assignment, or with two to different columns.
    fn statements(&self) -> Vec<String> {
        let (table, where_clause) = self.target.split_once(' ').unwrap();
        let column = |assignment: &str| assignment.split(' ').next().unwrap().to_owned();
        let mut combinations: Vec<Vec<&String>> = vec![Vec::new()];
        for assignment in &self.assignments {
            let with_assignment: Vec<Vec<&String>> = combinations
                .iter()
                .filter(|others| others.len() < 2 && others.iter().all(|other| column(other) != column(assignment)))
                .map(|others| others.iter().copied().chain([assignment]).collect())
                .collect();
            combinations.extend(with_assignment);
        }
        combinations
            .iter()
            .filter(|combination| !combination.is_empty())
            .map(|combination| {
                let assignments: Vec<&str> = combination.iter().map(|assignment| assignment.as_str()).collect();
                format!("UPDATE {table} SET {} {where_clause}", assignments.join(", "))
            })
            .collect()
    }
}

#[tokio::test]
async fn none_of_these_updates_and_inserts_by_the_service_breaks_an_invariant() {
    let world = World::new().await;
    // The Seer of `other_game` already runs a session. So a wrong subtraction from the count of that Seer's live
    // sessions (those that have not ended) would leave a count that is too low. If the count were zero, the subtraction
    // would be refused instead.
    let (game, other_game) = (world.new_active_session(2).await, world.new_session(0).await);
    let (player, newcomer, closed_account_id) = (&game.players[0], world.new_player().await, world.new_account().await);
    let ended_game = world.new_active_session(1).await;
    world.update_session(&ended_game, "status = 'completed'").await;
    let insert_creature_and_its_roll = format!(
        "WITH wolf AS (INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id)
         SELECT set_config('test.wolf', id::text, false) FROM wolf;
         INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
         VALUES ('{}', current_setting('test.wolf')::uuid, 'might', 9, 'attack')",
        game.adventure_id, game.session_id
    );
    world.owner().execute(&insert_creature_and_its_roll).await.unwrap();
    let spare_character_id = world.new_character(player.user_id).await;
    let other_adventure_id = world.new_adventure(game.seer.user_id()).await;
    let unused_adventure_id = world.new_adventure(game.seer.user_id()).await;
    let close_account = format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{closed_account_id}'");
    world.owner().execute(&close_account).await.unwrap();
    let row = |target: String, assignments: &[&str]| RowUpdates {
        target,
        assignments: assignments
            .iter()
            .map(|assignment| {
                assignment
                    .replace("{other_user_id}", &other_game.seer.user_id().to_string())
                    .replace("{other_adventure_id}", &other_adventure_id.to_string())
                    .replace("{spare_character_id}", &spare_character_id.to_string())
            })
            .collect(),
    };
    let rows = [
        row(
            format!("sessions WHERE id = '{}'", game.session_id),
            &[
                "seer_id = '{other_user_id}'",
                "adventure_id = '{other_adventure_id}'",
                "status = 'paused'",
                "status = 'completed'",
                "status = 'cancelled'",
                "is_public = NOT is_public",
                "max_players = 2",
                "current_encounter_id = 'wolves'",
                "game_state = '{\"round\": 1}'",
                "ended_at = now()",
            ],
        ),
        row(
            format!("sessions WHERE id = '{}'", ended_game.session_id),
            &[
                "seer_id = '{other_user_id}'",
                "adventure_id = '{other_adventure_id}'",
                "status = 'active'",
                "max_players = 1",
                "started_at = now()",
                "ended_at = now()",
            ],
        ),
        row(
            "creatures WHERE name = 'Wolf'".to_owned(),
            &["adventure_id = '{other_adventure_id}'", "name = 'Hound'", "hit_points = 1"],
        ),
        row(
            format!("session_players WHERE session_id = '{}' AND user_id = '{}'", game.session_id, player.user_id),
            &[
                "character_id = '{spare_character_id}'",
                "is_active = false",
                "removed_at = now()",
                "left_at = now()",
                "heroic_saves_used = 1",
            ],
        ),
        row(
            format!("characters WHERE id = '{}'", player.character_id),
            &["user_id = '{other_user_id}'", "retired_at = now()", "hit_points = 1", "name = 'Renamed'"],
        ),
        row(
            format!("characters WHERE id = '{spare_character_id}'"),
            &["user_id = '{other_user_id}'", "retired_at = now()", "hit_points = 1", "name = 'Renamed'"],
        ),
        row(
            format!("adventures WHERE id = '{unused_adventure_id}'"),
            &["creator_id = '{other_user_id}'", "status = 'archived'", "status = 'draft'", "name = 'Renamed'"],
        ),
        row(
            format!("users WHERE id = '{closed_account_id}'"),
            &[
                "email = 'ada@x.org'",
                "display_name = 'Ada'",
                "avatar_url = 'https://x.org/a.png'",
                "is_verified = true",
            ],
        ),
    ];
    let inserts = [&game, &ended_game].map(|game| insert_statements(game, &newcomer)).into_iter().flatten();
    let updates = rows.iter().flat_map(RowUpdates::statements);
    let transaction = world.service().begin().await;
    let (mut accepted_count, mut refused_count) = (0, 0);
    for sql in updates.chain(inserts) {
        transaction.execute_unprepared("SAVEPOINT before").await.unwrap();
        match transaction.execute_unprepared(&sql).await {
            Ok(result) => {
                accepted_count += 1;
                assert_eq!(result.rows_affected(), 1, "{sql}");
                // The schema's owner checks the invariants. Rolling back to the savepoint also restores the role.
                transaction.execute_unprepared("RESET ROLE").await.unwrap();
                let broken = broken_invariants_in(&transaction).await;
                assert!(broken.is_empty(), "{sql}: {broken:?}");
            }
            Err(error) => {
                let refusal = into_sql_error(error);
                // Codes of class 42, except that of a missing privilege, mean that the statement itself is wrong: for
                // example, a column does not exist.
                assert!(
                    !refusal.sqlstate.starts_with("42") || refusal.is_insufficient_privilege(),
                    "{sql}: {refusal:?}"
                );
                refused_count += 1;
            }
        }
        transaction.execute_unprepared("ROLLBACK TO before").await.unwrap();
    }
    transaction.rollback().await.unwrap();
    assert!(
        accepted_count > 80,
        "more than 80 statements must be accepted, not {accepted_count} ({refused_count} were refused)"
    );
}

/// Returns INSERTs of sessions and seats whose columns may contradict each other.
fn insert_statements(game: &GameSession, player: &Player) -> Vec<String> {
    let (seer_id, adventure_id) = (game.seer.user_id(), game.adventure_id);
    let mut statements = Vec::new();
    for status in ["waiting", "starting_soon", "active", "paused", "completed", "cancelled"] {
        for (started_at, ended_at) in [("NULL", "NULL"), ("now()", "NULL"), ("NULL", "now()"), ("now()", "now()")] {
            statements.push(format!(
                "INSERT INTO sessions (seer_id, adventure_id, status, started_at, ended_at)
                 VALUES ('{seer_id}', '{adventure_id}', '{status}', {started_at}, {ended_at})"
            ));
        }
    }
    for is_active in [false, true] {
        for left_at in ["NULL", "now()"] {
            for removed_at in ["NULL", "now()"] {
                statements.push(format!(
                    "INSERT INTO session_players (session_id, user_id, character_id, is_active, left_at, removed_at)
                     VALUES ('{}', '{}', '{}', {is_active}, {left_at}, {removed_at})",
                    game.session_id, player.user_id, player.character_id
                ));
            }
        }
    }
    statements
}
