//! The model's rules for adventures. `game.rs` says what parameters such as `me` mean.

use uuid::Uuid;

use super::game::{Adventure, Answer, Game};

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
