//! The rules of the game in plain Rust, written from the design and not from the schema's code.

use std::collections::BTreeMap;

use uuid::Uuid;

pub const STATUSES: [&str; 6] = ["waiting", "starting_soon", "active", "paused", "completed", "cancelled"];

/// Whether a row was affected, or the code of the error.
pub type Answer = Result<bool, &'static str>;

#[derive(Clone, Debug)]
pub struct Person {
    pub id: Uuid,
    pub played: u32,
    pub run: u32,
    pub closed: bool,
}

#[derive(Clone, Debug)]
pub struct Character {
    pub id: Uuid,
    pub owner: usize,
    pub name: u8,
    pub retired: bool,
    pub hit_points: i32,
    pub gone: bool,
}

#[derive(Clone, Debug)]
pub struct Adventure {
    pub id: Uuid,
    pub creator: usize,
    pub status: &'static str,
    pub valid: bool,
    pub played: u32,
    pub creature: Option<Uuid>,
    pub gone: bool,
}

#[derive(Clone, Debug)]
pub struct Seat {
    pub hero: usize,
    pub active: bool,
    /// The encounter in which the heroic save was used, as long as it counts.
    pub saved: Option<u32>,
    /// The Seer removed the player and has not readmitted them.
    pub removed: bool,
}

#[derive(Clone, Debug)]
pub struct Session {
    pub id: Uuid,
    pub seer: usize,
    pub adventure: usize,
    pub public: bool,
    pub size: usize,
    pub status: &'static str,
    pub seats: BTreeMap<usize, Seat>,
    pub scene: Option<u8>,
    pub encounter: Option<u8>,
    pub encounters: u32,
    pub state: u8,
    pub version: u32,
    pub events: BTreeMap<&'static str, u32>,
    pub archived: bool,
    /// Deleted with its adventure, because it was not history.
    pub gone: bool,
}

#[derive(Clone, Debug)]
pub struct Roll {
    pub id: Uuid,
    pub session: usize,
    pub hero: Option<usize>,
    pub success: bool,
    pub saves: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Game {
    pub people: Vec<Person>,
    pub characters: Vec<Character>,
    pub adventures: Vec<Adventure>,
    pub sessions: Vec<Session>,
    pub rolls: Vec<Roll>,
    pub ids: u128,
    pub hit_points: i32,
}

impl Session {
    pub fn taken(&self) -> usize {
        self.seats.values().filter(|seat| seat.active).count()
    }

    pub fn is_over(&self) -> bool {
        matches!(self.status, "completed" | "cancelled")
    }

    /// Returns whether it can still be played, and its rows can still be written.
    pub fn is_live(&self) -> bool {
        !self.gone && !self.archived && !self.is_over()
    }

    /// Returns whether anybody except its Seer ever had a seat.
    pub fn was_played(&self) -> bool {
        self.seats.keys().any(|player| *player != self.seer)
    }

    pub fn waits(&self) -> bool {
        matches!(self.status, "waiting" | "starting_soon")
    }

    /// Returns whether a user runs it, or has or had a seat in it.
    pub fn has_participant(&self, person: usize) -> bool {
        self.seer == person || self.seats.get(&person).is_some_and(|seat| !seat.removed)
    }

    pub fn emit(&mut self, kind: &'static str) {
        *self.events.entry(kind).or_default() += 1;
    }

    fn may_become(&self, to: &str) -> bool {
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
    pub fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(0x5bac_0000_0000_4000_8000_0000_0000_0000 << 64 | self.ids)
    }

    /// Returns the error that every write of a closed account gets, whatever row it would affect.
    pub fn require_open(&self, me: usize) -> Result<(), &'static str> {
        if self.people[me].closed { Err("account_closed") } else { Ok(()) }
    }

