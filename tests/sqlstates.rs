//! SQLSTATEs of PostgreSQL, by its own names for them. The schema's own SQLSTATEs begin with `SP`; `docs/schema.md`
//! lists them.

pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
pub const UNTRANSLATABLE_CHARACTER: &str = "22P05";
pub const FOREIGN_KEY_VIOLATION: &str = "23503";
pub const UNIQUE_VIOLATION: &str = "23505";
pub const CHECK_VIOLATION: &str = "23514";
pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
pub const SERIALIZATION_FAILURE: &str = "40001";
pub const DEADLOCK_DETECTED: &str = "40P01";
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
pub const GENERATED_ALWAYS: &str = "428C9";
pub const DISK_FULL: &str = "53100";
pub const OUT_OF_MEMORY: &str = "53200";
pub const TOO_MANY_CONNECTIONS: &str = "53300";
pub const STATEMENT_TOO_COMPLEX: &str = "54001";
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
pub const QUERY_CANCELED: &str = "57014";
pub const ADMIN_SHUTDOWN: &str = "57P01";
pub const INTERNAL_ERROR: &str = "XX000";
