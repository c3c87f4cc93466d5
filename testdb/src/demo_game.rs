//! A game night in the middle, for the examples of the documentation: the least that an operation needs to be shown.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::{Database, Error, Server};

/// A migrated database with a Seer, a player, and a table that plays.
#[derive(Debug)]
pub struct DemoGame {
    database: Database,
    /// Who runs the table.
    pub seer: Uuid,
    /// Who sits there.
    pub player: Uuid,
    /// The player's character, a warrior of might 5.
    pub hero: Uuid,
    /// What is played; published.
    pub adventure: Uuid,
    /// The table.
    pub session: Uuid,
}

impl DemoGame {
    /// Lays it out on a server of its own, or the one of `DATABASE_URL`.
    ///
    /// # Errors
    ///
    /// As [`Server::start`] and [`Server::migrated`].
    pub async fn start() -> Result<Self, Error> {
        Self::on(&Server::start().await?).await
    }

    /// Lays it out on that server.
    ///
    /// # Errors
    ///
    /// As [`Server::migrated`].
    pub async fn on(server: &Server) -> Result<Self, Error> {
        let database = server.migrated().await?;
        let [seer, player, hero, adventure, session] = [(); 5].map(|()| Uuid::new_v4());
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

    /// The same database on a standby of its server.
    ///
    /// # Errors
    ///
    /// The standby is not ours.
    pub fn copy_on(&self, standby: &Server) -> Result<Database, Error> {
        standby.copy_of(&self.database)
    }

    /// Address of the database.
    #[must_use]
    pub fn url(&self) -> &str {
        self.database.url()
    }
}
