//! The tutorial. The player has begun the player path; the others have not begun a path.

use sparc::entity::sea_orm_active_enums::TutorialPath;
use sparc::service::{Operations, tutorial::Step};

use super::{Caller, Operation, Refusal, USERS_MAY, operation, outcome_code, refusal};

const USERS_WHO_HAVE_BEGUN_MAY: [&str; 6] =
    ["not_signed_in", "not_found", "not_found", "done", "not_found", "not_signed_in"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("tutorial.progress", USERS_MAY, |tx, scene| tx.tutorial().progress()),
        operation!("tutorial.begin", USERS_MAY, |tx, scene| tx.tutorial().begin(TutorialPath::Seer)),
        operation!("tutorial.advance", USERS_WHO_HAVE_BEGUN_MAY, |tx, scene| tx.tutorial().advance(Step::Welcome)),
        operation!(
            "tutorial.complete",
            ["not_signed_in", "not_found", "not_found", "tutorial_out_of_order", "not_found", "not_signed_in"],
            |tx, scene| tx.tutorial().complete()
        ),
        operation!("tutorial.skip", USERS_MAY, |tx, scene| tx.tutorial().skip()),
        operation!("tutorial.restart", USERS_WHO_HAVE_BEGUN_MAY, |tx, scene| tx.tutorial().restart(TutorialPath::Seer)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("tutorial.advance", Player, "tutorial_out_of_order", |tx, scene| {
            tx.tutorial().advance(Step::DiceRolling)
        }),
        refusal!("tutorial.advance", Player, "tutorial_out_of_order", |tx, scene| async {
            tx.tutorial().advance(Step::Welcome).await?;
            tx.tutorial().advance(Step::Welcome).await
        }),
        refusal!("tutorial.complete", Player, "done", |tx, scene| async {
            for step in &Step::of_path(TutorialPath::Player)[..4] {
                tx.tutorial().advance(*step).await?;
            }
            tx.tutorial().complete().await
        }),
    ]
}
