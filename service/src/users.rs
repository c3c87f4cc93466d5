//! Profiles of accounts, and sign-up where there is no platform to do it.

use entity::users;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, DerivePartialModel, EntityTrait, FromQueryResult,
    IntoActiveModel, QueryFilter, Statement, prelude::DateTimeWithTimeZone,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::{Caller, Error, operation::operation};

/// What everyone may read of an account (decision "Privacy"): all of `users` but the address.
///
/// The address is closed to users, so `users::Entity::find()` is refused to them; this is the partial model that fits:
/// `users::Entity::find().into_partial_model::<Profile>()`.
#[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel, Serialize, Deserialize)]
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
#[derive(Clone, Default)]
pub struct NewAccount {
    /// Id to give it; drawn where none is given.
    pub id: Option<Uuid>,
    /// Address, if it has one. An address that another account holds leaves this one without.
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
#[derive(Clone, Debug, Default)]
pub struct ProfileChanges {
    /// Name that others see.
    pub display_name: Option<String>,
    /// Picture.
    pub avatar_url: Option<Option<String>>,
    /// A few words.
    pub bio: Option<Option<String>>,
}

/// Operations on accounts and profiles: [`Operations::users`](crate::Operations::users).
#[derive(Debug)]
pub struct Users<'a, C> {
    pub(crate) caller: &'a C,
}

const SIGN_UP: &str = "INSERT INTO auth.users (id, email, raw_user_meta_data)
     VALUES ($1, $2, $3)
     ON CONFLICT (id) DO NOTHING";

impl<C: Caller> Users<'_, C> {
    /// Signs somebody up in the stand-in for the platform; a trigger makes the profile. On Supabase the platform does
    /// that, and lets nobody else.
    ///
    /// Twice with the same id gives the first account. Who may: the service. Five round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anybody else, and on Supabase.
    pub async fn sign_up(self, account: NewAccount) -> Result<Profile, Error> {
        let id = account.id.unwrap_or_else(Uuid::new_v4);
        let metadata = match &account.display_name {
            Some(name) => json!({ "display_name": name }),
            None => json!({}),
        };
        operation!(self.caller, "users.sign_up", |tx| {
            let values = [id.into(), account.email.clone().into(), metadata.clone().into()];
            tx.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, SIGN_UP, values)).await?;
            find(tx, id).await
        })
    }

    /// The profiles of those accounts, those that exist, in no particular order.
    ///
    /// Who may: everybody. Four round trips.
    ///
    /// # Errors
    ///
    /// None of its own.
    pub async fn profiles(self, ids: &[Uuid]) -> Result<Vec<Profile>, Error> {
        operation!(self.caller, "users.profiles", |tx| {
            Ok(users::Entity::find()
                .filter(users::Column::Id.is_in(ids.iter().copied()))
                .into_partial_model()
                .all(tx)
                .await?)
        })
    }

    /// The profile of that account.
    ///
    /// Who may: everybody. Four round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn profile(self, id: Uuid) -> Result<Profile, Error> {
        operation!(self.caller, "users.profile", |tx| { find(tx, id).await })
    }

    /// The own profile.
    ///
    /// Who may: a user. Four round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn me(self) -> Result<Profile, Error> {
        operation!(self.caller, "users.me", |tx| { find(tx, tx.user_id().ok_or(Error::NotSignedIn)?).await })
    }

    /// The own address, which nobody else can read. An account without one has `<id>@no-email.invalid`.
    ///
    /// Who may: a user. Four round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`], [`Error::NotFound`].
    pub async fn my_email(self) -> Result<String, Error> {
        #[derive(FromQueryResult)]
        struct Row {
            email: Option<String>,
        }
        operation!(self.caller, "users.my_email", |tx| {
            tx.user_id().ok_or(Error::NotSignedIn)?;
            let statement = Statement::from_string(DbBackend::Postgres, "SELECT private.my_email() AS email");
            Row::find_by_statement(statement)
                .one(tx)
                .await?
                .and_then(|row| row.email)
                .ok_or(Error::NotFound { what: "user" })
        })
    }

    /// Changes the own profile. Nothing to change gives it as it is.
    ///
    /// Who may: a user. Five round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`]; [`Error::AccountClosed`] after the account was erased.
    pub async fn edit(self, changes: ProfileChanges) -> Result<Profile, Error> {
        operation!(self.caller, "users.edit", |tx| {
            let id = tx.user_id().ok_or(Error::NotSignedIn)?;
            let mut row = users::ActiveModel::default();
            if let Some(display_name) = changes.display_name.clone() {
                row.display_name = Set(display_name);
            }
            if let Some(avatar_url) = changes.avatar_url.clone() {
                row.avatar_url = Set(avatar_url);
            }
            if let Some(bio) = changes.bio.clone() {
                row.bio = Set(bio);
            }
            // Not `Entity::update`, which would ask for the closed column back.
            let update = users::Entity::update_many().set(row.into_active_model()).filter(users::Column::Id.eq(id));
            if changes.display_name.is_some() || changes.avatar_url.is_some() || changes.bio.is_some() {
                update.exec(tx).await?;
            }
            find(tx, id).await
        })
    }
}

async fn find<D: ConnectionTrait>(db: &D, id: Uuid) -> Result<Profile, Error> {
    users::Entity::find_by_id(id).into_partial_model().one(db).await?.ok_or(Error::NotFound { what: "user" })
}
