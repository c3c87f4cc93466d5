//! The model's rules for seats and rolls. `game.rs` says what parameters such as `me` and `hero` mean.

use uuid::Uuid;

use super::game::{Answer, Game, Roll, Seat, Session};

/// An account may have at most this many live seats (active seats in live sessions).
const MAX_LIVE_SEATS: usize = 20;

impl Game {
    /// Checks the rules for taking a seat, which are the same for a new seat and for a seat that its player takes
    /// again. The calling functions have already checked what row security and the foreign keys refuse.
    fn check_may_take_seat(&self, session: usize, player: usize, hero: usize) -> Result<(), &'static str> {
        let game_session = &self.sessions[session];
        if game_session.is_over() {
            return Err("session_over");
        }
        let character = &self.characters[hero];
        if character.owner != player {
            return Err("character_not_yours");
        }
        if game_session.seats_taken() >= game_session.max_players {
            return Err("session_full");
        }
        if character.is_retired {
            return Err("character_retired");
        }
        let has_live_seat =
            |session: &&Session| session.is_live() && session.seats.get(&player).is_some_and(|seat| seat.is_active);
        if self.sessions.iter().filter(has_live_seat).count() >= MAX_LIVE_SEATS {
            Err("seat_limit_reached")
        } else {
            Ok(())
        }
    }

    /// Takes a new seat by a plain INSERT.
    pub fn insert_seat(&mut self, me: usize, session: usize, player: usize, hero: usize) -> Answer {
        let game_session = &self.sessions[session];
        if game_session.is_archived
            || game_session.is_deleted
            || !(game_session.is_public || game_session.has_participant(me))
        {
            return Err("not_allowed");
        }
        if player != me {
            return Err(self.closed_account_or(me, "not_your_choice"));
        }
        if game_session.is_over() {
            return Err(self.closed_account_or(me, "session_over"));
        }
        if !game_session.is_before_start() {
            return Err(self.closed_account_or(me, "session_started"));
        }
        if !(game_session.is_public || game_session.seer == me) {
            return Err("not_allowed");
        }
        self.require_open_account(me)?;
        if game_session.seats.contains_key(&player) {
            return Err("id_conflict");
        }
        if self.characters[hero].is_deleted {
            return Err("not_found");
        }
        self.check_may_take_seat(session, player, hero)?;
        let game_session = &mut self.sessions[session];
        let seat = Seat { hero, is_active: true, has_used_heroic_save: false, heroic_saves_used: 0, is_removed: false };
        game_session.seats.insert(player, seat);
        game_session.count_event("player_joined");
        Ok(true)
    }

    /// Joins by code. Before the start, the caller gets a new seat. A player who left takes their seat again, if the
    /// session is live and the Seer has not removed them. For a player who holds an active seat, this changes the
    /// character.
    pub fn join(&mut self, me: usize, session: usize, hero: usize) -> Answer {
        self.require_open_account(me)?;
        let game_session = &self.sessions[session];
        if game_session.is_archived || game_session.is_deleted {
            return Err("no_such_code");
        }
        match game_session.seats.get(&me) {
            Some(seat) if seat.is_active => return self.change_character(me, session, me, hero),
            Some(seat) => {
                if !self.characters[hero].is_deleted && self.characters[hero].owner != me && seat.hero != hero {
                    return Err("character_not_yours");
                }
                if game_session.is_over() {
                    return Err("session_over");
                }
                if seat.is_removed {
                    return Err("player_removed");
                }
            }
            None if matches!(game_session.status, "active" | "paused") => return Err("session_started"),
            None if game_session.is_over() => return Err("session_over"),
            None => {}
        }
        if self.characters[hero].is_deleted {
            return Err("not_found");
        }
        self.check_may_take_seat(session, me, hero)?;
        let game_session = &mut self.sessions[session];
        let seat = game_session.seats.entry(me).or_insert(Seat {
            hero,
            is_active: true,
            has_used_heroic_save: false,
            heroic_saves_used: 0,
            is_removed: false,
        });
        seat.hero = hero;
        seat.is_active = true;
        game_session.count_event("player_joined");
        Ok(true)
    }

    /// Returns a player's seat if the caller may write it, as its player or as the session's Seer.
    fn writable_seat(&self, me: usize, session: usize, player: usize) -> Result<Option<&Seat>, &'static str> {
        self.require_open_account(me)?;
        let game_session = &self.sessions[session];
        let is_writable =
            !game_session.is_archived && !game_session.is_deleted && (player == me || game_session.seer == me);
        Ok(game_session.seats.get(&player).filter(|_| is_writable))
    }

    /// Lets a player leave or rejoin, or lets the Seer remove a player.
    pub fn set_seat_active(&mut self, me: usize, session: usize, player: usize, is_active: bool) -> Answer {
        let Some(seat) = self.writable_seat(me, session, player)? else { return Ok(false) };
        let changes_activity = seat.is_active != is_active;
        if changes_activity {
            if self.sessions[session].is_over() {
                return Err("session_over");
            }
            if is_active {
                if player != me {
                    return Err("not_your_choice");
                }
                if seat.is_removed {
                    return Err("player_removed");
                }
                self.check_may_take_seat(session, player, seat.hero)?;
            }
        }
        let game_session = &mut self.sessions[session];
        if let Some(seat) = game_session.seats.get_mut(&player) {
            seat.is_active = is_active;
            seat.is_removed |= !is_active && player != me;
        }
        if changes_activity {
            game_session.count_event(if is_active { "player_joined" } else { "player_left" });
        }
        Ok(true)
    }

    /// Lets the Seer readmit a removed player.
    pub fn readmit(&mut self, me: usize, session: usize, player: usize) -> Answer {
        let Some(seat) = self.writable_seat(me, session, player)? else { return Ok(false) };
        if seat.is_removed && player == me {
            return Err("player_removed");
        }
        if let Some(seat) = self.sessions[session].seats.get_mut(&player) {
            seat.is_removed = false;
        }
        Ok(true)
    }

    pub fn change_character(&mut self, me: usize, session: usize, player: usize, hero: usize) -> Answer {
        let Some(seat) = self.writable_seat(me, session, player)? else { return Ok(false) };
        if seat.hero == hero {
            return Ok(true);
        }
        let (game_session, character) = (&self.sessions[session], &self.characters[hero]);
        if player == me && character.owner != player && !character.is_deleted {
            return Err("character_not_yours");
        }
        if game_session.is_over() {
            return Err("session_over");
        }
        if player != me {
            return Err("not_your_choice");
        }
        if character.is_deleted {
            return Err("not_found");
        }
        if seat.is_active && !game_session.is_before_start() {
            return Err("session_started");
        }
        // An inactive seat may have a retired character.
        if seat.is_active && character.is_retired {
            return Err("character_retired");
        }
        if let Some(seat) = self.sessions[session].seats.get_mut(&player) {
            seat.hero = hero;
        }
        Ok(true)
    }

    /// Fails with the reason if the caller may not roll. A stranger to the session gets the same error as if the
    /// session did not exist.
    fn check_may_roll(&self, me: usize, session: usize, hero: Option<usize>) -> Result<(), &'static str> {
        let game_session = &self.sessions[session];
        if game_session.is_archived || game_session.is_deleted || !game_session.has_participant(me) {
            return Err("not_allowed");
        }
        if game_session.status != "active" {
            return Err("session_not_active");
        }
        let is_seer = game_session.seer == me;
        let seat = game_session.seats.get(&me).filter(|seat| seat.is_active);
        if hero.is_some() && seat.map(|seat| seat.hero) == hero {
            return Ok(());
        }
        if !is_seer && seat.is_none() {
            return Err("not_seated");
        }
        let Some(hero) = hero else { return if is_seer { Ok(()) } else { Err("not_a_seer") } };
        if is_seer && game_session.seats.values().any(|seat| seat.is_active && seat.hero == hero) {
            return Ok(());
        }
        let character = &self.characters[hero];
        if character.owner != me || character.is_deleted {
            return Err("character_not_yours");
        }
        if character.is_retired {
            return Err("character_retired");
        }
        if is_seer { Ok(()) } else { Err("not_seated") }
    }

    /// Rolls for the character `hero` or, if it is `None`, for a creature. `adventure_of_creature` is the index of the
    /// adventure to which the creature belongs.
    pub fn roll(
        &mut self,
        me: usize,
        id: Uuid,
        session: usize,
        hero: Option<usize>,
        adventure_of_creature: Option<usize>,
    ) -> Answer {
        self.check_may_roll(me, session, hero).map_err(|error| self.closed_account_or(me, error))?;
        self.require_open_account(me)?;
        let is_other_or_deleted =
            |adventure: usize| self.sessions[session].adventure != adventure || self.adventures[adventure].is_deleted;
        if adventure_of_creature.is_some_and(is_other_or_deleted) {
            return Err("creature_not_in_adventure");
        }
        self.rolls.push(Roll { id, session, hero, success: false, original: None });
        self.sessions[session].count_event("dice_rolled");
        Ok(true)
    }

    pub fn use_heroic_save(&mut self, me: usize, id: Uuid, original: usize) -> Answer {
        self.require_open_account(me)?;
        let roll = &self.rolls[original];
        let (session, game_session) = (roll.session, &self.sessions[roll.session]);
        if game_session.is_archived || game_session.is_deleted || !game_session.has_participant(me) {
            return Err("not_found");
        }
        self.check_may_roll(me, session, roll.hero)?;
        if self.rolls.iter().any(|save| save.original == Some(original)) {
            return Err("roll_already_saved");
        }
        let Some(hero) = roll.hero.filter(|_| roll.original.is_none()) else { return Err("roll_not_saveable") };
        if roll.success {
            return Err("heroic_save_not_needed");
        }
        let has_unused_save = |seat: &Seat| seat.is_active && seat.hero == hero && !seat.has_used_heroic_save;
        let Some(player) = game_session.seats.iter().find(|(_, seat)| has_unused_save(seat)).map(|(player, _)| *player)
        else {
            return Err("heroic_save_spent");
        };
        let game_session = &mut self.sessions[session];
        if let Some(seat) = game_session.seats.get_mut(&player) {
            (seat.has_used_heroic_save, seat.heroic_saves_used) = (true, 1);
        }
        game_session.count_event("dice_rolled");
        self.rolls.push(Roll { id, session, hero: Some(hero), success: false, original: Some(original) });
        Ok(true)
    }
}
