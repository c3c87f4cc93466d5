//! The rules of a table: who sits, and who rolls.

use uuid::Uuid;

use super::game::{Answer, Game, Roll, Seat};

impl Game {
    /// What the seat itself demands, whoever asks: that the session lives, that there is one, and that the character is a
    /// living one of the player's.
    fn sit_down(&self, session: usize, player: usize, hero: usize) -> Result<(), &'static str> {
        let at = &self.sessions[session];
        let sits = at.seats.get(&player).is_some_and(|seat| seat.active);
        if at.is_over() {
            return Err("session_over");
        }
        if !sits && at.taken() >= at.size {
            return Err("session_full");
        }
        self.brings(player, hero)?;
        if self.people[player].closed { Err("account_closed") } else { Ok(()) }
    }

    fn brings(&self, player: usize, hero: usize) -> Result<(), &'static str> {
        let hero = &self.characters[hero];
        if hero.gone {
            return Err("not_found");
        }
        if hero.owner != player {
            return Err("character_not_yours");
        }
        if hero.retired { Err("character_retired") } else { Ok(()) }
    }

    /// A seat taken by a row of one's own: the lobby's way, and the Seer's.
    pub fn sit(&mut self, me: usize, session: usize, player: usize, hero: usize) -> Answer {
        if self.sessions[session].archived {
            return Err("not_allowed");
        }
        match self.sit_down(session, player, hero) {
            // A character that is not there is found missing last.
            Ok(()) | Err("not_found") => {}
            Err(code) => return Err(code),
        }
        if self.characters[hero].gone && self.people[player].closed {
            return Err("account_closed");
        }
        let at = &mut self.sessions[session];
        if !(at.seer == me || (player == me && at.public && at.waits())) {
            return Err("not_allowed");
        }
        if at.seats.contains_key(&player) {
            return Err("id_conflict");
        }
        if self.characters[hero].gone {
            return Err("not_found");
        }
        at.seats.insert(player, Seat { hero, active: true, saved: None });
        at.tell("player_joined");
        Ok(true)
    }

    /// By its code: a new seat before the start, the old one as long as the session lives.
    pub fn join(&mut self, me: usize, session: usize, hero: usize) -> Answer {
        let at = &self.sessions[session];
        if at.archived {
            return Err("no_such_code");
        }
        match at.seats.get(&me) {
            Some(seat) if seat.active => return Ok(true),
            Some(_) => {}
            None if matches!(at.status, "active" | "paused") => return Err("session_started"),
            None => {}
        }
        match self.sit_down(session, me, hero) {
            Err("not_found") if self.people[me].closed => return Err("account_closed"),
            outcome => outcome?,
        }
        let at = &mut self.sessions[session];
        let seat = at.seats.entry(me).or_insert(Seat { hero, active: true, saved: None });
        seat.hero = hero;
        seat.active = true;
        at.tell("player_joined");
        Ok(true)
    }

    /// Leaves or comes back, removes or takes back.
    pub fn set_active(&mut self, me: usize, session: usize, player: usize, active: bool) -> Answer {
        let at = &self.sessions[session];
        let Some(seat) = at.seats.get(&player) else { return Ok(false) };
        if at.archived || !(player == me || at.seer == me) {
            return Ok(false);
        }
        if seat.active == active {
            return Ok(true);
        }
        if active {
            self.sit_down(session, player, seat.hero)?;
        } else if at.is_over() {
            return Err("session_over");
        }
        let at = &mut self.sessions[session];
        if let Some(seat) = at.seats.get_mut(&player) {
            seat.active = active;
        }
        at.tell(if active { "player_joined" } else { "player_left" });
        Ok(true)
    }

    pub fn change_character(&mut self, me: usize, session: usize, player: usize, hero: usize) -> Answer {
        let at = &self.sessions[session];
        let Some(seat) = at.seats.get(&player) else { return Ok(false) };
        if at.archived || !(player == me || at.seer == me) {
            return Ok(false);
        }
        if seat.hero == hero {
            return Ok(true);
        }
        if at.is_over() {
            return Err("session_over");
        }
        if seat.active && !at.waits() {
            return Err("session_started");
        }
        if seat.active && player != me {
            return Err("not_your_choice");
        }
        match self.brings(player, hero) {
            // Where nobody sits, one who is retired may be named.
            Err("character_retired") if !seat.active => {}
            outcome => outcome?,
        }
        if let Some(seat) = self.sessions[session].seats.get_mut(&player) {
            seat.hero = hero;
        }
        Ok(true)
    }

    fn may_roll(&self, me: usize, session: usize, hero: Option<usize>) -> bool {
        let at = &self.sessions[session];
        if at.archived || at.status != "active" {
            return false;
        }
        let Some(hero) = hero else { return at.seer == me };
        let sits =
            |(player, seat): (&usize, &Seat)| seat.active && seat.hero == hero && (*player == me || at.seer == me);
        let own = &self.characters[hero];
        at.seats.iter().any(sits) || (at.seer == me && own.owner == me && !own.retired && !own.gone)
    }

    /// By a character, or by the creature of an adventure.
    pub fn roll(&mut self, me: usize, id: Uuid, session: usize, hero: Option<usize>, creature_of: usize) -> Answer {
        let at = &self.sessions[session];
        if hero.is_none() && (at.archived || at.adventure != creature_of || self.adventures[creature_of].gone) {
            return Err("creature_not_in_adventure");
        }
        if !self.may_roll(me, session, hero) {
            return Err("not_allowed");
        }
        self.rolls.push(Roll { id, session, hero, success: false, saves: None });
        self.sessions[session].tell("dice_rolled");
        Ok(true)
    }

    pub fn save(&mut self, me: usize, id: Uuid, first: usize) -> Answer {
        let roll = &self.rolls[first];
        let (session, at) = (roll.session, &self.sessions[roll.session]);
        if at.archived || !at.is_of(me) {
            return Err("not_found");
        }
        let Some(hero) = roll.hero.filter(|_| roll.saves.is_none()) else { return Err("roll_not_saveable") };
        if roll.success {
            return Err("heroic_save_not_needed");
        }
        if self.rolls.iter().any(|save| save.saves == Some(first)) {
            return Err("roll_already_saved");
        }
        let encounters = at.encounters;
        let free = |seat: &Seat| seat.active && seat.hero == hero && seat.saved != Some(encounters);
        let Some(player) = at.seats.iter().find(|(_, seat)| free(seat)).map(|(player, _)| *player) else {
            return Err("heroic_save_spent");
        };
        if !self.may_roll(me, session, Some(hero)) {
            return Err("not_allowed");
        }
        let at = &mut self.sessions[session];
        if let Some(seat) = at.seats.get_mut(&player) {
            seat.saved = Some(encounters);
        }
        at.tell("dice_rolled");
        self.rolls.push(Roll { id, session, hero: Some(hero), success: false, saves: Some(first) });
        Ok(true)
    }
}
