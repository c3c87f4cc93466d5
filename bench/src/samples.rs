//! The people and tables that measures ask about: the same ones on both sides.

use uuid::Uuid;

use crate::world::{Kind, State, World, code, id, part};

/// Places at which a measure asks, in turns.
pub const PLACES: u64 = 64;

/// One busy table, and one session of the lobby beside it.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Session that plays.
    pub session: Uuid,
    /// Who runs it.
    pub seer: Uuid,
    /// Who sits there.
    pub player: Uuid,
    /// The player's character.
    pub hero: Uuid,
    /// An adventure that is published.
    pub adventure: Uuid,
    /// What somebody looks for in the lobby: a difficulty, a longest duration in minutes, free seats. In turns, so that a
    /// figure does not hang on how many of one kind happen to begin first.
    pub looking_for: (&'static str, u32, u32),
    /// A public session of the lobby with a seat free: a player, its code, its Seer.
    pub open: Uuid,
    /// Its code.
    pub open_code: String,
    /// Its Seer.
    pub open_seer: Uuid,
    /// One of its players.
    pub open_player: Uuid,
    /// Somebody who has no seat there.
    pub newcomer: Uuid,
    /// The newcomer's character.
    pub newcomer_hero: Uuid,
    /// The event after which somebody listens.
    pub event: Uuid,
    /// Its number; known once the events are there.
    pub seq: i64,
}

/// The same number of each, wherever in the world.
#[must_use]
pub fn samples(world: &World) -> Vec<Sample> {
    (0..PLACES.min(world.busy))
        .map(|number| {
            let busy = world.session(number * 31 % world.busy);
            let player = world.player(busy.number, number % 6);
            let open = (0..)
                .map(|step| world.session(world.busy + (number * 1009 + step) % world.open))
                .find(|open| open.is_public && open.state == State::Waiting && (1..open.places).contains(&open.seats));
            let open = open.unwrap_or(busy);
            let turn = number as usize;
            let newcomer = world.users * 8 / 10 + number;
            Sample {
                session: id(Kind::Session, busy.number),
                seer: id(Kind::User, busy.seer),
                player: id(Kind::User, player),
                hero: id(Kind::Character, player),
                adventure: id(Kind::Adventure, open.adventure),
                looking_for: (["easy", "medium", "hard"][turn % 3], [60, 90, 120, 150][turn % 4], [2, 3, 4][turn % 3]),
                open: id(Kind::Session, open.number),
                open_code: code(open.number),
                open_seer: id(Kind::User, open.seer),
                open_player: id(Kind::User, world.player(open.number, 0)),
                newcomer: id(Kind::User, newcomer),
                newcomer_hero: id(Kind::Character, newcomer),
                event: part(Kind::Event, busy.number, 90),
                seq: 0,
            }
        })
        .collect()
}
