//! Writes the sections of the page `docs/generated/access.md` that are about rows: every kind of user attempts to read
//! and write each kind of row.

use uuid::Uuid;

use crate::world::{insert_attribute_check_sql, insert_character_sql, insert_heroic_save_sql, insert_seat_sql};

use super::{
    attempt::{Outcome, dry_run},
    fixture::{ACTORS, Actor, Fixture, STATUSES, SeersSession},
    page::{write_row, write_section_start},
};

/// Statements, each with the letter that stands for it on the page. A statement is a function that returns the SQL for
/// an actor.
type Statements<'a> = Vec<(char, Box<dyn Fn(&Actor) -> String + Send + 'a>)>;

/// Creates [`Statements`] from lines of the form `letter => |actor| sql`.
macro_rules! statements {
    ($($letter:literal => |$actor:pat_param| $sql:expr),* $(,)?) => {
        vec![$(($letter, Box::new(move |$actor: &Actor| $sql) as Box<dyn Fn(&Actor) -> String + Send>)),*]
    };
}

/// Writes the heading and introduction of a section, and the head of its Markdown table, with one column per actor.
fn write_section_start_with_actors(page: &mut String, title: &str, introduction: &str) {
    let columns: Vec<&str> = ["row"].into_iter().chain(ACTORS).collect();
    write_section_start(page, title, introduction, &columns);
}

/// Attempts the statements as each actor, and writes the results as one row of the section's Markdown table.
async fn write_attempts(fixture: &Fixture, page: &mut String, row_name: &str, statements: Statements<'_>) {
    let mut cells = vec![row_name.to_owned()];
    for actor in &fixture.actors {
        let mut cell = String::new();
        let mut letters_refused_by_rule = String::new();
        for (letter, sql) in &statements {
            match dry_run(&actor.caller, &sql(actor)).await {
                Outcome::Done => cell.push(*letter),
                Outcome::RefusedByRule => letters_refused_by_rule.push(*letter),
                Outcome::NoAccess => {}
            }
        }
        if !letters_refused_by_rule.is_empty() {
            cell = format!("{cell} ({letters_refused_by_rule})").trim().to_owned();
        }
        cells.push(cell);
    }
    write_row(page, &cells);
}

/// Returns the actor or, if the actor has no account (the visitor and the service), the stranger, so that statements
/// that need an account can name one.
fn actor_or_stranger<'a>(fixture: &'a Fixture, actor: &'a Actor) -> &'a Actor {
    if actor.id.is_nil() { fixture.actor("stranger") } else { actor }
}

/// Returns the id of an account that is not the actor's.
fn another_account(fixture: &Fixture, actor: &Actor) -> Uuid {
    let player = fixture.actor("player").id;
    if actor.id == player { fixture.actor("left").id } else { player }
}

/// Writes every section about rows, except the one about a session's status (see [`write_transitions_section`]).
pub async fn write_sections(fixture: &Fixture, page: &mut String) {
    write_users_section(fixture, page).await;
    write_characters_section(fixture, page).await;
    write_adventures_section(fixture, page).await;
    write_section_start_with_actors(
        page,
        "sessions",
        "r: reads it, u: changes `looking_for`, p: makes it public or private, m: changes max_players, d: deletes it.",
    );
    for SeersSession { name, id, .. } in &fixture.seers_sessions {
        let update_sql = |set: &str| format!("UPDATE sessions SET {set} WHERE id = '{id}'");
        let statements = statements![
            'r' => |_| format!("SELECT FROM sessions WHERE id = '{id}'"),
            'u' => |_| update_sql("looking_for = 'A healer'"),
            'p' => |_| update_sql("is_public = NOT is_public"),
            'm' => |_| update_sql("max_players = 5"),
            'd' => |_| format!("DELETE FROM sessions WHERE id = '{id}'"),
        ];
        write_attempts(fixture, page, name, statements).await;
    }
    for (row_name, adventure_label) in [
        ("new, of a published adventure", "published"),
        ("new, of the Seer's draft", "draft"),
        ("new, of the Seer's archived adventure", "archived"),
    ] {
        let (_, adventure, _) = *fixture.adventures.iter().find(|(name, ..)| *name == adventure_label).unwrap();
        let insert_sql =
            |seer: Uuid| format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{seer}', '{adventure}')");
        let statements = statements![
            'i' => |actor| insert_sql(actor_or_stranger(fixture, actor).id),
            'f' => |actor| insert_sql(another_account(fixture, actor)),
        ];
        write_attempts(fixture, page, &format!("{row_name} (i: as its Seer, f: in another's name)"), statements).await;
    }
    write_seats_section(fixture, page).await;
    write_rolls_and_events_section(fixture, page).await;
    write_other_seers_sessions_section(fixture, page).await;
    write_archive_section(fixture, page).await;
}

