//! A game in progress, for examples and for other programs that need one.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::{database::Database, error::Error, server::Server};

/// A migrated database with a Seer (a game master), a player, and an active session. Each public field is an id.
#[derive(Debug)]
pub struct DemoGame {
    database: Database,
    /// The Seer of the session.
    pub seer: Uuid,
    /// The player in the session.
    pub player: Uuid,
    /// The player's character, a warrior with might 5.
    pub hero: Uuid,
    /// The published adventure of the session.
    pub adventure: Uuid,
    /// The active session.
    pub session: Uuid,
}

impl DemoGame {
    /// Creates the game on the server of `DATABASE_URL` if the variable is set, or else on a private server.
    ///
    /// # Errors
    ///
    /// As for [`Server::open`] and [`Server::create_migrated`].
    pub async fn start() -> Result<Self, Error> {
        Self::start_on(&Server::open().await?).await
    }

    /// Creates the game on the given server.
    ///
    /// # Errors
    ///
    /// As for [`Server::create_migrated`].
    pub async fn start_on(server: &Server) -> Result<Self, Error> {
        let database = server.create_migrated().await?;
        let [seer, player, hero, adventure, session] = [(); 5].map(|()| Uuid::new_v4());
        // A trigger on `auth.users` creates each account's profile, its row in `users`.
        let sql = format!(
            "INSERT INTO auth.users (id, raw_user_meta_data)
             VALUES ('{seer}', '{{\"name\": \"Morgan\"}}'), ('{player}', '{{\"name\": \"Ada\"}}');
             INSERT INTO characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
             VALUES ('{hero}', '{player}', 'Hild', 'warrior', 5, 3, 2, 2, '{{}}');
             INSERT INTO adventures (id, creator_id, name, status, is_valid)
             VALUES ('{adventure}', '{seer}', 'The Quiet Mill', 'published', true);
             INSERT INTO sessions (id, seer_id, adventure_id) VALUES ('{session}', '{seer}', '{adventure}');
             INSERT INTO session_players (session_id, user_id, character_id)
             VALUES ('{session}', '{player}', '{hero}');
             UPDATE sessions SET status = 'active' WHERE id = '{session}'"
        );
        let connection = database.connect(1).await?;
        connection.execute_unprepared(&sql).await?;
        connection.close().await?;
        Ok(Self { database, seer, player, hero, adventure, session })
    }

    /// Returns the copy of the game's database on `standby`, which must be a standby of the game's server.
    ///
    /// # Errors
    ///
    /// The standby is not a private server.
    pub fn replica_on(&self, standby: &Server) -> Result<Database, Error> {
        standby.replica_of(&self.database)
    }

    /// Returns the URL of the database.
    #[must_use]
    pub fn url(&self) -> &str {
        self.database.url()
    }
}
