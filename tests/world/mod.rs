//! Test fixtures: a migrated database per test, rows of the game, and callers who run plain SQL as a visitor, a user,
//! the service, the owner or a superuser.

mod sql_caller;

use std::{pin::Pin, sync::Arc};

use sea_orm::DatabaseConnection;
use serde_json::Value;
use sparc::service::{Error, JoinCode, Sparc};
use testdb::{Database, Server};
use tokio::sync::OnceCell;
use uuid::Uuid;

pub use sql_caller::{SqlCaller, SqlError, into_sql_error};

/// Returns whether `SPARC_PLATFORM` is set, as by `.ci/platform`: the databases of [`server`] are then laid out as on
/// Supabase, unless `DATABASE_URL` is set.
pub fn is_platform_layout_requested() -> bool {
    std::env::var_os("SPARC_PLATFORM").is_some_and(|value| !value.is_empty())
}

/// Returns the server that the tests of this test program share (some also start their own); the first call opens it.
pub async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(|| async { Server::open().await.unwrap_or_else(|error| panic!("{error}")) }).await
}

/// A migrated database that one test has to itself.
#[derive(Clone)]
pub struct World {
    /// The pool of connections. They log in as the owner, except those of [`World::with_users_login`].
    pub pool: DatabaseConnection,
    /// A handle of the crate `service`, over the same pool.
    pub sparc: Sparc,
    database: Arc<Database>,
}

/// A session, its adventure, its Seer and its seated players.
pub struct GameSession {
    pub session_id: Uuid,
    pub adventure_id: Uuid,
    pub seer: SqlCaller,
    pub players: Vec<Player>,
}

/// A user with a character.
pub struct Player {
    pub caller: SqlCaller,
    pub user_id: Uuid,
    pub character_id: Uuid,
}

impl World {
    /// Creates a migrated database on the shared server.
    pub async fn new() -> Self {
        Self::new_on(server().await).await
    }

    /// Creates a migrated database on the given server, with up to 40 connections.
    pub async fn new_on(server: &Server) -> Self {
        Self::new_with_connections(server, 40).await
    }

    /// Creates a migrated database on the given server, with up to `max_connections` connections.
    pub async fn new_with_connections(server: &Server, max_connections: u32) -> Self {
        let database = server.create_migrated().await.unwrap();
        let pool = database.connect(max_connections).await.unwrap();
        Self::from_database(database, pool)
    }

    /// Wraps a database that the test has created, and a pool to it.
    pub fn from_database(database: Database, pool: DatabaseConnection) -> Self {
        Self { sparc: Sparc::from_connection(pool.clone()), pool, database: Arc::new(database) }
    }

    /// Returns the same database over a new pool, whose connections have nothing cached.
    pub async fn with_new_pool(&self) -> Self {
        let pool = self.database.connect(4).await.unwrap();
        Self { sparc: Sparc::from_connection(pool.clone()), pool, database: self.database.clone() }
    }

    /// Returns the same database over a new login for users' statements: a member of `anon` and `authenticated` only.
    /// Unlike the login that the guide recommends, it inherits their privileges, so it can run statements as itself.
    pub async fn with_users_login(&self) -> Self {
        let login = format!("l{}", Uuid::new_v4().simple());
        let sql = format!("CREATE ROLE {login} LOGIN INHERIT PASSWORD 'pw'; GRANT anon, authenticated TO {login}");
        self.owner().execute(&sql).await.unwrap();
        let (_, address) = self.url().rsplit_once('@').unwrap();
        let pool = sea_orm::Database::connect(format!("postgres://{login}:pw@{address}")).await.unwrap();
        Self { sparc: Sparc::from_connection(pool.clone()), pool, database: self.database.clone() }
    }

    /// Returns the same database on a standby of its server.
    pub async fn on_standby(&self, standby: &Server) -> Self {
        let database = standby.replica_of(&self.database).unwrap();
        let pool = database.connect(4).await.unwrap();
        Self::from_database(database, pool)
    }

    /// Returns the same database over a pool of one connection.
    pub async fn with_single_connection(&self) -> Self {
        let pool = self.database.connect(1).await.unwrap();
        Self { sparc: Sparc::from_connection(pool.clone()), pool, database: self.database.clone() }
    }

