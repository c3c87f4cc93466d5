//! Queries of one's own, as a user: the whole of SeaORM under row security.
//!
//! `cargo run --example own_query`, on a database of its own; with `DATABASE_URL`, on yours, where its rows stay:
//! the address of the login that migrates, with those of the logins for users and for the service in `USERS_DATABASE_URL` and
//! `SERVICE_DATABASE_URL` (`docs/guide.md`).

use std::{env, error::Error as StdError};

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
async fn main() -> Result<(), Box<dyn StdError>> {
    let database = testdb::Database::open_migrated().await?;
    let sparc = connect(database.url()).await?;
    let (ada, ben) = two_at_a_table(&sparc).await?;

    // A find sees what its user may see, whatever it asks for.
    for (name, who) in [("Ada", &ada), ("Ben", &ben)] {
        let mine = characters::Entity::find().order_by_asc(characters::Column::Name).all(who).await?;
        println!("{name} sees {} of everybody's characters: {}", mine.len(), mine[0].name);
    }

    // Loaders, counts and streams.
    let tables = sessions::Entity::find().all(&ben).await?;
    let seats = tables.load_many(session_players::Entity, &ben).await?;
    println!("Ben's {} table has {} seats taken", tables.len(), seats[0].len());
    println!("{} seats in all", session_players::Entity::find().count(&ben).await?);
    let streamed: Vec<_> = session_players::Entity::find().limit(10).stream(&ben).await?.try_collect().await?;
    println!("{} came as a stream", streamed.len());

    // A column that is closed to users: the error says what to use instead.
    let closed = users::Entity::find().all(&ada).await.map_err(Error::from);
    println!("{}", closed.map_or_else(|error| error.to_string(), |_| "open".into()));
    let profiles: Vec<Profile> = users::Entity::find().into_partial_model().all(&ada).await?;
    println!("{} profiles, without their addresses", profiles.len());

    // Plain SQL, typed.
    #[derive(FromQueryResult)]
    struct Class {
        class: String,
        wit: i32,
    }
    let sql = "SELECT class::text, max(wit) AS wit FROM characters GROUP BY class";
    let class = Class::find_by_statement(Statement::from_string(DbBackend::Postgres, sql)).one(&ada).await?;
    if let Some(Class { class, wit }) = class {
        println!("Ada's best {class} has wit {wit}");
    }

    // Who asks cannot be changed half way.
    let escape = ada.execute_unprepared("RESET ROLE").await.map_err(Error::from);
    println!("{}", escape.map_or_else(|error| error.to_string(), |_| "escaped".into()));
    let stolen = characters::Entity::update_many()
        .col_expr(characters::Column::Name, sea_orm::sea_query::Expr::value("Mine now"))
        .filter(characters::Column::UserId.ne(ben.user_id()))
        .exec(&ben)
        .await?;
    println!("Ben changed {} of Ada's characters", stolen.rows_affected);
    Ok(sparc.close().await?)
}

async fn two_at_a_table(sparc: &Sparc) -> Result<(IdentityConnection, IdentityConnection), Error> {
    let ada = sparc.as_user(sparc.as_service().users().sign_up(NewAccount::default()).await?.id);
    let ben = sparc.as_user(sparc.as_service().users().sign_up(NewAccount::default()).await?.id);
    let adventure = NewAdventure { name: "The Drowned Ford".into(), ..Default::default() };
    let adventure = ada.adventures().create(adventure).await?;
    let table = ada.sessions().create(NewSession { adventure_id: adventure.id, ..Default::default() }).await?;
    for (who, name) in [(&ada, "Brunhild"), (&ben, "Nim")] {
        let hero = who.characters().create(NewCharacter { name: name.into(), ..Default::default() }).await?;
        who.sessions().join(&table.code.parse()?, hero.id).await?;
    }
    Ok((ada, ben))
}

/// On a host, users have a login that is no member of `service_role`: no text of theirs can become the server.
async fn connect(url: &str) -> Result<Sparc, Error> {
    match (env::var("USERS_DATABASE_URL"), env::var("SERVICE_DATABASE_URL")) {
        (Ok(users), Ok(service)) => Sparc::connect_with(&users, Options::default().service_url(service)).await,
        _ => Sparc::connect(url).await,
    }
}
