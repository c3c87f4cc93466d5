//! A model of the game in plain Rust, written independently of the schema's code. This file has the model's data, and
//! the rules of accounts, characters, events and archiving; the other rules are in `adventures.rs`, `seats.rs` and
//! `sessions.rs`.
//!
//! The structs and methods refer to rows by their index in [`Game`]: `me` is the index of the caller, `user` or
//! `player` that of any user, and `hero` that of a character. Where a function needs the index and the row of a
//! session, `session` is the index and `game_session` the row.

use std::collections::BTreeMap;

use uuid::Uuid;

/// The statuses of a session.
pub const SESSION_STATUSES: [&str; 6] = ["waiting", "starting_soon", "active", "paused", "completed", "cancelled"];

/// An account may have at most this many living characters (characters that are not retired).
const MAX_LIVING_CHARACTERS: usize = 10;

/// A Seer may run at most this many live sessions (sessions that have not ended).
pub const MAX_LIVE_SESSIONS: usize = 20;

/// Whether the call affected a row, or the code of its error.
pub type Answer = Result<bool, &'static str>;

/// A user and their account.
#[derive(Clone, Debug)]
pub struct User {
    pub id: Uuid,
    pub games_played: u32,
    pub games_run: u32,
    pub has_closed_account: bool,
}

#[derive(Clone, Debug)]
pub struct Character {
    pub id: Uuid,
    pub owner: usize,
    /// The number in the name: 3 for `Hero 3`.
    pub name_number: u8,
    pub is_retired: bool,
    pub hit_points: i32,
    pub is_deleted: bool,
}

#[derive(Clone, Debug)]
pub struct Adventure {
    pub id: Uuid,
    pub creator: usize,
    pub status: &'static str,
    pub is_valid: bool,
    pub times_played: u32,
    /// The id of the adventure's creature, if it has one.
    pub creature: Option<Uuid>,
    pub is_deleted: bool,
}

#[derive(Clone, Debug)]
pub struct Seat {
    pub hero: usize,
    pub is_active: bool,
    /// Whether the heroic save (a second roll that replaces a failed one) was used in the current encounter.
    pub has_used_heroic_save: bool,
    /// The value of the column `heroic_saves_used`: 0 or 1. A new encounter sets it to 0, except for a removed player.
    /// So it can be 1 although `has_used_heroic_save` is false.
    pub heroic_saves_used: u8,
    /// Whether the Seer has removed the player and not readmitted them.
    pub is_removed: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Session {
    pub id: Uuid,
    pub seer: usize,
    pub adventure: usize,
    pub is_public: bool,
    pub max_players: usize,
    pub status: &'static str,
    /// The seats by their players.
    pub seats: BTreeMap<usize, Seat>,
    /// The digit that the column `current_scene_id` contains.
    pub current_scene_id: Option<u8>,
    /// The digit that the column `current_encounter_id` contains.
    pub current_encounter_id: Option<u8>,
    /// How often `current_encounter_id` has changed.
    pub encounter_number: u32,
    /// The game state is the JSON array `[n]`, where `n` is this number, or `{}` if this is 0.
    pub game_state: u8,
    pub game_state_version: u32,
    /// The number of events of each type.
    pub events: BTreeMap<&'static str, u32>,
    pub is_archived: bool,
    /// Whether the session was deleted with its adventure. Only a session that has ended and never had a player other
    /// than its Seer can be deleted.
    pub is_deleted: bool,
}

#[derive(Clone, Debug)]
pub struct Roll {
    pub id: Uuid,
    pub session: usize,
    pub hero: Option<usize>,
    /// Whether the roll succeeded. The database decides, because it rolls the dice; `steps.rs` copies the value.
    pub success: bool,
    /// If the roll is a heroic save, the roll that it repeats.
    pub original: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Game {
    pub users: Vec<User>,
    pub characters: Vec<Character>,
    pub adventures: Vec<Adventure>,
    pub sessions: Vec<Session>,
    pub rolls: Vec<Roll>,
    /// The number of ids that [`Game::next_id`] has returned.
    pub id_count: u128,
    /// The hit points of a new character, which are also the maximum.
    pub default_hit_points: i32,
}

impl Session {
    pub fn seats_taken(&self) -> usize {
        self.seats.values().filter(|seat| seat.is_active).count()
    }