    /// Returns `account_closed` for a closed account, unless the refusal is one that strangers get.
    pub fn closed_or(&self, me: usize, why: &'static str) -> &'static str {
        if why == "not_allowed" { why } else { self.require_open(me).err().unwrap_or(why) }
    }

    fn living(&self, owner: usize) -> usize {
        self.characters.iter().filter(|hero| hero.owner == owner && !hero.retired && !hero.gone).count()
    }

    pub fn create_character(&mut self, me: usize, id: Uuid, name: u8) -> Answer {
        self.require_open(me)?;
        if self.characters.iter().any(|hero| hero.owner == me && hero.name == name && !hero.gone) {
            return Err("character_name_taken");
        }
        if self.living(me) >= 10 {
            return Err("character_limit_reached");
        }
        let hit_points = self.hit_points;
        self.characters.push(Character { id, owner: me, name, retired: false, hit_points, gone: false });
        Ok(true)
    }

    pub fn retire(&mut self, me: usize, hero: usize) -> Answer {
        self.require_open(me)?;
        if self.characters[hero].owner != me || self.characters[hero].gone {
            return Ok(false);
        }
        let sits = |session: &Session| {
            session.is_live() && session.seats.values().any(|seat| seat.active && seat.hero == hero)
        };
        if !self.characters[hero].retired && self.sessions.iter().any(sits) {
            return Err("character_seated");
        }
        self.characters[hero].retired = true;
        Ok(true)
    }

    pub fn unretire(&mut self, me: usize, hero: usize) -> Answer {
        self.require_open(me)?;
        if self.characters[hero].owner != me || self.characters[hero].gone {
            return Ok(false);
        }
        if self.characters[hero].retired && self.living(me) >= 10 {
            return Err("character_limit_reached");
        }
        self.characters[hero].retired = false;
        Ok(true)
    }

    pub fn delete_character(&mut self, me: usize, hero: usize) -> Answer {
        self.require_open(me)?;
        if self.characters[hero].owner != me || self.characters[hero].gone {
            return Ok(false);
        }
        let there = |session: &Session| !session.gone && session.seats.values().any(|seat| seat.hero == hero);
        let rolled = |roll: &Roll| roll.hero == Some(hero) && !self.sessions[roll.session].gone;
        if self.sessions.iter().any(there) || self.rolls.iter().any(rolled) {
            return Err("has_history");
        }
        self.characters[hero].gone = true;
        Ok(true)
    }

    pub fn wound(&mut self, me: usize, hero: usize, points: i32) -> Answer {
        self.require_open(me)?;
        let runs = |session: &Session| {
            session.is_live()
                && session.seer == me
                && matches!(session.status, "active" | "paused")
                && session.seats.values().any(|seat| seat.active && seat.hero == hero)
        };
        let may = self.characters[hero].owner == me || self.sessions.iter().any(runs);
        let character = &mut self.characters[hero];
        if !may || character.gone {
            return Ok(false);
        }
        character.hit_points = (character.hit_points - points).clamp(0, self.hit_points);
        Ok(true)
    }

    pub fn create_session(&mut self, me: usize, id: Uuid, adventure: usize, public: bool) -> Answer {
        let plays = &self.adventures[adventure];
        if plays.gone || (plays.status != "published" && plays.creator != me) {
            return Err("adventure_not_playable");
        }
        self.require_open(me)?;
        if self.sessions.iter().filter(|session| session.seer == me && session.is_live()).count() >= 20 {
            return Err("session_limit_reached");
        }
        self.sessions.push(Session {
            id,
            seer: me,
            adventure,
            public,
            size: 4,
            status: "waiting",
            seats: BTreeMap::new(),
            scene: None,
            encounter: None,
            encounters: 0,
            state: 0,
            version: 0,
            events: BTreeMap::new(),
            archived: false,
            gone: false,
        });
        Ok(true)
    }

    /// Returns the session if the caller runs it.
    pub fn run_by(&mut self, me: usize, session: usize) -> Result<Option<&mut Session>, &'static str> {
        self.require_open(me)?;
        let session = &mut self.sessions[session];
        Ok((session.seer == me && !session.archived && !session.gone).then_some(session))
    }

    pub fn show(&mut self, me: usize, session: usize, public: bool) -> Answer {
        let Some(session) = self.run_by(me, session)? else { return Ok(false) };
        session.public = public;
        Ok(true)
    }