    /// Returns the connection URL, with the owner's login.
    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// Returns a caller who stays in the role that logged in: the schema's owner, whom neither privileges nor row
    /// security restrict, only constraints and triggers. (On a [`World::with_users_login`], that role is the users'
    /// login.)
    pub fn owner(&self) -> SqlCaller {
        self.caller("", None)
    }

    /// Returns a caller who is a superuser, for statements that the owner may not run: on Supabase, and on a database
    /// laid out like it, the schema's owner is not a superuser.
    pub async fn superuser(&self) -> SqlCaller {
        let db = sea_orm::Database::connect(self.database.superuser_url()).await.unwrap();
        SqlCaller { db, _database: self.database.clone(), role: "", id: None }
    }

    /// Returns a caller with role `anon`.
    pub fn visitor(&self) -> SqlCaller {
        self.caller("anon", None)
    }

    /// Returns a caller with role `service_role`.
    pub fn service(&self) -> SqlCaller {
        self.caller("service_role", None)
    }

    /// Returns a caller with role `authenticated` and the claims of the given user.
    pub fn user(&self, id: Uuid) -> SqlCaller {
        self.caller("authenticated", Some(id))
    }

    fn caller(&self, role: &'static str, id: Option<Uuid>) -> SqlCaller {
        SqlCaller { db: self.pool.clone(), _database: self.database.clone(), role, id }
    }

    /// Creates an account and returns its id.
    pub async fn new_account(&self) -> Uuid {
        let id = Uuid::new_v4();
        let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{id}', '{id}@example.org')");
        self.owner().execute(&sql).await.unwrap();
        id
    }

    /// Creates `count` accounts and returns their ids as the text of an SQL array literal, without its quotes, for
    /// tests that need more rows than a single account may have.
    pub async fn new_account_ids_literal(&self, count: usize) -> String {
        let sql = format!(
            "WITH created AS (
               INSERT INTO auth.users (id) SELECT gen_random_uuid() FROM generate_series(1, {count}) RETURNING id
             )
             SELECT array_agg(id)::text FROM created"
        );
        self.owner().fetch_value(&sql).await.unwrap()
    }

    /// Creates an account and returns a caller with the claims of its user.
    pub async fn new_user(&self) -> SqlCaller {
        self.user(self.new_account().await)
    }

    /// Creates a character and returns its id.
    pub async fn new_character(&self, user_id: Uuid) -> Uuid {
        let id = Uuid::new_v4();
        self.owner().execute(&insert_character_sql(id, user_id)).await.unwrap();
        id
    }

    /// Creates a published adventure and returns its id.
    pub async fn new_adventure(&self, creator_id: Uuid) -> Uuid {
        let sql = format!(
            "INSERT INTO adventures (creator_id, name, status, is_valid)
             VALUES ('{creator_id}', 'The Drowned Ford', 'published', true) RETURNING id"
        );
        self.owner().fetch_value(&sql).await.unwrap()
    }

    /// Creates a draft adventure and returns its id.
    pub async fn new_draft_adventure(&self, creator_id: Uuid) -> Uuid {
        let sql = format!("INSERT INTO adventures (creator_id, name) VALUES ('{creator_id}', 'A draft') RETURNING id");
        self.owner().fetch_value(&sql).await.unwrap()
    }

    /// Creates a private, waiting session with four seats, of which `player_count` new players take one each. Use
    /// [`World::update_session`] to change its columns.
    pub async fn new_session(&self, player_count: usize) -> GameSession {
        let seer = self.new_user().await;
        let adventure_id = self.new_adventure(seer.id.unwrap()).await;
        let sql = format!(
            "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure_id}') RETURNING id",
            seer.id.unwrap()
        );
        let session_id = self.owner().fetch_value(&sql).await.unwrap();
        let mut game = GameSession { session_id, adventure_id, seer, players: Vec::new() };
        for _ in 0..player_count {
            let player = self.new_player().await;
            self.owner().execute(&insert_seat_sql(session_id, player.user_id, player.character_id)).await.unwrap();
            game.players.push(player);
        }
        game
    }

    /// Creates a session as [`World::new_session`] does, and starts it. `player_count` must be at least 1.
    pub async fn new_active_session(&self, player_count: usize) -> GameSession {
        let game = self.new_session(player_count).await;
        self.update_session(&game, "status = 'active'").await;
        game
    }

    /// Returns the join code of a session.
    pub async fn join_code(&self, session_id: Uuid) -> JoinCode {
        let sql = format!("SELECT code::text FROM sessions WHERE id = '{session_id}'");
        self.owner().fetch_value::<String>(&sql).await.unwrap().parse().unwrap()
    }

    /// Creates an account with a character.
    pub async fn new_player(&self) -> Player {
        let id = self.new_account().await;
        Player { caller: self.user(id), user_id: id, character_id: self.new_character(id).await }
    }

    /// Updates columns of a session as the schema's owner.
    pub async fn update_session(&self, game: &GameSession, assignments: &str) {
        let sql = format!("UPDATE sessions SET {assignments} WHERE id = '{}'", game.session_id);
        assert_eq!(self.owner().execute(&sql).await.unwrap(), 1);
    }

    /// Inserts an attack roll with the given dice, and returns its id. `results_literal` is an array literal such as
    /// `{1,2}`. A negative `seconds_ago` puts the roll in the future.
    pub async fn new_attack_roll(
        &self,
        session_id: Uuid,
        character_id: Uuid,
        results_literal: &str,
        difficulty: i32,
        seconds_ago: i32,
    ) -> Uuid {
        let sql = format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, results, created_at)
             VALUES ('{session_id}', '{character_id}', 'might', {difficulty}, 'attack', '{results_literal}',
                     now() - INTERVAL '{seconds_ago} seconds')
             RETURNING id"
        );
        self.owner().fetch_value(&sql).await.unwrap()
    }

    /// Inserts a failed attack roll, and returns its id. The roll is dated an hour in the future, so that a heroic save
    /// of it is never too late.
    pub async fn new_failed_roll(&self, session_id: Uuid, character_id: Uuid) -> Uuid {
        self.new_attack_roll(session_id, character_id, "{1,2}", 10, -3600).await
    }
}

