//! Given rows, and people who ask in plain SQL: what a client of the platform's API could send.

use std::{pin::Pin, sync::Arc};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, IsolationLevel, RuntimeErr, SqlxError, SqlxPostgresError,
    Statement, TransactionTrait, TryGetable,
};
use serde_json::{Value, json};
use sparc::service::Sparc;
use testdb::{Database, Server};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// One server for the whole test program.
pub async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(|| async { Server::start().await.unwrap_or_else(|error| panic!("{error}")) }).await
}

/// A migrated database of a test's own.
#[derive(Clone)]
pub struct World {
    pub db: DatabaseConnection,
    pub sparc: Sparc,
    database: Arc<Database>,
}

/// What the database refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// SQLSTATE.
    pub code: String,
    /// Name of the constraint, where one said no.
    pub constraint: String,
    pub message: String,
}

/// Somebody who asks.
#[derive(Clone)]
pub struct Person {
    db: DatabaseConnection,
    /// Held, so that it is not dropped while somebody asks.
    _database: Arc<Database>,
    role: &'static str,
    pub id: Option<Uuid>,
}

/// A session with players seated.
pub struct GameSession {
    pub session: Uuid,
    pub adventure: Uuid,
    pub seer: Person,
    pub players: Vec<Player>,
}

pub struct Player {
    pub person: Person,
    pub id: Uuid,
    pub character: Uuid,
}

impl World {
    pub async fn new() -> Self {
        Self::on(server().await).await
    }

    /// On a server of the test's own.
    pub async fn on(server: &Server) -> Self {
        Self::with(server, 40).await
    }

    /// The same, with so many connections.
    pub async fn with(server: &Server, connections: u32) -> Self {
        let database = server.migrated().await.unwrap();
        let db = database.connect(connections).await.unwrap();
        Self::of(database, db)
    }

    /// In a database of the test's own making.
    pub fn of(database: Database, db: DatabaseConnection) -> Self {
        Self { sparc: Sparc::from_connection(db.clone()), db, database: Arc::new(database) }
    }

    /// The same, with connections that do not know what became of those before.
    pub async fn again(&self) -> Self {
        let db = self.database.connect(4).await.unwrap();
        Self { sparc: Sparc::from_connection(db.clone()), db, database: self.database.clone() }
    }

    /// The same database on a standby of its server, or what was one.
    pub async fn copied(&self, standby: &Server) -> Self {
        let database = standby.copy_of(&self.database).unwrap();
        let db = database.connect(4).await.unwrap();
        Self::of(database, db)
    }

    /// The same over one connection, and that connection.
    pub async fn alone(&self) -> (Self, DatabaseConnection) {
        let db = self.database.connect(1).await.unwrap();
        (Self { sparc: Sparc::from_connection(db.clone()), db: db.clone(), database: self.database.clone() }, db)
    }

    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// The owner of the schema, whom nothing binds but constraints and triggers.
    pub fn owner(&self) -> Person {
        self.person("", None)
    }

    /// The server's superuser, on a platform another one than the owner of the schema: for what no owner may do.
    pub async fn administrator(&self) -> Person {
        let db = sea_orm::Database::connect(self.database.administrator_url()).await.unwrap();
        Person { db, _database: self.database.clone(), role: "", id: None }
    }

    pub fn visitor(&self) -> Person {
        self.person("anon", None)
    }

    pub fn service(&self) -> Person {
        self.person("service_role", None)
    }

    pub fn user(&self, id: Uuid) -> Person {
        self.person("authenticated", Some(id))
    }

    fn person(&self, role: &'static str, id: Option<Uuid>) -> Person {
        Person { db: self.db.clone(), _database: self.database.clone(), role, id }
    }

    pub async fn account(&self) -> Uuid {
        let id = Uuid::new_v4();
        let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{id}', '{id}@example.org')");
        self.owner().exec(&sql).await.unwrap();
        id
    }

