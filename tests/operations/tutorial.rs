//! The operations on the tutorial, and who may call them. The tutorial has a path for players and one for Seers. Of the
//! fixture's users, only the player has begun a path, the one for players. The six outcomes of an operation are those
//! of the visitor, the stranger, the former player, the player, the Seer and the service.

use sparc::entity::sea_orm_active_enums::TutorialPath;
use sparc::service::{Error, Operations, Transaction, tutorial::Step};

use super::operation::{Operation, Refusal, USERS_MAY_CALL, operation, refusal};

/// Only the player has progress in the tutorial, so every other user gets `not_found`.
const USERS_WITH_PROGRESS_MAY_CALL: [&str; 6] =
    ["not_signed_in", "not_found", "not_found", "done", "not_found", "not_signed_in"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("tutorial.progress", USERS_MAY_CALL, |tx, fixture| tx.tutorial().progress()),
        operation!("tutorial.begin", USERS_MAY_CALL, |tx, fixture| tx.tutorial().begin(TutorialPath::Seer)),
        operation!("tutorial.complete_step", USERS_WITH_PROGRESS_MAY_CALL, |tx, fixture| tx
            .tutorial()
            .complete_step(Step::Welcome)),
        operation!(
            "tutorial.complete",
            ["not_signed_in", "not_found", "not_found", "tutorial_out_of_order", "not_found", "not_signed_in"],
            |tx, fixture| tx.tutorial().complete()
        ),
        operation!("tutorial.skip", USERS_MAY_CALL, |tx, fixture| tx.tutorial().skip()),
        operation!("tutorial.restart", USERS_WITH_PROGRESS_MAY_CALL, |tx, fixture| tx
            .tutorial()
            .restart(TutorialPath::Seer)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("tutorial.complete_step", Player, "tutorial_out_of_order", |tx, fixture| {
            tx.tutorial().complete_step(Step::DiceRolling)
        }),
        refusal!("tutorial.complete_step", Player, "tutorial_out_of_order", |tx, fixture| async {
            tx.tutorial().complete_step(Step::Welcome).await?;
            tx.tutorial().complete_step(Step::Welcome).await
        }),
        // Not a refusal: in `operations`, every call of `complete` is refused, so its success is tested here.
        refusal!("tutorial.complete", Player, "done", |tx, fixture| async {
            complete_all_but_the_last_step(tx).await?;
            tx.tutorial().complete().await
        }),
    ]
}

/// Completes every step of the path for players except the last, which `tutorial.complete` completes. The user of the
/// transaction must be at the first step of that path.
pub async fn complete_all_but_the_last_step(tx: &Transaction) -> Result<(), Error> {
    for step in &Step::of_path(TutorialPath::Player)[..4] {
        tx.tutorial().complete_step(*step).await?;
    }
    Ok(())
}
