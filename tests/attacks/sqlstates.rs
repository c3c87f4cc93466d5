//! SQLSTATEs: those of PostgreSQL, by its condition names, and (`SP…`) those of the schema's own errors, all of which
//! `docs/schema.md` lists.

pub(super) const NULL_VALUE_NOT_ALLOWED: &str = "22004";
pub(super) const INVALID_TEXT_REPRESENTATION: &str = "22P02";
pub(super) const FOREIGN_KEY_VIOLATION: &str = "23503";
pub(super) const UNIQUE_VIOLATION: &str = "23505";
pub(super) const CHECK_VIOLATION: &str = "23514";
pub(super) const TRIGGERED_DATA_CHANGE_VIOLATION: &str = "27000";
pub(super) const SERIALIZATION_FAILURE: &str = "40001";
pub(super) const DEADLOCK_DETECTED: &str = "40P01";
pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
pub(super) const DISK_FULL: &str = "53100";
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
pub(super) const QUERY_CANCELED: &str = "57014";
pub(super) const IO_ERROR: &str = "58030";
pub(super) const INTERNAL_ERROR: &str = "XX000";

pub(super) const CHARACTER_LIMIT_REACHED: &str = "SP001";
pub(super) const SESSION_FULL: &str = "SP002";
pub(super) const ILLEGAL_TRANSITION: &str = "SP003";
pub(super) const SESSION_OVER: &str = "SP004";
pub(super) const SESSION_STARTED: &str = "SP005";
pub(super) const CHARACTER_NOT_YOURS: &str = "SP006";
pub(super) const CHARACTER_RETIRED: &str = "SP007";
pub(super) const CHARACTER_SEATED: &str = "SP008";
pub(super) const ADVENTURE_NOT_PLAYABLE: &str = "SP009";
pub(super) const ADVENTURE_PUBLISHED: &str = "SP010";
pub(super) const HEROIC_SAVE_SPENT: &str = "SP011";
pub(super) const ROLL_NOT_SAVEABLE: &str = "SP015";
pub(super) const CREATURE_NOT_IN_ADVENTURE: &str = "SP017";
pub(super) const NOT_YOUR_CHOICE: &str = "SP018";
pub(super) const ACCOUNT_CLOSED: &str = "SP019";
pub(super) const UNKNOWN_JOIN_CODE: &str = "SP020";
pub(super) const RETIRED_CHARACTER_LIMIT_REACHED: &str = "SP022";
pub(super) const SEAT_LIMIT_REACHED: &str = "SP023";
pub(super) const SESSION_LIMIT_REACHED: &str = "SP024";
pub(super) const ADVENTURE_LIMIT_REACHED: &str = "SP025";
pub(super) const CREATURE_LIMIT_REACHED: &str = "SP026";
pub(super) const TOO_MANY_ROWS: &str = "SP027";
pub(super) const PLAYER_REMOVED: &str = "SP028";
pub(super) const SESSION_HAS_NO_PLAYER: &str = "SP029";
pub(super) const START_IN_PAST: &str = "SP030";
pub(super) const SESSION_LIVE: &str = "SP031";
pub(super) const UNKNOWN_ACCOUNT: &str = "SP032";
pub(super) const NOT_PARTICIPANT: &str = "SP037";
pub(super) const UNKNOWN_SESSION: &str = "SP038";
pub(super) const SEVERAL_SESSIONS: &str = "SP039";