    /// So many accounts, as an array that SQL reads: what one account may hold is limited.
    pub async fn accounts(&self, count: usize) -> String {
        let sql = format!(
            "WITH made AS (INSERT INTO auth.users (id) SELECT gen_random_uuid() FROM generate_series(1, {count}) RETURNING id)
             SELECT array_agg(id)::text FROM made"
        );
        self.owner().value(&sql).await.unwrap()
    }

    pub async fn somebody(&self) -> Person {
        self.user(self.account().await)
    }

    pub async fn character(&self, user: Uuid) -> Uuid {
        let id = Uuid::new_v4();
        self.owner().exec(&insert_character(id, user)).await.unwrap();
        id
    }

    /// A published adventure.
    pub async fn adventure(&self, creator: Uuid) -> Uuid {
        let sql = format!(
            "INSERT INTO adventures (creator_id, name, status, is_valid)
             VALUES ('{creator}', 'The Drowned Ford', 'published', true) RETURNING id"
        );
        self.owner().value(&sql).await.unwrap()
    }

    pub async fn draft(&self, creator: Uuid) -> Uuid {
        let sql = format!("INSERT INTO adventures (creator_id, name) VALUES ('{creator}', 'A draft') RETURNING id");
        self.owner().value(&sql).await.unwrap()
    }

    /// A session with so many players seated, of four; private unless `set` says otherwise.
    pub async fn session(&self, players: usize) -> GameSession {
        let seer = self.somebody().await;
        let adventure = self.adventure(seer.id.unwrap()).await;
        let sql = format!(
            "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}') RETURNING id",
            seer.id.unwrap()
        );
        let session = self.owner().value(&sql).await.unwrap();
        let mut game = GameSession { session, adventure, seer, players: Vec::new() };
        for _ in 0..players {
            let player = self.player().await;
            self.owner().exec(&seat(session, player.id, player.character)).await.unwrap();
            game.players.push(player);
        }
        game
    }

    /// The same, under way.
    pub async fn active_session(&self, players: usize) -> GameSession {
        let game = self.session(players).await;
        self.set(&game, "status = 'active'").await;
        game
    }

    /// Somebody with a character.
    pub async fn player(&self) -> Player {
        let id = self.account().await;
        Player { person: self.user(id), id, character: self.character(id).await }
    }

    /// Changes a session as its owner.
    pub async fn set(&self, game: &GameSession, what: &str) {
        let sql = format!("UPDATE sessions SET {what} WHERE id = '{}'", game.session);
        assert_eq!(self.owner().exec(&sql).await.unwrap(), 1);
    }

    /// A roll of that outcome by a character, so many seconds ago.
    pub async fn roll(&self, session: Uuid, character: Uuid, results: &str, difficulty: i32, seconds_ago: i32) -> Uuid {
        let sql = format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, results, created_at)
             VALUES ('{session}', '{character}', 'might', {difficulty}, 'attack', '{results}',
                     now() - INTERVAL '{seconds_ago} seconds')
             RETURNING id"
        );
        self.owner().value(&sql).await.unwrap()
    }
}

impl Person {
    /// Runs a statement in a transaction of its own; rows touched.
    pub async fn exec(&self, sql: &str) -> Result<u64, Refused> {
        let transaction = self.begin().await;
        let done = transaction.execute_unprepared(sql).await.map_err(refused)?;
        transaction.commit().await.map_err(refused)?;
        Ok(done.rows_affected())
    }

    /// The first column of the first row.
    pub async fn value<T: TryGetable>(&self, sql: &str) -> Result<T, Refused> {
        let transaction = self.begin().await;
        let row = transaction
            .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
            .await
            .map_err(refused)?
            .unwrap_or_else(|| panic!("no row: {sql}"));
        transaction.commit().await.map_err(refused)?;
        Ok(row.try_get_by_index(0).unwrap())
    }

    /// The first column of each row.
    pub async fn values<T: TryGetable>(&self, sql: &str) -> Result<Vec<T>, Refused> {
        let transaction = self.begin().await;
        let rows =
            transaction.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.map_err(refused)?;
        transaction.commit().await.map_err(refused)?;
        Ok(rows.into_iter().map(|row| row.try_get_by_index(0).unwrap()).collect())
    }

