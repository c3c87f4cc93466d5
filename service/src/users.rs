//! Accounts and profiles, and sign-up on databases without the platform (Supabase).
//!
//! ```
//! use service::{Operations, Sparc, users::ProfileChanges};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! # let user_id = demo.player;
//! let ada = sparc.as_user(user_id);
//! let changes = ProfileChanges { bio: Some(Some("Plays on Tuesdays".into())), ..Default::default() };
//! let profile = ada.users().edit(changes).await?;
//! println!("{} has played {} games", profile.display_name, profile.games_played);
//! # Ok(())
//! # }
//! ```

mod profile;
mod statistics;

use entity::users;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, QueryOrder, QuerySelect, Statement,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

pub use profile::{Badge, Profile, ProfileChanges};
pub use statistics::UserStatistics;

use crate::{
    Error, Executor,
    connection::OperationTransaction,
    operation::operation,
    rows::{self, set_if_some},
};

/// An account to create in `auth.users`, in a database where Supabase does not manage that table.
#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NewAccount {
    /// Id of the account; random if absent. Repeating the request with the same id returns the existing account,
    /// unless it has been closed since.
    pub id: Option<Uuid>,
    /// E-mail address, if any. If another account already has it, the profile of this account is created without an
    /// address; check with [`Users::is_email_taken`] first.
    pub email: Option<String>,
    /// Display name; by default the local part of the e-mail address, or else `Adventurer`.
    pub display_name: Option<String>,
}

/// Omits personal data.
impl std::fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Operations on accounts and profiles: [`Operations::users`](crate::Operations::users).
#[derive(Debug)]
pub struct Users<'a, C> {
    pub(crate) executor: &'a C,
}

const SIGN_UP: &str = "INSERT INTO auth.users (id, email, raw_user_meta_data)
     VALUES ($1, $2, $3)
     ON CONFLICT (id) DO NOTHING";

/// Returns a row if the same request created the existing account. Only the digest of the request is compared, because
/// the account's profile may have changed since.
const FIND_SAME_SIGN_UP: &str = "SELECT 1
     WHERE private.is_same_request(
       'users',
       jsonb_build_object('id', $1::uuid, 'email', $2::text, 'raw_user_meta_data', $3::jsonb)
     )";

/// Returns whether the e-mail address is in a reserved domain (`docs/decisions.md`, "Sign-up"), or an account already
/// has the address, either as written, or in lower case, as the platform stores it.
const SELECT_IS_EMAIL_TAKEN: &str = r"SELECT
    lower($1) ~ '@(no-email|deleted)\.invalid\.?\s*$'
    OR EXISTS (SELECT FROM public.users WHERE email IN ($1, lower($1))) AS is_taken";

/// Maximum number of profiles that [`Users::by_display_name`] returns.
const MAX_PROFILES_BY_DISPLAY_NAME: u64 = 50;

