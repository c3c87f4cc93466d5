//! Every operation of the service, asked by everybody: who may, and what the others are told. Each is asked in a
//! transaction of the caller's that is rolled back, on one scene, which is the same to the letter afterwards.

use std::{collections::BTreeSet, fmt::Debug, pin::Pin};

use sea_orm::TransactionTrait;
use sparc::service::{Error, Sparc, Transaction};

mod adventures;
mod cancelled;
mod characters;
mod creatures;
mod dice;
mod documented;
mod events;
mod maintenance;
mod scene;
mod sessions;
mod standby;
mod tutorial;
mod users;
mod wire;

use scene::{EVERYBODY, Scene, Who};

/// What an operation came to: `done`, or the code of its refusal.
type Asked<'a> = Pin<Box<dyn Future<Output = &'static str> + Send + 'a>>;

/// An operation asked in a transaction.
type Ask = for<'a> fn(&'a Transaction, &'a Scene) -> Asked<'a>;

/// An operation, and what it tells the visitor, the stranger, the player who left, the player, the Seer and the service.
struct Operation {
    name: &'static str,
    told: [&'static str; 6],
    ask: Ask,
}

/// A refusal that depends on what is asked for.
struct Refusal {
    name: &'static str,
    who: Who,
    code: &'static str,
    ask: Ask,
}

fn told<T: Debug>(outcome: Result<T, Error>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "done")
}

macro_rules! operation {
    ($name:literal, $told:expr, |$tx:ident, $scene:ident| $ask:expr) => {
        Operation {
            name: $name,
            told: $told,
            ask: |$tx, $scene| {
                let _ = $scene;
                Box::pin(async move { told($ask.await) })
            },
        }
    };
}

macro_rules! refusal {
    ($name:literal, $who:ident, $code:literal, |$tx:ident, $scene:ident| $ask:expr) => {
        Refusal {
            name: $name,
            who: Who::$who,
            code: $code,
            ask: |$tx, $scene| {
                let _ = $scene;
                Box::pin(async move { told($ask.await) })
            },
        }
    };
}

use {operation, refusal};

/// Everybody may.
const EVERYBODYS: [&str; 6] = ["done", "done", "done", "done", "done", "done"];

/// Whoever signed in may; some see nothing.
const READS: [&str; 6] = ["not_signed_in", "done", "done", "done", "done", "done"];

/// A user may, for oneself; the service is no user.
const SIGNED_IN: [&str; 6] = ["not_signed_in", "done", "done", "done", "done", "not_signed_in"];

/// The service may.
const SERVICE: [&str; 6] = ["not_signed_in", "not_allowed", "not_allowed", "not_allowed", "not_allowed", "done"];

fn operations() -> Vec<Operation> {
    let mut all = users::operations();
    all.extend(characters::operations());
    all.extend(adventures::operations());
    all.extend(creatures::operations());
    all.extend(sessions::operations());
    all.extend(dice::operations());
    all.extend(events::operations());
    all.extend(tutorial::operations());
    all.extend(maintenance::operations());
    all
}

fn refusals() -> Vec<Refusal> {
    let mut all = users::refusals();
    all.extend(characters::refusals());
    all.extend(adventures::refusals());
    all.extend(creatures::refusals());
    all.extend(sessions::refusals());
    all.extend(dice::refusals());
    all.extend(events::refusals());
    all.extend(tutorial::refusals());
    all
}

async fn rolled_back(sparc: &Sparc, scene: &Scene, who: Who, ask: Ask) -> &'static str {
    let tx = match scene.identity(sparc, who).begin().await {
        Ok(tx) => tx,
        Err(refused) => return Error::from(refused).code(),
    };
    let told = ask(&tx, scene).await;
    tx.rollback().await.unwrap();
    told
}

#[tokio::test]
async fn everybody_is_told_what_they_may_and_what_not_and_a_rollback_undoes_all() {
    let scene = Scene::new().await;
    let before = scene.digest().await;
    let mut wrong = Vec::new();
    for operation in operations() {
        let mut told = Vec::new();
        for who in EVERYBODY {
            told.push(rolled_back(&scene.world.sparc, &scene, who, operation.ask).await);
        }
        if told != operation.told {
            wrong.push(format!("{}: {:?}\n    instead of {:?}", operation.name, told, operation.told));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(scene.digest().await, before);
}

#[tokio::test]
async fn every_refusal_has_its_code_and_changes_nothing() {
    let scene = Scene::new().await;
    let before = scene.digest().await;
    let mut wrong = Vec::new();
    for refusal in refusals() {
        let told = rolled_back(&scene.world.sparc, &scene, refusal.who, refusal.ask).await;
        if told != refusal.code {
            wrong.push(format!("{} as {:?}: {told} instead of {}", refusal.name, refusal.who, refusal.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(scene.digest().await, before);
}

/// Each operation with each code that was seen of it.
fn seen() -> BTreeSet<(&'static str, &'static str)> {
    let asked = operations().into_iter().flat_map(|operation| operation.told.map(|told| (operation.name, told)));
    asked.chain(refusals().into_iter().map(|refusal| (refusal.name, refusal.code))).collect()
}
