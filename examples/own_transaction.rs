//! Several operations and your own statements in one transaction, which commits or rolls back all of them.
//!
//! `cargo run --example own_transaction` runs on a new database. If `DATABASE_URL` is set, the program migrates the
//! database in that URL, runs on it, and leaves its rows there. To run it with the two logins that `docs/guide.md`
//! recommends, also set `USERS_DATABASE_URL` and `SERVICE_DATABASE_URL`: the URLs of the same database with the login
//! for users and the login for the service.

use std::env;

use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, TransactionTrait};
use sparc::entity::{characters, session_players};
use sparc::service::{
    Error, Operations, Options, Sparc, adventures::NewAdventure, characters::NewCharacter, sessions::NewSession,
    users::NewAccount,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let database = testdb::Database::open_and_migrate().await?;
    let sparc = connect(database.url()).await?;
    let ada_id = sparc.as_service().users().sign_up(NewAccount::default()).await?.id;
    let ada = sparc.as_user(ada_id);

    // A Seer who also plays: adventure, character, session and seat are created together.
    let tx = ada.begin().await?;
    let adventure = NewAdventure { name: "The Drowned Ford".into(), ..Default::default() };
    let adventure = tx.adventures().create(adventure).await?;
    let character = tx.characters().create(NewCharacter { name: "Brunhild".into(), ..Default::default() }).await?;
    let session = tx.sessions().create(NewSession { adventure_id: adventure.id, ..Default::default() }).await?;
    tx.sessions().join(&session.code.parse()?, character.id).await?;
    // Your own statement in the same transaction: it runs as the same user, and sees what the operations did.
    let seats =
        session_players::Entity::find().filter(session_players::Column::SessionId.eq(session.id)).all(&tx).await?;
    println!("in the transaction: {} seat taken by {}", seats.len(), character.name);
    tx.rollback().await?;
    println!(
        "after the rollback: {} characters, {} sessions",
        living_character_count(&ada).await?,
        live_session_count(&ada).await?
    );

    // SeaORM's closure form: an error rolls the transaction back, and every statement runs as the same user. The second
    // `create` fails, because no two characters of a user may have the same name.
    let outcome = ada
        .transaction::<_, (), Error>(|tx| {
            Box::pin(async move {
                tx.characters().create(NewCharacter { name: "Nim".into(), ..Default::default() }).await?;
                tx.characters().create(NewCharacter { name: "Nim".into(), ..Default::default() }).await?;
                Ok(())
            })
        })
        .await;
    println!("the same name twice: {}", outcome.map_or_else(|error| error.to_string(), |()| "done".into()));
    println!("nothing was created: {} characters", living_character_count(&ada).await?);

    // With a savepoint, only what was done since the savepoint is rolled back. The update below is refused, because
    // users cannot change the level of a character.
    let tx = ada.begin().await?;
    let nim = tx.characters().create(NewCharacter { name: "Nim".into(), ..Default::default() }).await?;
    let savepoint = tx.begin().await?;
    let change = characters::ActiveModel { level: Set(10), ..Default::default() };
    let outcome = characters::Entity::update_many().set(change).exec(&savepoint).await.map_err(Error::from);
    println!("setting one's own level: {}", outcome.map_or_else(|error| error.to_string(), |_| "done".into()));
    savepoint.rollback().await?;
    tx.characters().rename(nim.id, "Quick Nim").await?;
    tx.commit().await?;
    println!("committed: {}", ada.characters().get(nim.id).await?.name);
    Ok(sparc.close().await?)
}

/// Returns the number of the user's living characters (those that are not retired).
async fn living_character_count(user: &sparc::service::IdentityConnection) -> Result<usize, Error> {
    Ok(user.characters().living().await?.len())
}

/// Returns the number of live sessions (those that have not ended) that the user runs or has a seat in. One page
/// contains all of them, because an account runs at most twenty live sessions, and has at most twenty seats in live
/// sessions.
async fn live_session_count(user: &sparc::service::IdentityConnection) -> Result<usize, Error> {
    Ok(user.sessions().my_live(None).await?.items.len())
}

/// Connects with two logins if both `USERS_DATABASE_URL` and `SERVICE_DATABASE_URL` are set; if not, connects with the
/// login of `fallback_url`, which then serves for users and for the service alike. In production, use two logins: if
/// the login for users is not a member of `service_role`, no SQL that runs for a user can assume that role.
async fn connect(fallback_url: &str) -> Result<Sparc, Error> {
    match (env::var("USERS_DATABASE_URL"), env::var("SERVICE_DATABASE_URL")) {
        (Ok(users_url), Ok(service_url)) => {
            Sparc::connect_with(&users_url, Options::default().service_url(service_url)).await
        }
        _ => Sparc::connect(fallback_url).await,
    }
}
