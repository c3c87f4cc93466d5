//! A `Sparc` handle with two logins (roles with which it connects): one that serves users, without membership in
//! `service_role`, and one for the service. Also: a login that is not a member of a role that it needs.

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use sparc::service::{
    Error, Operations, Options, Sparc,
    adventures::{AdventureContent, NewAdventure},
};

use crate::world::World;

/// Creates the two logins that README.md recommends ("Host it"), and connects with them.
async fn connect_with_two_logins(world: &World) -> Sparc {
    let suffix = uuid::Uuid::new_v4().simple();
    let sql = format!(
        "CREATE ROLE users_{suffix} LOGIN NOINHERIT PASSWORD 'pw'; GRANT anon, authenticated TO users_{suffix};
         CREATE ROLE service_{suffix} LOGIN NOINHERIT PASSWORD 'pw'; GRANT service_role TO service_{suffix}"
    );
    world.pool.execute_unprepared(&sql).await.unwrap();
    let (_, address) = world.url().rsplit_once('@').unwrap();
    let url = |login: &str| format!("postgres://{login}_{suffix}:pw@{address}");
    Sparc::connect_with(&url("users"), Options::default().service_url(url("service"))).await.unwrap()
}

#[tokio::test]
async fn raw_sql_of_a_user_cannot_switch_to_the_service_role() {
    let world = World::new().await;
    let sparc = connect_with_two_logins(&world).await;
    let ada = sparc.as_user(world.new_account().await);
    for statement in
        ["SET ROLE service_role", "SET LOCAL ROLE service_role", "SELECT set_config('role', 'service_role', true)"]
    {
        let outcome = ada.execute_unprepared(statement).await.map_err(Error::from);
        assert_error!(outcome, Error::NotAllowed { .. }, "{statement}");
    }
    let switch_role_in_do_block = "DO $$ BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'SET ROLE service_role'; END $$";
    let outcome = ada.execute_unprepared(switch_role_in_do_block).await.map_err(Error::from);
    assert_error!(outcome, Error::NotAllowed { .. });
    let select_role = Statement::from_string(DbBackend::Postgres, "SELECT current_user::text");
    let row = sparc.as_service().query_one_raw(select_role).await.unwrap().unwrap();
    assert_eq!(row.try_get_by_index::<String>(0).unwrap(), "service_role");
    assert!(sparc.as_service().maintenance().backlog().await.is_ok());
    assert!(ada.users().me().await.is_ok());
    sparc.close().await.unwrap();
}

#[tokio::test]
async fn an_adventure_is_validated_and_published_over_two_logins() {
    let world = World::new().await;
    let sparc = connect_with_two_logins(&world).await;
    let ada = sparc.as_user(world.new_account().await);
    let content = AdventureContent::single_scene("It rains.");
    let adventure = NewAdventure { name: "The Drowned Ford".into(), content, ..Default::default() };
    let draft = ada.adventures().create(adventure.clone()).await.unwrap();
    assert_eq!(ada.adventures().validate(draft.id).await.unwrap(), []);
    assert!(ada.adventures().publish(draft.id).await.unwrap().published_at.is_some());
    let invalid_draft =
        ada.adventures().create(NewAdventure { content: Default::default(), ..adventure }).await.unwrap();
    assert_error!(ada.adventures().publish(invalid_draft.id).await, Error::AdventureInvalid(_));
    // In a caller's transaction, validation is refused, because the service's login would not see what that transaction
    // has changed.
    let tx = ada.begin().await.unwrap();
    assert_error!(tx.adventures().validate(invalid_draft.id).await, Error::NotAllowed { .. });
    tx.rollback().await.unwrap();
    let stranger = sparc.as_user(world.new_account().await);
    assert_error!(stranger.adventures().validate(invalid_draft.id).await, Error::NotFound { .. });
}

/// `publish` validates the adventure first. A separate transaction, of the service's login, stores the result in the
/// adventure's row. At REPEATABLE READ, the first attempt of `publish` then fails, because the attempt's own
/// transaction has an older snapshot and updates the same row. The next attempt finds the result stored, and publishes
/// the adventure.
#[tokio::test]
async fn an_adventure_is_published_over_two_logins_at_repeatable_read() {
    let world = World::new().await;
    let database_name: String = world.owner().fetch_value("SELECT current_database()::text").await.unwrap();
    let set_level = format!("ALTER DATABASE {database_name} SET default_transaction_isolation = 'repeatable read'");
    world.superuser().await.execute(&set_level).await.unwrap();
    let sparc = connect_with_two_logins(&world).await;
    let ada = sparc.as_user(world.new_account().await);
    let content = AdventureContent::single_scene("It rains.");
    let adventure = NewAdventure { name: "The Drowned Ford".into(), content, ..Default::default() };
    let draft = ada.adventures().create(adventure).await.unwrap();
    assert!(ada.adventures().publish(draft.id).await.unwrap().published_at.is_some());
    sparc.close().await.unwrap();
}

#[tokio::test]
async fn a_login_that_is_not_a_member_of_a_role_gets_an_error_that_names_the_role() {
    let world = World::new().await;
    let login = format!("login_{}", uuid::Uuid::new_v4().simple());
    let sql = format!("CREATE ROLE {login} LOGIN NOINHERIT PASSWORD 'pw'; GRANT anon TO {login}");
    world.pool.execute_unprepared(&sql).await.unwrap();
    let (_, address) = world.url().rsplit_once('@').unwrap();
    let sparc = Sparc::connect(&format!("postgres://{login}:pw@{address}")).await.unwrap();
    let error = sparc.as_user(world.new_account().await).users().me().await.unwrap_err();
    assert!(matches!(&error, Error::Misconfigured { reason } if reason.contains("authenticated")), "{error:?}");
    assert!(!error.is_retryable());
}
