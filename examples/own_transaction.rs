//! Several operations and statements of one's own, together: all, or nothing.
//!
//! `cargo run --example own_transaction`, on a database of its own; with `DATABASE_URL`, on yours, where its rows stay:
//! the address of the login that migrates, with those of the logins for users and for the service in `USERS_DATABASE_URL` and
//! `SERVICE_DATABASE_URL` (`docs/guide.md`).

use std::{env, error::Error as StdError};

use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, TransactionTrait};
use sparc::entity::{characters, session_players};
use sparc::service::{
    Error, Operations, Options, Sparc, adventures::NewAdventure, characters::NewCharacter, sessions::NewSession,
    users::NewAccount,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let database = testdb::Database::open_migrated().await?;
    let sparc = connect(database.url()).await?;
    let ada = sparc.as_service().users().sign_up(NewAccount::default()).await?.id;
    let ada = sparc.as_user(ada);

    // A Seer plays at the own table: adventure, character, table and seat come together.
    let tx = ada.begin().await?;
    let adventure = NewAdventure { name: "The Drowned Ford".into(), ..Default::default() };
    let adventure = tx.adventures().create(adventure).await?;
    let hero = tx.characters().create(NewCharacter { name: "Brunhild".into(), ..Default::default() }).await?;
    let table = tx.sessions().create(NewSession { adventure_id: adventure.id, ..Default::default() }).await?;
    tx.sessions().join(&table.code.parse()?, hero.id).await?;
    // A statement of one's own, between them: it sees what they did, as the same user.
    let seats =
        session_players::Entity::find().filter(session_players::Column::SessionId.eq(table.id)).all(&tx).await?;
    println!("inside: {} seat taken by {}", seats.len(), hero.name);
    tx.rollback().await?;
    println!("after the rollback: {} characters, {} tables", count(&ada).await?, tables(&ada).await?);

    // The same closure as SeaORM has it: an error rolls back, and the identity cannot be left behind.
    let outcome = ada
        .transaction::<_, (), Error>(|tx| {
            Box::pin(async move {
                tx.characters().create(NewCharacter { name: "Nim".into(), ..Default::default() }).await?;
                tx.characters().create(NewCharacter { name: "Nim".into(), ..Default::default() }).await?;
                Ok(())
            })
        })
        .await;
    println!("twice the same name: {}", outcome.map_or_else(|error| error.to_string(), |()| "done".into()));
    println!("and nothing is there: {} characters", count(&ada).await?);

    // What was refused can be undone alone, with a savepoint.
    let tx = ada.begin().await?;
    let nim = tx.characters().create(NewCharacter { name: "Nim".into(), ..Default::default() }).await?;
    let attempt = tx.begin().await?;
    let forged = characters::ActiveModel { level: Set(10), ..Default::default() };
    let forged = characters::Entity::update_many().set(forged).exec(&attempt).await.map_err(Error::from);
    println!("a level of one's own making: {}", forged.map_or_else(|error| error.to_string(), |_| "done".into()));
    attempt.rollback().await?;
    tx.characters().rename(nim.id, "Quick Nim").await?;
    tx.commit().await?;
    println!("committed: {}", ada.characters().get(nim.id).await?.name);
    Ok(sparc.close().await?)
}

async fn count(ada: &sparc::service::IdentityConnection) -> Result<usize, Error> {
    Ok(ada.characters().list().await?.len())
}

async fn tables(ada: &sparc::service::IdentityConnection) -> Result<usize, Error> {
    Ok(ada.sessions().mine(None).await?.items.len())
}

/// On a host, users have a login that is no member of `service_role`: no text of theirs can become the server.
async fn connect(url: &str) -> Result<Sparc, Error> {
    match (env::var("USERS_DATABASE_URL"), env::var("SERVICE_DATABASE_URL")) {
        (Ok(users), Ok(service)) => Sparc::connect_with(&users, Options::default().service_url(service)).await,
        _ => Sparc::connect(url).await,
    }
}