async fn write_users_section(fixture: &Fixture, page: &mut String) {
    write_section_start_with_actors(
        page,
        "users, tutorial_progress",
        "r: reads it, u: updates it (a bio, a skipped tutorial), d: deletes it, i: inserts their own.",
    );
    let player = fixture.actor("player").id;
    for (table, key, set) in [("users", "id", "bio = 'Plays.'"), ("tutorial_progress", "user_id", "skipped = true")] {
        let row_statements = |user_of: fn(&Fixture, &Actor) -> Uuid| -> Statements<'_> {
            statements![
                'r' => |actor| format!("SELECT {key} FROM {table} WHERE {key} = '{}'", user_of(fixture, actor)),
                'u' => |actor| format!("UPDATE {table} SET {set} WHERE {key} = '{}'", user_of(fixture, actor)),
                'd' => |actor| format!("DELETE FROM {table} WHERE {key} = '{}'", user_of(fixture, actor)),
            ]
        };
        write_attempts(fixture, page, &format!("`{table}`, own"), row_statements(|_, actor| actor.id)).await;
        write_attempts(
            fixture,
            page,
            &format!("`{table}`, the player's"),
            row_statements(|fixture, _| fixture.actor("player").id),
        )
        .await;
    }
    let read_email = statements!['r' => |_| format!("SELECT email FROM users WHERE id = '{player}'")];
    write_attempts(fixture, page, "e-mail address of the player", read_email).await;
    let insert_profile = statements!['i' => |_| "INSERT INTO users (id, email, display_name) VALUES (gen_random_uuid(), 'a@b.c', 'A')".to_owned()];
    write_attempts(fixture, page, "new profile, of no account", insert_profile).await;
    let insert_tutorial = statements![
        'i' => |actor| format!(
            "INSERT INTO tutorial_progress (user_id) VALUES ('{}')", actor_or_stranger(fixture, actor).id),
    ];
    write_attempts(fixture, page, "new tutorial (one exists already)", insert_tutorial).await;
}

