//! The model's rules for adventures. `game.rs` says what parameters such as `me` mean.

use uuid::Uuid;

use super::game::{Adventure, Answer, Game, Session};

impl Game {
    pub fn set_adventure_status(&mut self, me: usize, adventure: usize, to: &'static str) -> Answer {
        self.require_open_account(me)?;
        let adventure = &mut self.adventures[adventure];
        if adventure.is_deleted || adventure.creator != me {
            return Ok(false);
        }
        if to == "published" && !adventure.is_valid {
            return Err("adventure_invalid");
        }
        adventure.status = to;
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

    pub fn delete_adventure(&mut self, me: usize, adventure: usize) -> Answer {
        self.require_open_account(me)?;
        if self.adventures[adventure].is_deleted || self.adventures[adventure].creator != me {
            return Ok(false);
        }
        if self.adventure_has_history(adventure) {
            return Err("has_history");
        }
        self.mark_adventure_deleted(adventure);
        Ok(true)
    }

    pub fn create_adventure(&mut self, me: usize, id: Uuid) -> Answer {
        self.require_open_account(me)?;
        let adventure = Adventure {
            id,
            creator: me,
            status: "draft",
            is_valid: false,
            times_played: 0,
            creature: None,
            is_deleted: false,
        };
        self.adventures.push(adventure);
        Ok(true)
    }
}
