//! Your own SeaORM queries on the connection of a user, under row-level security.
//!
//! `cargo run --example own_query` runs on a new database. If `DATABASE_URL` is set, the program migrates the database
//! in that URL, runs on it, and leaves its rows there. To run it with the two logins that `docs/guide.md` recommends,
//! also set `USERS_DATABASE_URL` and `SERVICE_DATABASE_URL`: the URLs of the same database with the login for users and
//! the login for the service.

use std::env;

use futures_util::TryStreamExt;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, LoaderTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, Statement,
};
use sparc::entity::{characters, session_players, sessions, users};
use sparc::service::{
    Error, IdentityConnection, Operations, Options, Sparc,
    adventures::NewAdventure,
    characters::NewCharacter,
    sessions::NewSession,
    users::{NewAccount, Profile},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let database = testdb::Database::open_and_migrate().await?;
    let sparc = connect(database.url()).await?;
    let (ada, ben) = seat_two_players(&sparc).await?;

    // A query returns only the rows that its user may see.
    for (name, user) in [("Ada", &ada), ("Ben", &ben)] {
        let visible_characters = characters::Entity::find().order_by_asc(characters::Column::Name).all(user).await?;
        println!("{name} sees {} character: {}", visible_characters.len(), visible_characters[0].name);
    }

    // Loaders, counts and streams.
    let sessions = sessions::Entity::find().all(&ben).await?;
    let seats_by_session = sessions.load_many(session_players::Entity, &ben).await?;
    println!("Ben sees {} session with {} taken seats", sessions.len(), seats_by_session[0].len());
    println!("Ben sees {} seats in all", session_players::Entity::find().count(&ben).await?);
    let streamed_seats: Vec<_> = session_players::Entity::find().limit(10).stream(&ben).await?.try_collect().await?;
    println!("{} seats read from a stream", streamed_seats.len());

    // Users may read only some columns of the table `users`, so a query for all columns is refused. The error says what
    // to use instead.
    let outcome = users::Entity::find().all(&ada).await.map_err(Error::from);
    println!("{}", outcome.map_or_else(|error| error.to_string(), |_| "readable".into()));
    let profiles: Vec<Profile> = users::Entity::find().into_partial_model().all(&ada).await?;
    println!("{} profiles, without e-mail addresses", profiles.len());

    // Raw SQL with typed rows.
    #[derive(FromQueryResult)]
    struct BestWit {
        class: String,
        wit: i32,
    }
    let sql = "SELECT class::text, max(wit) AS wit FROM characters GROUP BY class";
    let best_wit = BestWit::find_by_statement(Statement::from_string(DbBackend::Postgres, sql)).one(&ada).await?;
    if let Some(BestWit { class, wit }) = best_wit {
        println!("Ada's best {class} has wit {wit}");
    }

    // A statement that changes the identity (the role or the claims that policies read) is refused.
    let outcome = ada.execute_unprepared("RESET ROLE").await.map_err(Error::from);
    println!("{}", outcome.map_or_else(|error| error.to_string(), |_| "the role was reset".into()));

    // An update does not reach the rows of other users.
    let update = characters::Entity::update_many()
        .col_expr(characters::Column::Name, sea_orm::sea_query::Expr::value("Mine now"))
        .filter(characters::Column::UserId.ne(ben.user_id()))
        .exec(&ben)
        .await?;
    println!("Ben changed {} of Ada's characters", update.rows_affected);
    Ok(sparc.close().await?)
}

/// Signs up two users, seats a character of each in one session, and returns the users' connections. The first user is
/// also the session's Seer.
async fn seat_two_players(sparc: &Sparc) -> Result<(IdentityConnection, IdentityConnection), Error> {
    let ada = sparc.as_user(sparc.as_service().users().sign_up(NewAccount::default()).await?.id);
    let ben = sparc.as_user(sparc.as_service().users().sign_up(NewAccount::default()).await?.id);
    let adventure = NewAdventure { name: "The Drowned Ford".into(), ..Default::default() };
    let adventure = ada.adventures().create(adventure).await?;
    let session = ada.sessions().create(NewSession { adventure_id: adventure.id, ..Default::default() }).await?;
    for (user, character_name) in [(&ada, "Brunhild"), (&ben, "Nim")] {
        let new_character = NewCharacter { name: character_name.into(), ..Default::default() };
        let character = user.characters().create(new_character).await?;
        user.sessions().join(&session.code.parse()?, character.id).await?;
    }
    Ok((ada, ben))
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
