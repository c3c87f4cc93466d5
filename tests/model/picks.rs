//! Functions that select the existing rows on which a random step (`steps.rs`) acts. They return the rows' indexes in
//! the model.

use super::game::Game;

/// A random number that selects one of the existing rows of a table.
pub type Pick = u8;

/// A pick below this number selects a row on which the call is likely to succeed; any other pick selects any row.
pub const LIKELY_PICK_LIMIT: Pick = 200;

/// Picks the index of an element.
pub fn pick_index<T>(all: &[T], pick: Pick) -> Option<usize> {
    (!all.is_empty()).then(|| usize::from(pick) % all.len())
}

/// Picks a character, mostly one of the player's own.
pub fn pick_character(game: &Game, player: usize, pick: Pick) -> Option<usize> {
    let own_characters: Vec<usize> =
        (0..game.characters.len()).filter(|index| game.characters[*index].owner == player).collect();
    if pick < LIKELY_PICK_LIMIT && !own_characters.is_empty() {
        Some(own_characters[usize::from(pick) % own_characters.len()])
    } else {
        pick_index(&game.characters, pick)
    }
}

/// Picks a session, mostly one of the newest.
pub fn pick_session(game: &Game, pick: Pick) -> Option<usize> {
    let count = game.sessions.len();
    let first_of_newest = count.saturating_sub(4);
    if pick < LIKELY_PICK_LIMIT && count > 0 {
        Some(first_of_newest + usize::from(pick) % (count - first_of_newest))
    } else {
        pick_index(&game.sessions, pick)
    }
}

/// Picks a user, mostly one who has or had a seat in the session.
pub fn pick_player(game: &Game, session: usize, pick: Pick) -> Option<usize> {
    let players: Vec<usize> = game.sessions[session].seats.keys().copied().collect();
    pick_index(&players, pick)
        .filter(|_| pick < LIKELY_PICK_LIMIT)
        .map(|index| players[index])
        .or_else(|| pick_index(&game.users, pick))
}