    pub fn is_over(&self) -> bool {
        matches!(self.status, "completed" | "cancelled")
    }

    /// Returns whether the session exists and has not ended.
    pub fn is_live(&self) -> bool {
        !self.is_deleted && !self.is_archived && !self.is_over()
    }

    /// Returns whether anybody except the session's Seer ever had a seat.
    pub fn had_player(&self) -> bool {
        self.seats.keys().any(|player| *player != self.seer)
    }

    pub fn is_before_start(&self) -> bool {
        matches!(self.status, "waiting" | "starting_soon")
    }

    /// Returns whether a user is the session's Seer, or has or had a seat in it and is not removed.
    pub fn has_participant(&self, user: usize) -> bool {
        self.seer == user || self.seats.get(&user).is_some_and(|seat| !seat.is_removed)
    }

    /// Counts an event.
    pub fn count_event(&mut self, event_type: &'static str) {
        *self.events.entry(event_type).or_default() += 1;
    }

    pub fn may_change_to(&self, to: &str) -> bool {
        self.status == to
            || match self.status {
                "waiting" => ["starting_soon", "active", "cancelled"].contains(&to),
                "starting_soon" => ["waiting", "active", "cancelled"].contains(&to),
                "active" => ["paused", "completed", "cancelled"].contains(&to),
                "paused" => ["active", "completed", "cancelled"].contains(&to),
                _ => false,
            }
    }
}

impl Game {
    pub fn next_id(&mut self) -> Uuid {
        self.id_count += 1;
        Uuid::from_u128((1_u128 << 127) | self.id_count)
    }

    /// Fails if the caller's account is closed. In the model, an update or deletion by a closed account gets this error
    /// even if it would affect no row; `run_case` in `mod.rs` says what the database may answer instead.
    pub fn require_open_account(&self, me: usize) -> Result<(), &'static str> {
        if self.users[me].has_closed_account { Err("account_closed") } else { Ok(()) }
    }

