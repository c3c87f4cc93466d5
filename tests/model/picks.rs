//! Selects, for each random call, which of the existing rows it concerns.

use super::game::Game;

/// A number that selects one of the existing rows of a kind.
pub type Pick = u8;

pub fn pick_index<T>(all: &[T], pick: Pick) -> Option<usize> {
    (!all.is_empty()).then(|| usize::from(pick) % all.len())
}

/// Picks a character, mostly one of the player's own.
pub fn pick_character(game: &Game, player: usize, pick: Pick) -> Option<usize> {
    let own: Vec<usize> = (0..game.characters.len()).filter(|index| game.characters[*index].owner == player).collect();
    if pick < 200 && !own.is_empty() {
        Some(own[usize::from(pick) % own.len()])
    } else {
        pick_index(&game.characters, pick)
    }
}

/// Picks a session, mostly one of the newest.
pub fn pick_session(game: &Game, pick: Pick) -> Option<usize> {
    let all = game.sessions.len();
    let newest = all.saturating_sub(4);
    if pick < 200 && all > 0 {
        Some(newest + usize::from(pick) % (all - newest))
    } else {
        pick_index(&game.sessions, pick)
    }
}

/// Picks a user, mostly one who has or had a seat in the session.
pub fn pick_participant(game: &Game, session: usize, pick: Pick) -> Option<usize> {
    let participants: Vec<usize> = game.sessions[session].seats.keys().copied().collect();
    pick_index(&participants, pick)
        .filter(|_| pick < 200)
        .map(|index| participants[index])
        .or_else(|| pick_index(&game.people, pick))
}
