//! The model's rules for sessions: creating and changing them. `game.rs` says what parameters such as `me` mean.

use uuid::Uuid;

use super::game::{Answer, Game, MAX_LIVE_SESSIONS, Session};

impl Game {
    pub fn create_session(&mut self, me: usize, id: Uuid, adventure: usize, is_public: bool) -> Answer {
        let chosen = &self.adventures[adventure];
        if chosen.is_deleted || (chosen.status != "published" && chosen.creator != me) {
            return Err("adventure_not_playable");
        }
        self.require_open_account(me)?;
        if self.sessions.iter().filter(|session| session.seer == me && session.is_live()).count() >= MAX_LIVE_SESSIONS {
            return Err("session_limit_reached");
        }
        self.sessions.push(Session {
            id,
            seer: me,
            adventure,
            is_public,
            max_players: 4,
            status: "waiting",
            ..Session::default()
        });
        Ok(true)
    }

    /// Returns the session if the caller is its Seer and it was neither archived nor deleted. Fails if the caller's
    /// account is closed.
    pub fn session_as_seer(&mut self, me: usize, session: usize) -> Result<Option<&mut Session>, &'static str> {
        self.require_open_account(me)?;
        let session = &mut self.sessions[session];
        Ok((session.seer == me && !session.is_archived && !session.is_deleted).then_some(session))
    }

    pub fn set_visibility(&mut self, me: usize, session: usize, is_public: bool) -> Answer {
        let Some(session) = self.session_as_seer(me, session)? else { return Ok(false) };
        session.is_public = is_public;
        Ok(true)
    }

    pub fn set_max_players(&mut self, me: usize, session: usize, max_players: usize) -> Answer {
        let Some(session) = self.session_as_seer(me, session)? else { return Ok(false) };
        if session.is_over() && max_players != session.max_players {
            return Err("session_over");
        }
        if max_players < session.seats_taken() {
            return Err("seats_are_taken");
        }
        session.max_players = max_players;
        Ok(true)
    }

    pub fn change_status(&mut self, me: usize, session: usize, to: &'static str) -> Answer {
        let Some(game_session) = self.session_as_seer(me, session)? else { return Ok(false) };
        if !game_session.may_change_to(to) {
            return Err("illegal_transition");
        }
        if game_session.status == to {
            return Ok(true);
        }
        if to == "active" && game_session.seats_taken() == 0 {
            return Err("session_has_no_player");
        }
        game_session.status = to;
        game_session.count_event("session_status");
        if to == "completed" && game_session.had_player() {
            let (seer, adventure) = (game_session.seer, game_session.adventure);
            let players: Vec<usize> = game_session.seats.keys().copied().collect();
            self.users[seer].games_run += 1;
            self.adventures[adventure].times_played += 1;
            for player in players {
                self.users[player].games_played += 1;
            }
        }
        Ok(true)
    }

    pub fn set_encounter(&mut self, me: usize, session: usize, to: Option<u8>) -> Answer {
        let Some(session) = self.session_as_seer(me, session)? else { return Ok(false) };
        if session.current_encounter_id != to {
            if session.is_over() {
                return Err("session_over");
            }
            session.current_encounter_id = to;
            session.encounter_number += 1;
            for seat in session.seats.values_mut() {
                seat.has_used_heroic_save = false;
                if !seat.is_removed {
                    seat.heroic_saves_used = 0;
                }
            }
            session.count_event("encounter_changed");
        }
        Ok(true)
    }

    pub fn set_scene(&mut self, me: usize, session: usize, to: Option<u8>) -> Answer {
        let Some(session) = self.session_as_seer(me, session)? else { return Ok(false) };
        if session.current_scene_id != to {
            if session.is_over() {
                return Err("session_over");
            }
            session.current_scene_id = to;
            session.count_event("scene_changed");
        }
        Ok(true)
    }

    pub fn set_game_state(&mut self, me: usize, session: usize, to: u8) -> Answer {
        let Some(session) = self.session_as_seer(me, session)? else { return Ok(false) };
        if session.game_state != to {
            if session.is_over() {
                return Err("session_over");
            }
            session.game_state = to;
            session.game_state_version += 1;
            session.count_event("game_state");
        }
        Ok(true)
    }
}
