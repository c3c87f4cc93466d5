//! Accounts and profiles: who plays, and sign-up where there is no platform to do it.
//!
//! ```
//! use service::{Operations, Sparc, users::ProfileChanges};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let night = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(night.url()).await?;
//! # let id = night.player;
//! let ada = sparc.as_user(id);
//! let changes = ProfileChanges { bio: Some(Some("Plays on Tuesdays".into())), ..Default::default() };
//! let profile = ada.users().edit(changes).await?;
//! println!("{} has played {} games", profile.display_name, profile.games_played);
//! # Ok(())
//! # }
//! ```

use entity::users;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, DerivePartialModel, EntityTrait, FromQueryResult,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, Statement, prelude::DateTimeWithTimeZone,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::{
    Caller, Error,
    connection::UncheckedTransaction,
    operation::operation,
    rows::{self, set_if},
};

/// What everyone may read of an account (decision "Privacy and server-owned columns"): all of `users` but the address.
///
/// The address is closed to users, so `users::Entity::find()` is refused to them; this is the partial model that fits:
/// `users::Entity::find().into_partial_model::<Profile>()`.
#[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[sea_orm(entity = "users::Entity")]
#[non_exhaustive]
pub struct Profile {
    /// Account.
    pub id: Uuid,
    /// Name that others see.
    pub display_name: String,
    /// Picture.
    pub avatar_url: Option<String>,
    /// A few words.
    pub bio: Option<String>,
    /// Whether the service gave the badge.
    pub is_verified: bool,
    /// Sessions completed as a player.
    pub games_played: i32,
    /// Sessions completed as the Seer.
    pub games_run: i32,
    /// When the account was made.
    pub created_at: DateTimeWithTimeZone,
    /// When the profile last changed.
    pub updated_at: DateTimeWithTimeZone,
}

/// An account to be made in the stand-in for the platform.
#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NewAccount {
    /// Id to give it; drawn where none is given. The same id again gives the first account.
    pub id: Option<Uuid>,
    /// Address, if it has one. An address that another account holds leaves this one without:
    /// [`Users::is_email_taken`] tells before.
    pub email: Option<String>,
    /// Name that others see; the mailbox where none is given.
    pub display_name: Option<String>,
}

/// The personal data in it is nobody's business.
impl std::fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What to change of the own profile. `None` leaves a field as it is; `Some(None)` empties it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ProfileChanges {
    /// Name that others see.
    #[serde(deserialize_with = "crate::values::given", skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Picture.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<Option<String>>,
    /// A few words.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub bio: Option<Option<String>>,
}

/// Whether an account bears the badge of somebody whom the service knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Badge {
    /// It does.
    Verified,
    /// It does not.
    None,
}

crate::values::named!(Badge, "badge", { Verified = "verified", None = "none" }, "must be verified or none");

/// What somebody has done in the game.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct UserStatistics {
    /// Sessions completed as a player.
    pub games_played: i32,
    /// Sessions completed as the Seer.
    pub games_run: i32,
    /// Characters that live.
    pub characters: i64,
    /// Characters that are retired.
    pub retired_characters: i64,
    /// Adventures that are published.
    pub adventures_published: i64,
    /// Sessions of anybody's in which one of the adventures was completed.
    pub adventures_played: i64,
    /// Rolls of the characters, in sessions that are not archived.
    pub rolls: i64,
}

/// Operations on accounts and profiles: [`Operations::users`](crate::Operations::users).
#[derive(Debug)]
pub struct Users<'a, C> {
    pub(crate) caller: &'a C,
}

const SIGN_UP: &str = "INSERT INTO auth.users (id, email, raw_user_meta_data)
     VALUES ($1, $2, $3)
     ON CONFLICT (id) DO NOTHING";

/// Whether the account that is there was signed up the same way.
const SAME_SIGN_UP: &str = "SELECT 1
     FROM auth.users
     WHERE id = $1
       AND email IS NOT DISTINCT FROM $2
       AND raw_user_meta_data = $3";

/// As it is written, or in lower case, as the platform keeps it.
const IS_EMAIL_TAKEN: &str = r"SELECT
    lower($1) ~ '@(no-email|deleted)\.invalid\.?\s*$'
    OR EXISTS (SELECT FROM public.users WHERE email IN ($1, lower($1))) AS taken";