    pub fn resize(&mut self, me: usize, session: usize, size: usize) -> Answer {
        let Some(session) = self.run_by(me, session)? else { return Ok(false) };
        if session.is_over() && size != session.size {
            return Err("session_over");
        }
        if size < session.taken() {
            return Err("seats_are_taken");
        }
        session.size = size;
        Ok(true)
    }

    pub fn change_status(&mut self, me: usize, session: usize, to: &'static str) -> Answer {
        let Some(changed) = self.run_by(me, session)? else { return Ok(false) };
        if !changed.may_become(to) {
            return Err("illegal_transition");
        }
        if changed.status == to {
            return Ok(true);
        }
        if to == "active" && changed.taken() == 0 {
            return Err("session_has_no_player");
        }
        changed.status = to;
        changed.emit("session_status");
        if to == "completed" && changed.was_played() {
            let (seer, adventure) = (changed.seer, changed.adventure);
            let players: Vec<usize> = changed.seats.keys().copied().collect();
            self.people[seer].run += 1;
            self.adventures[adventure].played += 1;
            for player in players {
                self.people[player].played += 1;
            }
        }
        Ok(true)
    }

    pub fn set_encounter(&mut self, me: usize, session: usize, to: Option<u8>) -> Answer {
        let Some(session) = self.run_by(me, session)? else { return Ok(false) };
        if session.encounter != to {
            if session.is_over() {
                return Err("session_over");
            }
            session.encounter = to;
            session.encounters += 1;
            session.seats.values_mut().for_each(|seat| seat.saved = None);
            session.emit("encounter_changed");
        }
        Ok(true)
    }

    pub fn set_scene(&mut self, me: usize, session: usize, to: Option<u8>) -> Answer {
        let Some(session) = self.run_by(me, session)? else { return Ok(false) };
        if session.scene != to {
            if session.is_over() {
                return Err("session_over");
            }
            session.scene = to;
            session.emit("scene_changed");
        }
        Ok(true)
    }

    pub fn set_state(&mut self, me: usize, session: usize, to: u8) -> Answer {
        let Some(session) = self.run_by(me, session)? else { return Ok(false) };
        if session.state != to {
            if session.is_over() {
                return Err("session_over");
            }
            session.state = to;
            session.version += 1;
            session.emit("game_state");
        }
        Ok(true)
    }

    pub fn send(&mut self, me: usize, session: usize, servers: bool) -> Answer {
        let at = &self.sessions[session];
        if servers || at.archived || at.gone || !at.has_participant(me) {
            return Err("not_allowed");
        }
        if at.seer != me && !at.seats.get(&me).is_some_and(|seat| seat.active) {
            return Err(self.closed_or(me, "not_seated"));
        }
        self.require_open(me)?;
        self.sessions[session].emit("client.wave");
        Ok(true)
    }

    /// Soft deletion: seats in live sessions are given up, live sessions are cancelled, drafts without history are
    /// deleted.
    pub fn close(&mut self, me: usize) -> Answer {
        self.require_open(me)?;
        self.people[me].closed = true;
        for session in self.sessions.iter_mut().filter(|session| session.is_live()) {
            if let Some(seat) = session.seats.get_mut(&me).filter(|seat| seat.active) {
                seat.active = false;
                session.emit("player_left");
            }
            if session.seer == me {
                session.status = "cancelled";
                session.emit("session_status");
            }
        }
        for place in 0..self.adventures.len() {
            let adventure = &self.adventures[place];
            if adventure.creator == me && adventure.status == "draft" && !adventure.gone {
                if self.has_history(place) {
                    self.adventures[place].status = "archived";
                } else {
                    self.remove_adventure(place);
                }
            }
        }
        Ok(true)
    }

    pub fn archive(&mut self) -> Answer {
        for session in self.sessions.iter_mut().filter(|session| session.is_over() && !session.gone) {
            session.archived = true;
        }
        Ok(true)
    }
}
