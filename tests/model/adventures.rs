//! The model's rules of adventures.

use uuid::Uuid;

use super::game::{Adventure, Answer, Game, Session};

impl Game {
    pub fn set_adventure(&mut self, me: usize, adventure: usize, to: &'static str) -> Answer {
        self.require_open(me)?;
        let adventure = &mut self.adventures[adventure];
        if adventure.gone || adventure.creator != me {
            return Ok(false);
        }
        if to == "published" && !adventure.valid {
            return Err("adventure_invalid");
        }
        adventure.status = to;
        Ok(true)
    }

    /// Returns whether one of its sessions is live or had a player. Other sessions are deleted with the adventure.
    pub fn has_history(&self, adventure: usize) -> bool {
        let kept = |session: &Session| {
            session.adventure == adventure && !session.gone && (session.is_live() || session.was_played())
        };
        self.sessions.iter().any(kept)
    }

    pub fn remove_adventure(&mut self, adventure: usize) {
        self.adventures[adventure].gone = true;
        for session in self.sessions.iter_mut().filter(|session| session.adventure == adventure) {
            session.gone = true;
        }
    }

    pub fn delete_adventure(&mut self, me: usize, adventure: usize) -> Answer {
        self.require_open(me)?;
        if self.adventures[adventure].gone || self.adventures[adventure].creator != me {
            return Ok(false);
        }
        if self.has_history(adventure) {
            return Err("has_history");
        }
        self.remove_adventure(adventure);
        Ok(true)
    }

    pub fn create_adventure(&mut self, me: usize, id: Uuid) -> Answer {
        self.require_open(me)?;
        let adventure =
            Adventure { id, creator: me, status: "draft", valid: false, played: 0, creature: None, gone: false };
        self.adventures.push(adventure);
        Ok(true)
    }
}