async fn write_characters_section(fixture: &Fixture, page: &mut String) {
    write_section_start_with_actors(
        page,
        "characters",
        "r: reads it, u: changes its name, h: wounds it by UPDATE, w: wounds it by `private.change_hit_points`, x: gives it\n\
         experience, t: retires or unretires it, d: deletes it.",
    );
    write_attempts(fixture, page, "own, never played", character_statements(|actor| actor.spare_character)).await;
    write_attempts(
        fixture,
        page,
        "own, which has had a seat (those of **stranger**, **other Seer** and **Seer** have not; that of **retired** is retired)",
        character_statements(|actor| actor.character),
    )
    .await;
    for name in ["player", "left", "retired", "removed", "closed", "stranger"] {
        let id = fixture.actor(name).character;
        write_attempts(fixture, page, &format!("of the user: {name}"), character_statements(move |_| id)).await;
    }
    let insert_character = statements![
        'i' => |actor| insert_character_sql(Uuid::new_v4(), actor_or_stranger(fixture, actor).id),
        'f' => |actor| insert_character_sql(Uuid::new_v4(), another_account(fixture, actor)),
        'x' => |actor| format!(
            "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability, level)
             VALUES ('{}', 'Elder', 'warrior', 5, 3, 2, 2, '{{}}', 9)", actor_or_stranger(fixture, actor).id),
    ];
    write_attempts(fixture, page, "new (i: their own, f: another user's, x: with a level)", insert_character).await;
}

/// Returns statements that read or write one character per actor. `character_of` returns the id of that character.
fn character_statements<'a>(character_of: impl Fn(&Actor) -> Uuid + Copy + Send + 'a) -> Statements<'a> {
    statements![
        'r' => |actor| format!("SELECT FROM characters WHERE id = '{}'", character_of(actor)),
        'u' => |actor| format!("UPDATE characters SET name = 'Renamed' WHERE id = '{}'", character_of(actor)),
        'h' => |actor| format!("UPDATE characters SET hit_points = 0 WHERE id = '{}'", character_of(actor)),
        'w' => |actor| format!("SELECT * FROM private.change_hit_points('{}', -1)", character_of(actor)),
        'x' => |actor| format!("UPDATE characters SET experience = 5 WHERE id = '{}'", character_of(actor)),
        't' => |actor| format!(
            "UPDATE characters SET retired_at = CASE WHEN retired_at IS NULL THEN now() END WHERE id = '{}'",
            character_of(actor)
        ),
        'd' => |actor| format!("DELETE FROM characters WHERE id = '{}'", character_of(actor)),
    ]
}

async fn write_adventures_section(fixture: &Fixture, page: &mut String) {
    write_section_start_with_actors(
        page,
        "adventures, creatures",
        "The Seer created them. r: reads it, u: changes its name, c: changes its content, p: publishes or unpublishes it, v: marks it\n\
         as valid, d: deletes it. For a creature: r, u, d, and i: adds one.",
    );
    for (name, adventure, creature) in &fixture.adventures {
        let update_sql = |set: &str| format!("UPDATE adventures SET {set} WHERE id = '{adventure}'");
        let statements = statements![
            'r' => |_| format!("SELECT FROM adventures WHERE id = '{adventure}'"),
            'u' => |_| update_sql("name = 'Renamed'"),
            'c' => |_| update_sql("content = '{\"nodes\": []}'"),
            'p' => |_| update_sql(
                "status = CASE status WHEN 'published' THEN 'draft' ELSE 'published' END::adventure_status"
            ),
            'v' => |_| update_sql("is_valid = true"),
            'd' => |_| format!("DELETE FROM adventures WHERE id = '{adventure}'"),
        ];
        write_attempts(fixture, page, name, statements).await;
        let statements = statements![
            'r' => |_| format!("SELECT FROM creatures WHERE id = '{creature}'"),
            'i' => |_| format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Mud Hag')"),
            'u' => |_| format!("UPDATE creatures SET name = 'Renamed' WHERE id = '{creature}'"),
            'd' => |_| format!("DELETE FROM creatures WHERE id = '{creature}'"),
        ];
        write_attempts(fixture, page, &format!("{name}: creature"), statements).await;
    }
    let insert_sql = |creator: Uuid, columns: &str, values: &str| {
        format!("INSERT INTO adventures (creator_id, name{columns}) VALUES ('{creator}', 'A draft'{values})")
    };
    let insert_adventure = statements![
        'i' => |actor| insert_sql(actor_or_stranger(fixture, actor).id, "", ""),
        'f' => |actor| insert_sql(another_account(fixture, actor), "", ""),
        'p' => |actor| insert_sql(actor_or_stranger(fixture, actor).id, ", status", ", 'published'"),
        'v' => |actor| insert_sql(actor_or_stranger(fixture, actor).id, ", is_valid", ", true"),
    ];
    write_attempts(fixture, page, "new (i: own, f: in another's name, p: published, v: valid)", insert_adventure).await;
}