impl<C: Executor> Users<'_, C> {
    /// Creates an account in `auth.users`, in a database where Supabase does not manage that table; a trigger creates
    /// the profile. On Supabase, only the platform itself can create accounts. If the e-mail address is taken, the
    /// profile is created without an address; check with [`is_email_taken`](Self::is_email_taken) first. Nothing checks
    /// whether the e-mail address is valid and belongs to the person who signs up.
    ///
    /// Repeating the request with the same id returns the existing account, unless it has been closed since. So an
    /// application that issues a token for the returned account must choose the id itself, and not accept it from the
    /// person who signs up; otherwise anyone who repeats the request gets a token for the account.
    ///
    /// Who may: the service. Four round trips, or five if the request is repeated. No event.
    ///
    /// # Errors
    ///
    /// [`Error::IdConflict`], [`Error::InvalidValue`] for text that contains NUL, [`Error::NotAllowed`],
    /// [`Error::NotSignedIn`].
    pub async fn sign_up(self, account: NewAccount) -> Result<Profile, Error> {
        let id = account.id.unwrap_or_else(Uuid::new_v4);
        let metadata = match &account.display_name {
            Some(name) => json!({ "display_name": name }),
            None => json!({}),
        };
        operation!(self.executor, "users.sign_up", user = id, |tx| {
            let values = [id.into(), account.email.clone().into(), metadata.clone().into()];
            let sign_up = Statement::from_sql_and_values(DbBackend::Postgres, SIGN_UP, values.clone());
            if tx.execute_raw(sign_up).await?.rows_affected() == 0 {
                let same_sign_up_query = Statement::from_sql_and_values(DbBackend::Postgres, FIND_SAME_SIGN_UP, values);
                tx.query_one_raw(same_sign_up_query).await?.ok_or(Error::IdConflict { what: "account" })?;
            }
            find_profile(tx, id).await
        })
        .map_err(|error| error.with_rule_if_not_allowed("only the service may create an account"))
    }

    /// Returns the profiles of these accounts, in no particular order; accounts that do not exist are omitted.
    ///
    /// Who may: everyone. Three round trips.
    ///
    /// # Errors
    ///
    /// None specific to this operation.
    pub async fn profiles(self, ids: &[Uuid]) -> Result<Vec<Profile>, Error> {
        operation!(self.executor, reads "users.profiles", |tx| {
            Ok(users::Entity::find()
                // One parameter for all ids, because a statement can have at most 65,535 parameters.
                .filter(users::Column::Id.eq_any(ids.iter().copied()))
                .into_partial_model()
                .all(tx)
                .await?)
        })
    }

    /// Returns the profile of an account.
    ///
    /// Who may: everyone. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn profile(self, id: Uuid) -> Result<Profile, Error> {
        operation!(self.executor, reads "users.profile", user = id, |tx| { find_profile(tx, id).await })
    }

    /// Returns at most fifty profiles with exactly this display name, the oldest account first.
    ///
    /// Who may: everyone. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] for text that contains NUL.
    pub async fn by_display_name(self, display_name: &str) -> Result<Vec<Profile>, Error> {
        operation!(self.executor, reads "users.by_display_name", |tx| {
            Ok(users::Entity::find()
                .filter(users::Column::DisplayName.eq(display_name))
                .order_by_asc(users::Column::CreatedAt)
                .limit(MAX_PROFILES_BY_DISPLAY_NAME)
                .into_partial_model()
                .all(tx)
                .await?)
        })
    }

    /// Returns the profile of the account with this e-mail address, for example for a support desk.
    ///
    /// Who may: the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`], [`Error::InvalidValue`] for text that
    /// contains NUL.
    pub async fn by_email(self, email: &str) -> Result<Profile, Error> {
        operation!(self.executor, reads "users.by_email", |tx| {
            users::Entity::find()
                .filter(users::Column::Email.eq(email))
                .into_partial_model()
                .one(tx)
                .await?
                .ok_or(Error::NotFound { what: "user" })
        })
        .map_err(|error| error.with_rule_if_not_allowed("only the service may look up an e-mail address"))
    }

    /// Returns whether an account already has this e-mail address, as written or in lower case (as the platform stores
    /// it). If so, an account that signs up with the address gets a profile without an address. An address in a
    /// reserved domain (`docs/decisions.md`, "Sign-up") also counts as taken, because sign-up ignores it.
    ///
    /// Who may: the service, because the answer reveals who has an account. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::InvalidValue`] for text that contains NUL.
    pub async fn is_email_taken(self, email: &str) -> Result<bool, Error> {
        #[derive(FromQueryResult)]
        struct Row {
            is_taken: bool,
        }
        operation!(self.executor, reads "users.is_email_taken", |tx| {
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, SELECT_IS_EMAIL_TAKEN, [email.into()]);
            Ok(Row::find_by_statement(statement).one(tx).await?.is_none_or(|row| row.is_taken))
        })
        .map_err(|error| error.with_rule_if_not_allowed("only the service may ask whether an e-mail address is taken"))
    }

    /// Returns the caller's profile.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn me(self) -> Result<Profile, Error> {
        operation!(self.executor, reads "users.me", |tx| { find_profile(tx, tx.user_id()?).await })
    }

    /// Returns the caller's e-mail address, which other users cannot read. An account without one has
    /// `<id>@no-email.invalid`.
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
        operation!(self.executor, reads "users.my_email", |tx| {
            // Refuses visitors and the service.
            tx.user_id()?;
            let statement = Statement::from_string(DbBackend::Postgres, "SELECT private.my_email() AS email");
            Row::find_by_statement(statement)
                .one(tx)
                .await?
                .and_then(|row| row.email)
                .ok_or(Error::NotFound { what: "user" })
        })
    }

    /// Changes the caller's profile. Without changes, returns it as it is.
    ///
    /// Who may: a user. Four round trips, or three without changes. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`], [`Error::InvalidValue`] for a value that violates its rule (`docs/decisions.md`,
    /// "Bounds" and "Names") and for text that contains NUL, [`Error::AccountClosed`].
    pub async fn edit(self, changes: ProfileChanges) -> Result<Profile, Error> {
        let mut row = users::ActiveModel::default();
        set_if_some(&mut row.display_name, &changes.display_name);
        set_if_some(&mut row.avatar_url, &changes.avatar_url);
        set_if_some(&mut row.bio, &changes.bio);
        operation!(self.executor, "users.edit", |tx| {
            let id = tx.user_id()?;
            // `Entity::update` cannot be used: it returns all columns, and users have no privilege to read `email`.
            let update =
                users::Entity::update_many().set(row.clone().into_active_model()).filter(users::Column::Id.eq(id));
            if sea_orm::ActiveModelTrait::is_changed(&row) {
                update.exec(tx).await?;
            }
            find_profile(tx, id).await
        })
    }

    /// Closes an account: removes its personal data, gives up its seats in live sessions (neither completed nor
    /// cancelled), cancels the live sessions that it runs, and deletes or archives its draft adventures. History shared
    /// with others remains (`docs/decisions.md`, "Retiring, closing, deleting"). Idempotent for the service; a user who
    /// repeats the call gets [`Error::AccountClosed`].
    ///
    /// On Supabase, delete the account through the platform instead, because the platform also signs the owner out.
    /// This operation closes the account there too and, if the platform allows it, marks the account as deleted, but it
    /// does not sign the owner out.
    ///
    /// Who may: a user, for their own account; the service, for any. Three round trips. Events `player_left` and
    /// `session_status` in the sessions concerned.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`], [`Error::NotAllowed`], [`Error::NotFound`].
    pub async fn close_account(self, id: Uuid) -> Result<(), Error> {
        #[derive(FromQueryResult)]
        struct Row {
            exists: bool,
        }
        operation!(self.executor, "users.close_account", user = id, |tx| {
            let sql = "SELECT private.close_account($1) AS exists";
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [id.into()]);
            match Row::find_by_statement(statement).one(tx).await? {
                Some(Row { exists: true }) => Ok(()),
                _ => Err(Error::NotFound { what: "user" }),
            }
        })
        .map_err(|error| error.with_rule_if_not_allowed("only its owner and the service may close an account"))
    }

    /// Sets or removes the verification badge of an account.
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`].
    pub async fn set_badge(self, id: Uuid, badge: Badge) -> Result<Profile, Error> {
        operation!(self.executor, "users.set_badge", user = id, |tx| {
            let row = users::ActiveModel { is_verified: Set(badge == Badge::Verified), ..Default::default() };
            let user = rows::update_returning(tx, row, id, users::Column::Id)
                .await?
                .ok_or(Error::NotFound { what: "user" })?;
            Ok(user.into())
        })
        .map_err(|error| error.with_rule_if_not_allowed("only the service may set the verification badge"))
    }
}

async fn find_profile(tx: &OperationTransaction, id: Uuid) -> Result<Profile, Error> {
    users::Entity::find_by_id(id).into_partial_model().one(tx).await?.ok_or(Error::NotFound { what: "user" })
}
