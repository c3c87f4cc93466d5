//! The types into which the two hand-written programs (plain sqlx, and tokio-postgres with pipelining) decode the
//! operations' results. The JSON documents of a session's details have types of the crates `service` and `entity`.

use chrono::{DateTime, FixedOffset};
use entity::{
    sea_orm_active_enums::{Attribute, DifficultyLevel, RollOutcome, RollType, SessionStatus},
    sessions,
};
use sea_orm::sqlx::{
    self, Decode, Postgres, Row as _, Type,
    error::BoxDynError,
    postgres::{PgRow, PgTypeInfo, PgTypeKind, PgValueRef},
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IntoDeserializer, value::Error as LabelError},
};
use serde_json::Value;
use service::sessions::{SessionAdventure, SessionPlayer};
use tokio_postgres::types::{FromSql, Kind, Type as ServerType};
use uuid::Uuid;

use super::{
    operation::{Operation, OptionalJson, ResultUse},
    statements::{HISTORY_PAGE_SIZE, LOBBY_PAGE_SIZE},
};
use crate::failure::Failure;

/// A result that can be decoded from a row of a driver, column by column.
pub trait DecodeRow<Row>: Serialize + Sized {
    /// Decodes a row.
    fn decode_row(row: &Row) -> Result<Self, Failure>;
}

/// Implements [`DecodeRow`] for a type, for the rows of one driver.
macro_rules! impl_decode_row {
    ($row:ty, $name:ident { $($field:ident,)* }) => {
        impl DecodeRow<$row> for $name {
            fn decode_row(row: &$row) -> Result<Self, Failure> {
                let mut decoded_columns: usize = 0;
                let mut next_column = || {
                    decoded_columns += 1;
                    decoded_columns - 1
                };
                $(let $field = row.try_get(next_column())?;)*
                Ok(Self { $($field,)* })
            }
        }
    };
}