async fn write_seats_section(fixture: &Fixture, page: &mut String) {
    write_section_start_with_actors(
        page,
        "session_players",
        "r: reads the player's seat, j: takes a new seat (the visitor and the service: one for the stranger), s: seats the stranger,\n\
         a: leaves or rejoins, k: removes the player, b: gives the removed player the seat back, l: lets the removed player rejoin,\n\
         c: changes the character of their own seat, x: changes the character of the player's seat, h: restores their own heroic save, d: deletes the player's seat.\n\
         The visitor and the service have no seat; a, c and h are attempts on the player's.",
    );
    let (player, stranger, removed) = (fixture.actor("player"), fixture.actor("stranger"), fixture.actor("removed"));
    for SeersSession { name, id, .. } in &fixture.seers_sessions {
        let update_sql = |set: &str, user: Uuid| {
            format!("UPDATE session_players SET {set} WHERE session_id = '{id}' AND user_id = '{user}'")
        };
        let statements = statements![
            'r' => |_| format!("SELECT FROM session_players WHERE session_id = '{id}' AND user_id = '{}'", player.id),
            'j' => |actor| {
                let account_holder = actor_or_stranger(fixture, actor);
                insert_seat_sql(*id, account_holder.id, account_holder.spare_character)
            },
            's' => |_| insert_seat_sql(*id, stranger.id, stranger.character),
            'a' => |actor| update_sql("is_active = NOT is_active", actor_or_player(fixture, actor).id),
            'k' => |_| update_sql("is_active = false", player.id),
            'b' => |_| update_sql("is_active = true", removed.id),
            'l' => |_| update_sql("removed_at = NULL", removed.id),
            'c' => |actor| {
                let account_holder = actor_or_player(fixture, actor);
                update_sql(&format!("character_id = '{}'", account_holder.spare_character), account_holder.id)
            },
            'x' => |_| update_sql(&format!("character_id = '{}'", player.spare_character), player.id),
            'h' => |actor| update_sql("heroic_saves_used = 0", actor_or_player(fixture, actor).id),
            'd' => |_| format!("DELETE FROM session_players WHERE session_id = '{id}' AND user_id = '{}'", player.id),
        ];
        write_attempts(fixture, page, name, statements).await;
    }
}

/// Returns the actor or, for the visitor and the service, who have no account, the player.
fn actor_or_player<'a>(fixture: &'a Fixture, actor: &'a Actor) -> &'a Actor {
    if actor.id.is_nil() { fixture.actor("player") } else { actor }
}

