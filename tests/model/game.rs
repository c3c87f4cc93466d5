//! The rules of the game in plain Rust, as the design says them, with nothing of the schema's code in it.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

pub const STATUSES: [&str; 6] = ["waiting", "starting_soon", "active", "paused", "completed", "cancelled"];

/// Whether a row was reached, or the code of the refusal.
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
    /// The encounter in which its heroic save was used, while it counts.
    pub saved: Option<u32>,
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

    pub fn waits(&self) -> bool {
        matches!(self.status, "waiting" | "starting_soon")
    }

    /// Whether somebody runs it, or has or had a seat in it.
    pub fn is_of(&self, person: usize) -> bool {
        self.seer == person || self.seats.contains_key(&person)
    }

    pub fn tell(&mut self, kind: &'static str) {
        *self.events.entry(kind).or_default() += 1;
    }

    fn goes(&self, to: &str) -> bool {
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

    fn living(&self, owner: usize) -> usize {
        self.characters.iter().filter(|hero| hero.owner == owner && !hero.retired && !hero.gone).count()
    }

    pub fn create_character(&mut self, me: usize, id: Uuid, name: u8) -> Answer {
        if self.people[me].closed {
            return Err("account_closed");
        }
        if self.living(me) >= 10 {
            return Err("character_limit_reached");
        }
        if self.characters.iter().any(|hero| hero.owner == me && hero.name == name && !hero.gone) {
            return Err("character_name_taken");
        }
        let hit_points = self.hit_points;
        self.characters.push(Character { id, owner: me, name, retired: false, hit_points, gone: false });
        Ok(true)
    }

    pub fn retire(&mut self, me: usize, hero: usize) -> Answer {
        if self.characters[hero].owner != me || self.characters[hero].gone {
            return Ok(false);
        }
        let sits = |session: &Session| {
            !session.archived
                && !session.is_over()
                && session.seats.values().any(|seat| seat.active && seat.hero == hero)
        };
        if !self.characters[hero].retired && self.sessions.iter().any(sits) {
            return Err("character_seated");
        }
        self.characters[hero].retired = true;
        Ok(true)
    }

    pub fn bring_back(&mut self, me: usize, hero: usize) -> Answer {
        if self.characters[hero].owner != me || self.characters[hero].gone {
            return Ok(false);
        }
        if self.characters[hero].retired {
            if self.people[me].closed {
                return Err("account_closed");
            }
            if self.living(me) >= 10 {
                return Err("character_limit_reached");
            }
        }
        self.characters[hero].retired = false;
        Ok(true)
    }

    pub fn delete_character(&mut self, me: usize, hero: usize) -> Answer {
        if self.characters[hero].owner != me || self.characters[hero].gone {
            return Ok(false);
        }
        let seated = self.sessions.iter().any(|session| session.seats.values().any(|seat| seat.hero == hero));
        if seated || self.rolls.iter().any(|roll| roll.hero == Some(hero)) {
            return Err("has_history");
        }
        self.characters[hero].gone = true;
        Ok(true)
    }

    pub fn wound(&mut self, me: usize, hero: usize, points: i32) -> Answer {
        let runs = |session: &Session| {
            !session.archived
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
        if self.people[me].closed {
            return Err("account_closed");
        }
        let plays = &self.adventures[adventure];
        if plays.gone {
            return Err("not_found");
        }
        if plays.status != "published" && plays.creator != me {
            return Err("adventure_not_playable");
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
        });
        Ok(true)
    }

    /// The session, where the one who asks runs it.
    pub fn run_by(&mut self, me: usize, session: usize) -> Option<&mut Session> {
        let session = &mut self.sessions[session];
        (session.seer == me && !session.archived).then_some(session)
    }

    pub fn resize(&mut self, me: usize, session: usize, size: usize) -> Answer {
        let Some(session) = self.run_by(me, session) else { return Ok(false) };
        if size < session.taken() {
            return Err("seats_are_taken");
        }
        session.size = size;
        Ok(true)
    }

    pub fn change_status(&mut self, me: usize, session: usize, to: &'static str) -> Answer {
        let Some(changed) = self.run_by(me, session) else { return Ok(false) };
        if !changed.goes(to) {
            return Err("illegal_transition");
        }
        if changed.status == to {
            return Ok(true);
        }
        changed.status = to;
        changed.tell("session_status");
        if to == "completed" {
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
        let Some(session) = self.run_by(me, session) else { return Ok(false) };
        if session.encounter != to {
            session.encounter = to;
            session.encounters += 1;
            session.seats.values_mut().for_each(|seat| seat.saved = None);
            session.tell("encounter_changed");
        }
        Ok(true)
    }

    pub fn set_scene(&mut self, me: usize, session: usize, to: Option<u8>) -> Answer {
        let Some(session) = self.run_by(me, session) else { return Ok(false) };
        if session.scene != to {
            session.scene = to;
            session.tell("scene_changed");
        }
        Ok(true)
    }

    pub fn set_state(&mut self, me: usize, session: usize, to: u8) -> Answer {
        let Some(session) = self.run_by(me, session) else { return Ok(false) };
        if session.state != to {
            session.state = to;
            session.version += 1;
            session.tell("game_state");
        }
        Ok(true)
    }

    pub fn send(&mut self, me: usize, session: usize, servers: bool) -> Answer {
        let session = &mut self.sessions[session];
        let sits = session.seats.get(&me).is_some_and(|seat| seat.active);
        if servers || session.archived || !(session.seer == me || sits) {
            return Err("not_allowed");
        }
        session.tell("client.wave");
        Ok(true)
    }

    pub fn set_adventure(&mut self, me: usize, adventure: usize, to: &'static str) -> Answer {
        let closed = self.people[me].closed;
        let adventure = &mut self.adventures[adventure];
        if adventure.gone || adventure.creator != me {
            return Ok(false);
        }
        if closed && to != adventure.status && to != "archived" {
            return Err("account_closed");
        }
        if to == "published" && !adventure.valid {
            return Err("adventure_invalid");
        }
        adventure.status = to;
        Ok(true)
    }

    pub fn delete_adventure(&mut self, me: usize, adventure: usize) -> Answer {
        if self.adventures[adventure].gone || self.adventures[adventure].creator != me {
            return Ok(false);
        }
        if self.sessions.iter().any(|session| session.adventure == adventure) {
            return Err("has_history");
        }
        self.adventures[adventure].gone = true;
        Ok(true)
    }

    pub fn create_adventure(&mut self, me: usize, id: Uuid) -> Answer {
        if self.people[me].closed {
            return Err("account_closed");
        }
        let adventure =
            Adventure { id, creator: me, status: "draft", valid: false, played: 0, creature: None, gone: false };
        self.adventures.push(adventure);
        Ok(true)
    }

    /// Soft deletion: the seats at live tables are left, what waits is cancelled, drafts go.
    pub fn close(&mut self, me: usize) -> Answer {
        if self.people[me].closed {
            return Ok(true);
        }
        self.people[me].closed = true;
        for session in self.sessions.iter_mut().filter(|session| !session.archived && !session.is_over()) {
            if let Some(seat) = session.seats.get_mut(&me).filter(|seat| seat.active) {
                seat.active = false;
                session.tell("player_left");
            }
            if session.seer == me && session.waits() {
                session.status = "cancelled";
                session.tell("session_status");
            }
        }
        let played: BTreeSet<usize> = self.sessions.iter().map(|session| session.adventure).collect();
        for (place, adventure) in self.adventures.iter_mut().enumerate() {
            if adventure.creator == me && adventure.status == "draft" && !adventure.gone {
                adventure.gone = !played.contains(&place);
                adventure.status = "archived";
            }
        }
        Ok(true)
    }

    pub fn archive(&mut self) -> Answer {
        for session in self.sessions.iter_mut().filter(|session| session.status == "completed") {
            session.archived = true;
        }
        Ok(true)
    }
}