    pub async fn count(&self, from: &str) -> i64 {
        self.value(&format!("SELECT count(*) FROM {from}")).await.unwrap()
    }

    /// Waits until so many others in this database wait for a lock.
    pub async fn until_waiting(&self, others: i64) {
        let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..400 {
            if self.count(waiting).await >= others {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        panic!("nobody waits");
    }

    /// Waits until no connection in this database has a transaction open that nothing is done in: what was dropped is rolled back
    /// by a task, before its connection goes back to the pool.
    pub async fn until_at_rest(&self) {
        let open =
            "pg_stat_activity WHERE datname = current_database() AND usename = current_user AND client_port IS NOT NULL
                      AND application_name IN ('', 'sparc') AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'";
        for _ in 0..200 {
            if self.count(open).await == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("a transaction stays open");
    }

    /// A transaction in which this person's statements run.
    pub async fn begin(&self) -> sea_orm::DatabaseTransaction {
        self.begin_at(IsolationLevel::ReadCommitted).await
    }

    /// The same, seeing what was there when it began and nothing that came later.
    pub async fn begin_with_snapshot(&self) -> sea_orm::DatabaseTransaction {
        let transaction = self.begin_at(IsolationLevel::RepeatableRead).await;
        transaction.execute_unprepared("SELECT").await.unwrap();
        transaction
    }

    async fn begin_at(&self, level: IsolationLevel) -> sea_orm::DatabaseTransaction {
        let transaction = self.db.begin_with_config(Some(level), None).await.unwrap();
        if !self.role.is_empty() {
            let claims = json!({ "role": self.role, "sub": self.id });
            let sql = format!("SET LOCAL ROLE {}; SET LOCAL request.jwt.claims = '{claims}'", self.role);
            transaction.execute_unprepared(&sql).await.unwrap();
        }
        transaction
    }

    pub fn uuid(&self) -> Uuid {
        self.id.unwrap()
    }
}

impl Refused {
    /// Row security or a privilege.
    pub fn is_forbidden(&self) -> bool {
        self.code == "42501"
    }

    pub fn is(&self, code: &str, constraint: &str) -> bool {
        self.code == code && self.constraint == constraint
    }
}

pub fn refused(error: DbErr) -> Refused {
    let inner = match &error {
        DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner)) => inner,
        other => panic!("not a refusal: {other}"),
    };
    let SqlxError::Database(said) = &**inner else { panic!("not a refusal: {inner}") };
    let said = said.downcast_ref::<SqlxPostgresError>();
    Refused {
        code: said.code().to_owned(),
        constraint: said.constraint().unwrap_or_default().to_owned(),
        message: said.message().to_owned(),
    }
}

pub fn insert_character(id: Uuid, user: Uuid) -> String {
    format!(
        "INSERT INTO characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
         VALUES ('{id}', '{user}', 'Hero {}', 'warrior', 5, 3, 2, 2, '{{}}')",
        &id.to_string()[..8]
    )
}

pub fn seat(session: Uuid, user: Uuid, character: Uuid) -> String {
    format!(
        "INSERT INTO session_players (session_id, user_id, character_id) VALUES ('{session}', '{user}', '{character}')"
    )
}

/// A check of might by a character against 10.
pub fn roll(session: Uuid, character: Uuid) -> String {
    format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
         VALUES ('{session}', '{character}', 'might', 10, 'attribute_check')"
    )
}

pub fn heroic_save(session: Uuid, character: Uuid, original: Uuid) -> String {
    format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
         VALUES ('{session}', '{character}', 'might', 10, 'heroic_save', '{original}')"
    )
}

/// What one of several at once does.
pub type Asking<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Starts all at once, behind a barrier, and gives each outcome.
pub async fn at_once<T, F>(tasks: Vec<F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(tokio::sync::Barrier::new(tasks.len()));
    let running: Vec<_> = tasks
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
    for task in running {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

/// A row as JSON.
pub async fn row(person: &Person, sql: &str) -> Value {
    person.value(&format!("SELECT to_jsonb(answer) FROM ({sql}) AS answer")).await.unwrap()
}