/// Returns an INSERT of a new character: a warrior with might 5, grace 3, wit 2 and heart 2.
pub fn insert_character_sql(id: Uuid, user_id: Uuid) -> String {
    format!(
        "INSERT INTO characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
         VALUES ('{id}', '{user_id}', 'Hero {}', 'warrior', 5, 3, 2, 2, '{{}}')",
        &id.to_string()[..8]
    )
}

/// Returns an INSERT of a new seat.
pub fn insert_seat_sql(session_id: Uuid, user_id: Uuid, character_id: Uuid) -> String {
    format!(
        "INSERT INTO session_players (session_id, user_id, character_id) \
         VALUES ('{session_id}', '{user_id}', '{character_id}')"
    )
}

/// Returns an INSERT of a roll: a character's attribute check of might against difficulty 10.
pub fn insert_attribute_check_sql(session_id: Uuid, character_id: Uuid) -> String {
    format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
         VALUES ('{session_id}', '{character_id}', 'might', 10, 'attribute_check')"
    )
}

/// Returns an INSERT of a heroic save that repeats the roll with the id `original_roll_id`.
pub fn insert_heroic_save_sql(session_id: Uuid, character_id: Uuid, original_roll_id: Uuid) -> String {
    format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
         VALUES ('{session_id}', '{character_id}', 'might', 10, 'heroic_save', '{original_roll_id}')"
    )
}

/// Returns `done`, or the code of the error.
pub fn outcome_code<T>(outcome: Result<T, Error>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "done")
}

/// A task for [`run_together`], boxed so that tasks of different types fit in one vector.
pub type BoxedTask<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs all tasks concurrently and returns their outcomes in the order of the tasks. A barrier makes them all start at
/// the same moment.
pub async fn run_together<T, F>(tasks: Vec<F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(tokio::sync::Barrier::new(tasks.len()));
    let handles: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let barrier = barrier.clone();
            tokio::spawn(async move {
                barrier.wait().await;
                task.await
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for handle in handles {
        outcomes.push(handle.await.unwrap());
    }
    outcomes
}

/// Returns the first row of a query as JSON.
pub async fn fetch_row_as_json(caller: &SqlCaller, sql: &str) -> Value {
    caller.fetch_value(&format!("SELECT to_jsonb(answer) FROM ({sql}) AS answer")).await.unwrap()
}
