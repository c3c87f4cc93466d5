//! The model's rules of seats and rolls.

use uuid::Uuid;

use super::game::{Answer, Game, Roll, Seat, Session};

impl Game {
    /// The rules for a new seat, once row security and the foreign keys have accepted it.
    fn take(&self, session: usize, player: usize, hero: usize) -> Result<(), &'static str> {
        let at = &self.sessions[session];
        if at.is_over() {
            return Err("session_over");
        }
        if at.taken() >= at.size {
            return Err("session_full");
        }
        let character = &self.characters[hero];
        if character.owner != player {
            return Err("character_not_yours");
        }
        if character.retired {
            return Err("character_retired");
        }
        let sits = |session: &&Session| session.is_live() && session.seats.get(&player).is_some_and(|seat| seat.active);
        if self.sessions.iter().filter(sits).count() >= 20 { Err("seat_limit_reached") } else { Ok(()) }
    }

    /// Takes a seat by a plain insert.
    pub fn sit(&mut self, me: usize, session: usize, player: usize, hero: usize) -> Answer {
        let at = &self.sessions[session];
        if at.archived || at.gone || !(at.public || at.has_participant(me)) {
            return Err("not_allowed");
        }
        if player != me {
            return Err(self.closed_or(me, "not_your_choice"));
        }
        if at.is_over() {
            return Err(self.closed_or(me, "session_over"));
        }
        if !at.waits() {
            return Err(self.closed_or(me, "session_started"));
        }
        if !(at.public || at.seer == me) {
            return Err("not_allowed");
        }
        self.require_open(me)?;
        if at.seats.contains_key(&player) {
            return Err("id_conflict");
        }
        if self.characters[hero].gone {
            return Err("not_found");
        }
        self.take(session, player, hero)?;
        let at = &mut self.sessions[session];
        at.seats.insert(player, Seat { hero, active: true, saved: None, removed: false });
        at.emit("player_joined");
        Ok(true)
    }

    /// Joins by code: takes a new seat before the start, or the old one while the session is live and the Seer has not
    /// removed the player.
    pub fn join(&mut self, me: usize, session: usize, hero: usize) -> Answer {
        self.require_open(me)?;
        let at = &self.sessions[session];
        if at.archived || at.gone {
            return Err("no_such_code");
        }
        match at.seats.get(&me) {
            Some(seat) if seat.active => return Ok(true),
            Some(seat) => {
                if !self.characters[hero].gone && self.characters[hero].owner != me && seat.hero != hero {
                    return Err("character_not_yours");
                }
                if at.is_over() {
                    return Err("session_over");
                }
                if seat.removed {
                    return Err("player_removed");
                }
            }
            None if matches!(at.status, "active" | "paused") => return Err("session_started"),
            None => {}
        }
        if self.characters[hero].gone {
            return Err("not_found");
        }
        self.take(session, me, hero)?;
        let at = &mut self.sessions[session];
        let seat = at.seats.entry(me).or_insert(Seat { hero, active: true, saved: None, removed: false });
        seat.hero = hero;
        seat.active = true;
        at.emit("player_joined");
        Ok(true)
    }

    /// Returns a player's seat if the caller may change it at all.
    fn seat_for(&self, me: usize, session: usize, player: usize) -> Result<Option<&Seat>, &'static str> {
        self.require_open(me)?;
        let at = &self.sessions[session];
        let there = !at.archived && !at.gone && (player == me || at.seer == me);
        Ok(at.seats.get(&player).filter(|_| there))
    }

    /// The player leaves or rejoins; the Seer removes the player.
    pub fn set_active(&mut self, me: usize, session: usize, player: usize, active: bool) -> Answer {
        let Some(seat) = self.seat_for(me, session, player)? else { return Ok(false) };
        let changes = seat.active != active;
        if changes {
            if self.sessions[session].is_over() {
                return Err("session_over");
            }
            if active {
                if player != me {
                    return Err("not_your_choice");
                }
                if seat.removed {
                    return Err("player_removed");
                }
                self.take(session, player, seat.hero)?;
            }
        }
        let at = &mut self.sessions[session];
        if let Some(seat) = at.seats.get_mut(&player) {
            seat.active = active;
            seat.removed |= !active && player != me;
        }
        if changes {
            at.emit(if active { "player_joined" } else { "player_left" });
        }
        Ok(true)
    }

    /// The Seer readmits a removed player.
    pub fn readmit(&mut self, me: usize, session: usize, player: usize) -> Answer {
        let Some(seat) = self.seat_for(me, session, player)? else { return Ok(false) };
        if seat.removed && player == me {
            return Err("player_removed");
        }
        if let Some(seat) = self.sessions[session].seats.get_mut(&player) {
            seat.removed = false;
        }
        Ok(true)
    }

    pub fn change_character(&mut self, me: usize, session: usize, player: usize, hero: usize) -> Answer {
        let Some(seat) = self.seat_for(me, session, player)? else { return Ok(false) };
        if seat.hero == hero {
            return Ok(true);
        }
        let (at, character) = (&self.sessions[session], &self.characters[hero]);
        if player == me && character.owner != player && !character.gone {
            return Err("character_not_yours");
        }
        if at.is_over() {
            return Err("session_over");
        }
        if player != me {
            return Err("not_your_choice");
        }
        if character.gone {
            return Err("not_found");
        }
        if seat.active && !at.waits() {
            return Err("session_started");
        }
        // An inactive seat may have a retired character.
        if seat.active && character.retired {
            return Err("character_retired");
        }
        if let Some(seat) = self.sessions[session].seats.get_mut(&player) {
            seat.hero = hero;
        }
        Ok(true)
    }

    /// Whether somebody may roll, or why not. A stranger is answered as if there were no such session.
    fn may_roll(&self, me: usize, session: usize, hero: Option<usize>) -> Result<(), &'static str> {
        let at = &self.sessions[session];
        if at.archived || at.gone || !at.has_participant(me) {
            return Err("not_allowed");
        }
        if at.status != "active" {
            return Err("session_not_active");
        }
        let is_seer = at.seer == me;
        let seat = at.seats.get(&me).filter(|seat| seat.active);
        if hero.is_some() && seat.map(|seat| seat.hero) == hero {
            return Ok(());
        }
        if !is_seer && seat.is_none() {
            return Err("not_seated");
        }
        let Some(hero) = hero else { return if is_seer { Ok(()) } else { Err("not_a_seer") } };
        if is_seer && at.seats.values().any(|seat| seat.active && seat.hero == hero) {
            return Ok(());
        }
        let own = &self.characters[hero];
        if own.owner != me || own.gone {
            return Err("character_not_yours");
        }
        if own.retired {
            return Err("character_retired");
        }
        if is_seer { Ok(()) } else { Err("not_seated") }
    }

    /// Rolls for a character, or for the creature of an adventure.
    pub fn roll(&mut self, me: usize, id: Uuid, session: usize, hero: Option<usize>, creature_of: usize) -> Answer {
        self.may_roll(me, session, hero).map_err(|why| self.closed_or(me, why))?;
        self.require_open(me)?;
        if hero.is_none() && (self.sessions[session].adventure != creature_of || self.adventures[creature_of].gone) {
            return Err("creature_not_in_adventure");
        }
        self.rolls.push(Roll { id, session, hero, success: false, saves: None });
        self.sessions[session].emit("dice_rolled");
        Ok(true)
    }

    pub fn save(&mut self, me: usize, id: Uuid, first: usize) -> Answer {
        self.require_open(me)?;
        let roll = &self.rolls[first];
        let (session, at) = (roll.session, &self.sessions[roll.session]);
        if at.archived || at.gone || !at.has_participant(me) {
            return Err("not_found");
        }
        self.may_roll(me, session, roll.hero)?;
        if self.rolls.iter().any(|save| save.saves == Some(first)) {
            return Err("roll_already_saved");
        }
        let Some(hero) = roll.hero.filter(|_| roll.saves.is_none()) else { return Err("roll_not_saveable") };
        if roll.success {
            return Err("heroic_save_not_needed");
        }
        let encounters = at.encounters;
        let free = |seat: &Seat| seat.active && seat.hero == hero && seat.saved != Some(encounters);
        let Some(player) = at.seats.iter().find(|(_, seat)| free(seat)).map(|(player, _)| *player) else {
            return Err("heroic_save_spent");
        };
        let at = &mut self.sessions[session];
        if let Some(seat) = at.seats.get_mut(&player) {
            seat.saved = Some(encounters);
        }
        at.emit("dice_rolled");
        self.rolls.push(Roll { id, session, hero: Some(hero), success: false, saves: Some(first) });
        Ok(true)
    }
}