/// Writes the section about rolls and events.
async fn write_rolls_and_events_section(fixture: &Fixture, page: &mut String) {
    write_section_start_with_actors(
        page,
        "dice_rolls, session_events",
        "Rolls: r: reads one, o: rolls for their own character, p: for the player's, c: for a creature, n: inserts one with chosen results, s:\n\
         makes a heroic save of the player's failed roll, u: updates one, d: deletes one. Events: e: reads one, k: sends a `client.` event, f: sends an\n\
         event of a kind that only the server sends, w: updates one, b: deletes one. The visitor and the service have no character;\n\
         o is an attempt with the player's.",
    );
    let player = fixture.actor("player");
    for SeersSession { name, id, roll_id, event_id, .. } in &fixture.seers_sessions {
        let insert_event_sql =
            |kind: &str| format!("INSERT INTO session_events (session_id, event_type) VALUES ('{id}', '{kind}')");
        let statements = statements![
            'r' => |_| format!("SELECT FROM dice_rolls WHERE id = '{roll_id}'"),
            'o' => |actor| insert_attribute_check_sql(*id, actor_or_player(fixture, actor).character),
            'p' => |_| insert_attribute_check_sql(*id, player.character),
            'c' => |_| format!(
                "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
                 VALUES ('{id}', '{}', 'might', 10, 'attack')", fixture.creature_of_played_adventure),
            'n' => |actor| format!(
                "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, results)
                 VALUES ('{id}', '{}', 'might', 10, 'attack', '{{6,6}}')",
                actor_or_stranger(fixture, actor).character),
            's' => |_| insert_heroic_save_sql(*id, player.character, *roll_id),
            'u' => |_| format!("UPDATE dice_rolls SET description = '' WHERE id = '{roll_id}'"),
            'd' => |_| format!("DELETE FROM dice_rolls WHERE id = '{roll_id}'"),
            'e' => |_| format!("SELECT FROM session_events WHERE id = '{event_id}'"),
            'k' => |_| insert_event_sql("client.emote"),
            'f' => |_| insert_event_sql("dice_rolled"),
            'w' => |_| format!("UPDATE session_events SET payload = '{{}}' WHERE id = '{event_id}'"),
            'b' => |_| format!("DELETE FROM session_events WHERE id = '{event_id}'"),
        ];
        write_attempts(fixture, page, name, statements).await;
    }
}

/// Writes who may take seats for, and roll for, characters that never had a seat in the session.
async fn write_other_seers_sessions_section(fixture: &Fixture, page: &mut String) {
    write_section_start_with_actors(
        page,
        "The other Seer's session, and characters that never had a seat there",
        "s: seats the player there, g: seats the stranger there, p: rolls there for the player's character, o: for their own.",
    );
    let (player, stranger) = (fixture.actor("player"), fixture.actor("stranger"));
    for (name, id) in ["waiting", "active"].into_iter().zip(fixture.other_seers_sessions) {
        let statements = statements![
            's' => |_| insert_seat_sql(id, player.id, player.spare_character),
            'g' => |_| insert_seat_sql(id, stranger.id, stranger.spare_character),
            'p' => |_| insert_attribute_check_sql(id, player.character),
            'o' => |actor| insert_attribute_check_sql(id, actor_or_stranger(fixture, actor).spare_character),
        ];
        write_attempts(fixture, page, name, statements).await;
    }
}

async fn write_archive_section(fixture: &Fixture, page: &mut String) {
    write_section_start_with_actors(
        page,
        "archived_sessions, archived_session_players, archived_dice_rolls",
        "r: reads it, u: updates it, d: deletes it.",
    );
    for (visibility, id) in ["public", "private"].into_iter().zip(fixture.archived_sessions) {
        for (table, key, set) in [
            ("archived_sessions", "id", "looking_for = ''"),
            ("archived_session_players", "session_id", "is_active = false"),
            ("archived_dice_rolls", "session_id", "description = ''"),
        ] {
            let statements = statements![
                'r' => |_| format!("SELECT FROM {table} WHERE {key} = '{id}'"),
                'u' => |_| format!("UPDATE {table} SET {set} WHERE {key} = '{id}'"),
                'd' => |_| format!("DELETE FROM {table} WHERE {key} = '{id}'"),
            ];
            write_attempts(fixture, page, &format!("{visibility}: `{table}`"), statements).await;
        }
    }
}

/// Writes who may change a session from each status to each other status.
pub async fn write_transitions_section(fixture: &Fixture, page: &mut String) {
    let mut columns = vec!["from"];
    columns.extend(STATUSES);
    write_section_start(
        page,
        "Status of a session",
        "Who may change it from one status to another. S: its Seer, v: the service. Nobody else may.",
        &columns,
    );
    for SeersSession { name, id, status, .. } in &fixture.seers_sessions {
        let mut cells = vec![name.clone()];
        for new_status in STATUSES {
            let mut cell = String::new();
            for (actor_name, actor) in ACTORS.iter().zip(&fixture.actors) {
                let sql = format!("UPDATE sessions SET status = '{new_status}' WHERE id = '{id}'");
                // An update that sets the status to its present value can succeed, too, but it is no transition.
                if dry_run(&actor.caller, &sql).await == Outcome::Done && *status != new_status {
                    cell.push_str(match *actor_name {
                        "Seer" => "S",
                        "service" => "v",
                        other => other,
                    });
                }
            }
            cells.push(cell);
        }
        write_row(page, &cells);
    }
}