    /// Returns `account_closed` if the caller's account is closed, and otherwise the given error. The error
    /// `not_allowed`, which a stranger to the session gets, is returned unchanged in both cases.
    pub fn closed_account_or(&self, me: usize, error: &'static str) -> &'static str {
        if error == "not_allowed" { error } else { self.require_open_account(me).err().unwrap_or(error) }
    }

    fn count_living_characters(&self, owner: usize) -> usize {
        self.characters
            .iter()
            .filter(|character| character.owner == owner && !character.is_retired && !character.is_deleted)
            .count()
    }

    pub fn create_character(&mut self, me: usize, id: Uuid, name_number: u8) -> Answer {
        self.require_open_account(me)?;
        let has_same_name = |character: &Character| {
            character.owner == me && character.name_number == name_number && !character.is_deleted
        };
        if self.characters.iter().any(has_same_name) {
            return Err("character_name_taken");
        }
        if self.count_living_characters(me) >= MAX_LIVING_CHARACTERS {
            return Err("character_limit_reached");
        }
        let hit_points = self.default_hit_points;
        self.characters.push(Character {
            id,
            owner: me,
            name_number,
            is_retired: false,
            hit_points,
            is_deleted: false,
        });
        Ok(true)
    }

    pub fn retire(&mut self, me: usize, hero: usize) -> Answer {
        self.require_open_account(me)?;
        if self.characters[hero].owner != me || self.characters[hero].is_deleted {
            return Ok(false);
        }
        let has_seat_of_hero = |session: &Session| {
            session.is_live() && session.seats.values().any(|seat| seat.is_active && seat.hero == hero)
        };
        if !self.characters[hero].is_retired && self.sessions.iter().any(has_seat_of_hero) {
            return Err("character_seated");
        }
        self.characters[hero].is_retired = true;
        Ok(true)
    }

    pub fn unretire(&mut self, me: usize, hero: usize) -> Answer {
        self.require_open_account(me)?;
        if self.characters[hero].owner != me || self.characters[hero].is_deleted {
            return Ok(false);
        }
        if self.characters[hero].is_retired && self.count_living_characters(me) >= MAX_LIVING_CHARACTERS {
            return Err("character_limit_reached");
        }
        self.characters[hero].is_retired = false;
        Ok(true)
    }

    pub fn delete_character(&mut self, me: usize, hero: usize) -> Answer {
        self.require_open_account(me)?;
        if self.characters[hero].owner != me || self.characters[hero].is_deleted {
            return Ok(false);
        }
        let has_seat = |session: &Session| !session.is_deleted && session.seats.values().any(|seat| seat.hero == hero);
        let has_roll = |roll: &Roll| roll.hero == Some(hero) && !self.sessions[roll.session].is_deleted;
        if self.sessions.iter().any(has_seat) || self.rolls.iter().any(has_roll) {
            return Err("has_history");
        }
        self.characters[hero].is_deleted = true;
        Ok(true)
    }

    /// Takes hit points from a character; negative points heal.
    pub fn damage(&mut self, me: usize, hero: usize, points: i32) -> Answer {
        self.require_open_account(me)?;
        let lets_me_damage = |session: &Session| {
            session.is_live()
                && session.seer == me
                && matches!(session.status, "active" | "paused")
                && session.seats.values().any(|seat| seat.is_active && seat.hero == hero)
        };
        let is_allowed = self.characters[hero].owner == me || self.sessions.iter().any(lets_me_damage);
        let character = &mut self.characters[hero];
        if !is_allowed || character.is_deleted {
            return Ok(false);
        }
        character.hit_points = (character.hit_points - points).clamp(0, self.default_hit_points);
        Ok(true)
    }

    /// Sends an event. A user may not send an event of a reserved type: one that does not begin with `client.`.
    pub fn send_event(&mut self, me: usize, session: usize, is_reserved_type: bool) -> Answer {
        let game_session = &self.sessions[session];
        if is_reserved_type || game_session.is_archived || game_session.is_deleted || !game_session.has_participant(me)
        {
            return Err("not_allowed");
        }
        if game_session.seer != me && !game_session.seats.get(&me).is_some_and(|seat| seat.is_active) {
            return Err(self.closed_account_or(me, "not_seated"));
        }
        self.require_open_account(me)?;
        self.sessions[session].count_event("client.wave");
        Ok(true)
    }

    /// Returns whether a session of the adventure is live or had a player. If so, the adventure cannot be deleted.
    pub fn adventure_has_history(&self, adventure: usize) -> bool {
        let counts_as_history = |session: &Session| {
            session.adventure == adventure && !session.is_deleted && (session.is_live() || session.had_player())
        };
        self.sessions.iter().any(counts_as_history)
    }

    /// Marks the adventure and all its sessions as deleted, without checking whether they may be deleted.
    pub fn mark_adventure_deleted(&mut self, adventure: usize) {
        self.adventures[adventure].is_deleted = true;
        for session in self.sessions.iter_mut().filter(|session| session.adventure == adventure) {
            session.is_deleted = true;
        }
    }

    /// Closes the caller's account: gives up the caller's seats in live sessions, cancels the live sessions that the
    /// caller runs, and deletes the caller's drafts. A draft that has history gets the status `archived` instead.
    pub fn close_account(&mut self, me: usize) -> Answer {
        self.require_open_account(me)?;
        self.users[me].has_closed_account = true;
        for session in self.sessions.iter_mut().filter(|session| session.is_live()) {
            if let Some(seat) = session.seats.get_mut(&me).filter(|seat| seat.is_active) {
                seat.is_active = false;
                session.count_event("player_left");
            }
            if session.seer == me {
                session.status = "cancelled";
                session.count_event("session_status");
            }
        }
        for index in 0..self.adventures.len() {
            let adventure = &self.adventures[index];
            if adventure.creator == me && adventure.status == "draft" && !adventure.is_deleted {
                if self.adventure_has_history(index) {
                    self.adventures[index].status = "archived";
                } else {
                    self.mark_adventure_deleted(index);
                }
            }
        }
        Ok(true)
    }

    /// Archives all sessions that have ended. Before this call, `steps.rs` sets their ends to a year ago, so all are
    /// old enough to be archived.
    pub fn archive_sessions(&mut self) -> Answer {
        for session in self.sessions.iter_mut().filter(|session| session.is_over() && !session.is_deleted) {
            session.is_archived = true;
        }
        Ok(true)
    }
}