const STATISTICS: &str = "SELECT
    profile.games_played,
    profile.games_run,
    mine.characters,
    mine.retired_characters,
    written.adventures_published,
    written.adventures_played,
    (SELECT count(*) FROM public.dice_rolls WHERE character_id = ANY (mine.ids)) AS rolls
  FROM public.users AS profile,
    LATERAL (
      SELECT
        count(*) FILTER (WHERE retired_at IS NULL) AS characters,
        count(*) FILTER (WHERE retired_at IS NOT NULL) AS retired_characters,
        array_agg(id) AS ids
      FROM public.characters
      WHERE user_id = profile.id
    ) AS mine,
    LATERAL (
      SELECT
        count(*) FILTER (WHERE status = 'published') AS adventures_published,
        coalesce(sum(times_played), 0) AS adventures_played
      FROM public.adventures
      WHERE creator_id = profile.id
    ) AS written
  WHERE profile.id = $1";

/// Most profiles of one answer to a search.
const FOUND: u64 = 50;

impl<C: Caller> Users<'_, C> {
    /// Signs somebody up in the stand-in for the platform; a trigger makes the profile. On Supabase the platform does
    /// that, and lets nobody else. An address that is taken does not stop it: the account is left without one, and
    /// [`is_email_taken`](Self::is_email_taken) tells before.
    ///
    /// Who may: the service. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn sign_up(self, account: NewAccount) -> Result<Profile, Error> {
        let id = account.id.unwrap_or_else(Uuid::new_v4);
        let metadata = match &account.display_name {
            Some(name) => json!({ "display_name": name }),
            None => json!({}),
        };
        operation!(self.caller, "users.sign_up", user = id, |tx| {
            let values = [id.into(), account.email.clone().into(), metadata.clone().into()];
            let sign_up = Statement::from_sql_and_values(DbBackend::Postgres, SIGN_UP, values.clone());
            if tx.execute_raw(sign_up).await?.rows_affected() == 0 {
                let same = Statement::from_sql_and_values(DbBackend::Postgres, SAME_SIGN_UP, values);
                tx.query_one_raw(same).await?.ok_or(Error::IdConflict { what: "account" })?;
            }
            find(tx, id).await
        })
        .map_err(|error| error.with_rule("only the service may sign somebody up"))
    }

    /// The profiles of those accounts, those that exist, in no particular order.
    ///
    /// Who may: everybody. Three round trips.
    ///
    /// # Errors
    ///
    /// None of its own.
    pub async fn profiles(self, ids: &[Uuid]) -> Result<Vec<Profile>, Error> {
        operation!(self.caller, reads "users.profiles", |tx| {
            Ok(users::Entity::find()
                .filter(users::Column::Id.is_in(ids.iter().copied()))
                .into_partial_model()
                .all(tx)
                .await?)
        })
    }

    /// The profile of that account.
    ///
    /// Who may: everybody. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn profile(self, id: Uuid) -> Result<Profile, Error> {
        operation!(self.caller, reads "users.profile", user = id, |tx| { find(tx, id).await })
    }

    /// The profiles of that name, to the letter, the oldest account first; at most fifty.
    ///
    /// Who may: everybody. Three round trips.
    ///
    /// # Errors
    ///
    /// None of its own.
    pub async fn by_display_name(self, display_name: &str) -> Result<Vec<Profile>, Error> {
        operation!(self.caller, reads "users.by_display_name", |tx| {
            Ok(users::Entity::find()
                .filter(users::Column::DisplayName.eq(display_name))
                .order_by_asc(users::Column::CreatedAt)
                .limit(FOUND)
                .into_partial_model()
                .all(tx)
                .await?)
        })
    }

    /// The profile of the account with that address: for a support desk.
    ///
    /// Who may: the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`].
    pub async fn by_email(self, email: &str) -> Result<Profile, Error> {
        operation!(self.caller, reads "users.by_email", |tx| {
            users::Entity::find()
                .filter(users::Column::Email.eq(email))
                .into_partial_model()
                .one(tx)
                .await?
                .ok_or(Error::NotFound { what: "user" })
        })
        .map_err(|error| error.with_rule("only the service may look for an address"))
    }

    /// Whether an account has that address already, so that one which signs up with it would be left without; as it
    /// is written, or in lower case, as the platform keeps it. An address in a reserved domain counts as taken: no account
    /// can have it.
    ///
    /// Who may: the service; to others it would tell who has an account. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn is_email_taken(self, email: &str) -> Result<bool, Error> {
        #[derive(FromQueryResult)]
        struct Row {
            taken: bool,
        }
        operation!(self.caller, reads "users.is_email_taken", |tx| {
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, IS_EMAIL_TAKEN, [email.into()]);
            Ok(Row::find_by_statement(statement).one(tx).await?.is_none_or(|row| row.taken))
        })
        .map_err(|error| error.with_rule("only the service may ask whether an address is taken"))
    }

    /// The own profile.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn me(self) -> Result<Profile, Error> {
        operation!(self.caller, reads "users.me", |tx| { find(tx, tx.user()?).await })
    }

    /// The own address, which nobody else can read. An account without one has `<id>@no-email.invalid`.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn my_email(self) -> Result<String, Error> {
        #[derive(FromQueryResult)]
        struct Row {
            email: Option<String>,
        }
        operation!(self.caller, reads "users.my_email", |tx| {
            tx.user()?;
            let statement = Statement::from_string(DbBackend::Postgres, "SELECT private.my_email() AS email");
            Row::find_by_statement(statement)
                .one(tx)
                .await?
                .and_then(|row| row.email)
                .ok_or(Error::NotFound { what: "user" })
        })
    }

    /// What the caller has done in the game.
    ///
    /// Who may: a user, of oneself. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn statistics(self) -> Result<UserStatistics, Error> {
        operation!(self.caller, reads "users.statistics", |tx| {
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, STATISTICS, [tx.user()?.into()]);
            UserStatistics::find_by_statement(statement).one(tx).await?.ok_or(Error::NotFound { what: "user" })
        })
    }

    /// Changes the own profile. Nothing to change gives it as it is.
    ///
    /// Who may: a user. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`], [`Error::InvalidValue`] for a text with NUL, [`Error::AccountClosed`].
    pub async fn edit(self, changes: ProfileChanges) -> Result<Profile, Error> {
        let mut row = users::ActiveModel::default();
        set_if(&mut row.display_name, &changes.display_name);
        set_if(&mut row.avatar_url, &changes.avatar_url);
        set_if(&mut row.bio, &changes.bio);
        operation!(self.caller, "users.edit", |tx| {
            let id = tx.user()?;
            // Not `Entity::update`, which would ask for the closed column back.
            let update =
                users::Entity::update_many().set(row.clone().into_active_model()).filter(users::Column::Id.eq(id));
            if sea_orm::ActiveModelTrait::is_changed(&row) {
                update.exec(tx).await?;
            }
            find(tx, id).await
        })
    }

    /// Closes an account: the profile loses its personal data, seats in live sessions are given up, live sessions it runs
    /// are cancelled, drafts are deleted; what others played with it stays (decision "Retiring, closing, deleting").
    /// Idempotent.
    ///
    /// On Supabase, ask the platform instead, which also ends the account's logins. There, this closes what is ours and,
    /// where the platform allows it, marks the account as deleted.
    ///
    /// Who may: a user, oneself; the service, anybody. Three round trips. Events `player_left` and `session_status` at
    /// the sessions concerned.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`], [`Error::NotAllowed`], [`Error::NotFound`].
    pub async fn erase(self, id: Uuid) -> Result<(), Error> {
        #[derive(FromQueryResult)]
        struct Row {
            known: bool,
        }
        operation!(self.caller, "users.erase", user = id, |tx| {
            let sql = "SELECT private.close_account($1) AS known";
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [id.into()]);
            match Row::find_by_statement(statement).one(tx).await? {
                Some(Row { known: true }) => Ok(()),
                _ => Err(Error::NotFound { what: "user" }),
            }
        })
        .map_err(|error| error.with_rule("only its user, and the service, may close an account"))
    }

    /// Gives an account the badge, or takes it.
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`].
    pub async fn set_badge(self, id: Uuid, badge: Badge) -> Result<Profile, Error> {
        operation!(self.caller, "users.set_badge", user = id, |tx| {
            let row = users::ActiveModel { is_verified: Set(badge == Badge::Verified), ..Default::default() };
            let user = rows::update_returning(tx, row, id, users::Column::Id)
                .await?
                .ok_or(Error::NotFound { what: "user" })?;
            Ok(user.into())
        })
        .map_err(|error| error.with_rule("only the service may give the badge"))
    }
}

impl From<users::Model> for Profile {
    fn from(user: users::Model) -> Self {
        Self {
            id: user.id,
            display_name: user.display_name,
            avatar_url: user.avatar_url,
            bio: user.bio,
            is_verified: user.is_verified,
            games_played: user.games_played,
            games_run: user.games_run,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

async fn find(tx: &UncheckedTransaction, id: Uuid) -> Result<Profile, Error> {
    users::Entity::find_by_id(id).into_partial_model().one(tx).await?.ok_or(Error::NotFound { what: "user" })
}