/// Declares a type that implements [`DecodeRow`] for both drivers. Its fields are the columns of the row, in the same
/// order.
macro_rules! row_type {
    ($(#[$attribute:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Serialize)]
        pub struct $name {
            $($field: $type,)*
        }

        impl_decode_row!(PgRow, $name { $($field,)* });
        impl_decode_row!(tokio_postgres::Row, $name { $($field,)* });
    };
}

/// Decodes the rows of an operation's statement, and then discards the result or converts it to JSON.
pub fn decode_result<Row>(operation: Operation, rows: &[Row], result_use: ResultUse) -> Result<OptionalJson, Failure>
where
    Profile: DecodeRow<Row>,
    SessionSummary: DecodeRow<Row>,
    SessionDetails: DecodeRow<Row>,
    Roll: DecodeRow<Row>,
{
    match operation {
        Operation::Profile => result_use.discard_or_convert(decode_one::<Profile, _>(rows)?),
        Operation::Lobby => result_use.discard_or_convert(decode_page::<SessionSummary, _>(rows, LOBBY_PAGE_SIZE)?),
        Operation::Details => result_use.discard_or_convert(decode_one::<SessionDetails, _>(rows)?),
        Operation::History => result_use.discard_or_convert(decode_page::<Roll, _>(rows, HISTORY_PAGE_SIZE)?),
        Operation::Roll => result_use.discard_or_convert(decode_one::<Roll, _>(rows)?),
    }
}

fn decode_one<T: DecodeRow<Row>, Row>(rows: &[Row]) -> Result<T, Failure> {
    T::decode_row(
        rows.first()
            .ok_or_else(|| Failure::Message("a statement of a hand-written program returned no row".to_owned()))?,
    )
}

/// Decodes the rows of a page. A row beyond the page only shows that there is a next page; it is not decoded.
fn decode_page<T: DecodeRow<Row>, Row>(rows: &[Row], page_size: usize) -> Result<Vec<T>, Failure> {
    rows.iter().take(page_size).map(T::decode_row).collect()
}

row_type! {
    /// A profile.
    Profile {
        id: Uuid,
        display_name: String,
        avatar_url: Option<String>,
        bio: Option<String>,
        is_verified: bool,
        games_played: i32,
        games_run: i32,
        created_at: DateTime<FixedOffset>,
        updated_at: DateTime<FixedOffset>,
    }
}

row_type! {
    /// A roll.
    Roll {
        id: Uuid,
        session_id: Uuid,
        character_id: Option<Uuid>,
        creature_id: Option<Uuid>,
        character_name: String,
        attribute: EnumValue<Attribute>,
        dice_count: i32,
        difficulty: i32,
        roll_type: EnumValue<RollType>,
        modifiers: Value,
        results: Vec<i32>,
        total: i32,
        modified_total: i32,
        success: bool,
        outcome: EnumValue<RollOutcome>,
        margin: i32,
        description: Option<String>,
        animation_seed: Option<i64>,
        original_roll_id: Option<Uuid>,
        rolled_by: Option<Uuid>,
        created_at: DateTime<FixedOffset>,
    }
}

row_type! {
    /// A session with its participants and its adventure.
    SessionDetails {
        session: Document<sessions::Model>,
        players: Document<Vec<SessionPlayer>>,
        adventure: Document<SessionAdventure>,
        seer_name: String,
    }
}

row_type! {
    /// A session in the lobby, in the same row as its adventure. If row-level security hides the adventure, all its
    /// columns are NULL.
    LobbyRow {
        id: Uuid,
        status: EnumValue<SessionStatus>,
        scheduled_start: Option<DateTime<FixedOffset>>,
        looking_for: Option<String>,
        seats_taken: i32,
        max_players: i32,
        created_at: DateTime<FixedOffset>,
        seer_id: Uuid,
        seer_name: String,
        adventure_id: Option<Uuid>,
        adventure_name: Option<String>,
        thumbnail_url: Option<String>,
        difficulty: Option<EnumValue<DifficultyLevel>>,
        estimated_duration: Option<i32>,
    }
}

/// A session in the lobby with its adventure. It has the fields of `service::sessions::SessionSummary`, so that the
/// programs' results can be compared.
#[derive(Debug, Serialize)]
pub struct SessionSummary {
    id: Uuid,
    status: EnumValue<SessionStatus>,
    scheduled_start: Option<DateTime<FixedOffset>>,
    looking_for: Option<String>,
    seats_taken: i32,
    max_players: i32,
    created_at: DateTime<FixedOffset>,
    seer_id: Uuid,
    seer_name: String,
    adventure: Option<SessionSummaryAdventure>,
}

/// The adventure of a session in the lobby.
#[derive(Debug, Serialize)]
struct SessionSummaryAdventure {
    id: Uuid,
    name: String,
    thumbnail_url: Option<String>,
    difficulty: EnumValue<DifficultyLevel>,
    estimated_duration: i32,
}

impl From<LobbyRow> for SessionSummary {
    fn from(row: LobbyRow) -> Self {
        let adventure = match (row.adventure_id, row.adventure_name, row.difficulty, row.estimated_duration) {
            (Some(id), Some(name), Some(difficulty), Some(estimated_duration)) => Some(SessionSummaryAdventure {
                id,
                name,
                thumbnail_url: row.thumbnail_url,
                difficulty,
                estimated_duration,
            }),
            _ => None,
        };
        Self {
            id: row.id,
            status: row.status,
            scheduled_start: row.scheduled_start,
            looking_for: row.looking_for,
            seats_taken: row.seats_taken,
            max_players: row.max_players,
            created_at: row.created_at,
            seer_id: row.seer_id,
            seer_name: row.seer_name,
            adventure,
        }
    }
}

impl<Row> DecodeRow<Row> for SessionSummary
where
    LobbyRow: DecodeRow<Row>,
{
    fn decode_row(row: &Row) -> Result<Self, Failure> {
        LobbyRow::decode_row(row).map(Self::from)
    }
}

/// The value of an enum. It is parsed from the label, without copying the label. The server sends the label as a value
/// of the enum's type, or of type `text` if the statement casts the column.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct EnumValue<E>(E);

impl<E: DeserializeOwned> EnumValue<E> {
    fn parse(label: &str) -> Result<Self, LabelError> {
        E::deserialize(label.into_deserializer()).map(Self)
    }
}

impl<E> Type<Postgres> for EnumValue<E> {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(server_type: &PgTypeInfo) -> bool {
        matches!(server_type.kind(), PgTypeKind::Enum(_)) || <str as Type<Postgres>>::compatible(server_type)
    }
}

impl<E: DeserializeOwned> Decode<'_, Postgres> for EnumValue<E> {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self::parse(value.as_str()?)?)
    }
}

impl<'a, E: DeserializeOwned> FromSql<'a> for EnumValue<E> {
    fn from_sql(_: &ServerType, raw: &'a [u8]) -> Result<Self, BoxDynError> {
        Ok(Self::parse(std::str::from_utf8(raw)?)?)
    }

    fn accepts(server_type: &ServerType) -> bool {
        matches!(server_type.kind(), Kind::Enum(_)) || *server_type == ServerType::TEXT
    }
}

/// A JSON document, deserialized directly into its type.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Document<T>(T);

impl<T> Type<Postgres> for Document<T> {
    fn type_info() -> PgTypeInfo {
        <sqlx::types::Json<T> as Type<Postgres>>::type_info()
    }

    fn compatible(server_type: &PgTypeInfo) -> bool {
        <sqlx::types::Json<T> as Type<Postgres>>::compatible(server_type)
    }
}

impl<'r, T: Deserialize<'r> + 'r> Decode<'r, Postgres> for Document<T> {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        <sqlx::types::Json<T> as Decode<'r, Postgres>>::decode(value).map(|json| Self(json.0))
    }
}

impl<'a, T: Deserialize<'a>> FromSql<'a> for Document<T> {
    fn from_sql(server_type: &ServerType, raw: &'a [u8]) -> Result<Self, BoxDynError> {
        tokio_postgres::types::Json::from_sql(server_type, raw).map(|json| Self(json.0))
    }

    fn accepts(server_type: &ServerType) -> bool {
        <tokio_postgres::types::Json<T> as FromSql<'a>>::accepts(server_type)
    }
}
