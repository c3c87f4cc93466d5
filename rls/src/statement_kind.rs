//! Determines from a statement's text what it may do: change the database session, write, or commit.
//!
//! A statement built from entities contains no SQL text of the caller, except in custom expressions, which can call any
//! function (`set_config`, `pg_advisory_lock`). So a statement counts as unable to change the database session only if
//! each opening parenthesis follows a word or a character that SeaORM itself writes before a parenthesis. This is an
//! allow-list: after any other statement, the identity is verified and the database session is cleaned.
//!
//! A function of one argument needs no parenthesis, because PostgreSQL also calls it if it is written like a field:
//! - `(value).f`, `(value)[1].f` and `$1.f` call `f`, unless the value has a field `f`. Such a text never counts as
//!   harmless.
//! - `"x"."f"` calls `f` with a row of `x`, unless `x` has a column `f`. SeaORM writes each column like this, so this
//!   must count as harmless. If `x` is a table or a subquery, then `f` is a function for the rows of one table, which
//!   belongs to the schema, which this crate trusts; or it is a function of PostgreSQL's own for every row, and none of
//!   these changes anything. If `x` is a function in FROM (`FROM LOWER($1) AS "x"`), its row may be a mere number or
//!   text. The functions of PostgreSQL's own that could then change something are recognized by their names.

/// Words that SeaORM writes before a parenthesis. None of them is a function that changes the database session.
const WORDS_BEFORE_PARENTHESIS: [&str; 36] = [
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "AVG",
    "BETWEEN",
    "CASE",
    "CAST",
    "COALESCE",
    "CONFLICT",
    "COUNT",
    "DISTINCT",
    "ELSE",
    "EXCEPT",
    "EXISTS",
    "FROM",
    "IN",
    "INTERSECT",
    "JOIN",
    "LOWER",
    "MAX",
    "MIN",
    "NOT",
    "ON",
    "OR",
    "OVER",
    "SELECT",
    "SOME",
    "SUM",
    "THEN",
    "UNION",
    "UPPER",
    "VALUES",
    "WHEN",
    "WHERE",
];

/// The beginnings of the statements that SeaORM builds from entities.
const STATEMENT_PREFIXES: [&str; 4] = ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "];

/// PostgreSQL's own functions of one argument that change the database session, run an SQL text or write, apart from
/// those whose names begin with `pg_`.
const CHANGING_FUNCTIONS: [&str; 7] =
    ["lo_creat", "lo_create", "lo_import", "lo_unlink", "nextval", "setseed", "ts_stat"];

/// Returns whether the text shows that the statement cannot change the database session. (`false` means only that the
/// text does not show it.)
pub(crate) fn cannot_change_session(sql: &str) -> bool {
    // A comment could stand between a name and its parenthesis.
    if !STATEMENT_PREFIXES.iter().any(|prefix| sql.starts_with(prefix)) || sql.contains("--") || sql.contains("/*") {
        return false;
    }
    if names_what_changes_sessions(sql) || may_call_function_as_field(sql) {
        return false;
    }
    // `SELECT ... INTO` creates a table, which may be a temporary one. (The word can also occur in a name or a string.)
    if sql.starts_with("SELECT ") && has_word(sql, "into") {
        return false;
    }
    // After an insert's table, the parenthesis opens the list of columns.
    let after_insert = sql
        .strip_prefix("INSERT INTO ")
        .and_then(|rest| rest.split_once('('))
        .filter(|(table, _)| is_quoted_name(table));
    let sql = after_insert.map_or(sql, |(_, after_parenthesis)| after_parenthesis);
    sql.match_indices('(').all(|(index, _)| is_harmless_before_parenthesis(&sql[..index]))
}

/// Whether, as far as its text shows, the statement only reads, locks no rows and cannot change the database session,
/// so that a replica can run it. (A view or a policy may still call a function that writes.)
pub(crate) fn may_run_read_only(sql: &str) -> bool {
    // FOR begins a locking clause. (The word can also occur in a name or a string; the statement then runs on the
    // primary without need.) A system view, which has other rows on another server, never counts as harmless.
    sql.starts_with("SELECT ") && !has_word(sql, "for") && cannot_change_session(sql)
}

/// What a statement may write, according to its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteKind {
    None,
    /// The rows of one table. A statement that affects no row has written nothing (unless a trigger has written
    /// elsewhere).
    Rows,
    Anything,
}

/// Returns what the statement may write.
pub(crate) fn write_kind(sql: &str) -> WriteKind {
    if !cannot_change_session(sql) {
        // The statement may not be one that SeaORM built, or it may call a function. So it may write anything.
        WriteKind::Anything
    } else if sql.starts_with("SELECT ") {
        WriteKind::None
    } else {
        WriteKind::Rows
    }
}

/// Whether the text shows that the statement returns each row that it writes.
pub(crate) fn returns_written_rows(sql: &str) -> bool {
    // `RETURNING` in a string proves nothing, so only the text after the last string counts.
    let after_last_string = sql.rsplit('\'').next().unwrap_or_default();
    after_last_string.contains(" RETURNING ")
}

/// Whether the statement may commit the transaction that it runs in, or prepare it for two-phase commit. The text
/// is one statement, so its first word decides. (A plain `PREPARE` counts too.)
pub(crate) fn may_commit(sql: &str) -> bool {
    let first_word: String = skip_to_first_word(sql).chars().take_while(char::is_ascii_alphabetic).collect();
    ["commit", "end", "prepare"].iter().any(|command| first_word.eq_ignore_ascii_case(command))
}

/// Returns the words of the text: the names and keywords, also those in quotes.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(|character| !is_part_of_name(character))
}

/// Whether the text contains the word, which is in lower case, in upper or lower case.
fn has_word(sql: &str, word: &str) -> bool {
    words(sql).any(|other| other.eq_ignore_ascii_case(word))
}

/// Whether the text contains the name of an object of PostgreSQL's own that can change the database session, or has
/// other rows on another server. An update of the view `pg_settings` has the effect of `set_config`, for the rest of
/// the session; PostgreSQL lets every role do that. In `U&"\0070g_settings"` and `u&"\0070g_settings"`, the name is
/// not readable.
fn names_what_changes_sessions(sql: &str) -> bool {
    let has_prefix = |word: &str| word.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("pg_"));
    let is_function = |word: &str| CHANGING_FUNCTIONS.iter().any(|function| word.eq_ignore_ascii_case(function));
    sql.contains("U&\"") || sql.contains("u&\"") || words(sql).any(|word| has_prefix(word) || is_function(word))
}

/// Whether the text may call a function of one argument that is written like a field of its argument: after a closing
/// parenthesis or bracket, or after a parameter (`$1`).
fn may_call_function_as_field(sql: &str) -> bool {
    sql.match_indices('.').any(|(index, _)| {
        let value = sql[..index].trim_end_matches(is_sql_space);
        let before_digits = value.trim_end_matches(|character: char| character.is_ascii_digit());
        value.ends_with([')', ']']) || before_digits.len() < value.len() && before_digits.ends_with('$')
    })
}

/// Whether PostgreSQL takes the character for white space. It takes other white space of Unicode for part of a name.
fn is_sql_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Returns the text without the white space, the comments and the empty statements (`;`) at its beginning.
fn skip_to_first_word(sql: &str) -> &str {
    let mut rest = sql.trim_start_matches(is_sql_space);
    loop {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once(['\n', '\r']).map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            rest = skip_block_comment(rest);
        } else if let Some(after_semicolon) = rest.strip_prefix(';') {
            rest = after_semicolon;
        } else {
            return rest;
        }
        rest = rest.trim_start_matches(is_sql_space);
    }
}

/// Returns the text after the block comment at its beginning. Block comments can be nested.
fn skip_block_comment(sql: &str) -> &str {
    let (mut depth, mut position) = (0_usize, 0);
    while let Some(two_bytes) = sql.as_bytes().get(position..position + 2) {
        match two_bytes {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                position += 1;
                continue;
            }
        }
        position += 2;
        if depth == 0 {
            return &sql[position..];
        }
    }
    ""
}

/// Whether the text is a quoted table name, with or without its schema, as SeaORM writes it before the columns of an
/// insert.
fn is_quoted_name(text: &str) -> bool {
    text.trim_matches(is_sql_space).split('.').all(|part| {
        part.strip_prefix('"').and_then(|part| part.strip_suffix('"')).is_some_and(|name| !name.contains('"'))
    })
}

/// Whether an opening parenthesis after this text cannot be that of a function that changes the database session.
fn is_harmless_before_parenthesis(before: &str) -> bool {
    let before = before.trim_end_matches(is_sql_space);
    let word = before.rsplit(|c: char| !is_part_of_name(c)).next().unwrap_or_default();
    if word.is_empty() {
        return before.is_empty() || before.ends_with(['(', ',', '=', '<', '>', '+', '-', '*', '%', '|']);
    }
    // `x.count(` calls a function of a schema.
    let rest = &before[..before.len() - word.len()];
    !rest.trim_end_matches(is_sql_space).ends_with('.') && WORDS_BEFORE_PARENTHESIS.contains(&word)
}

fn is_part_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::{WriteKind, cannot_change_session, may_commit, may_run_read_only, returns_written_rows, write_kind};

    #[test]
    fn the_keyword_returning_counts_only_outside_of_strings() {
        assert!(returns_written_rows(r#"UPDATE "a" SET "n" = $1 RETURNING "n""#));
        assert!(returns_written_rows(r#"UPDATE "a" SET "n" = 'x' RETURNING "n""#));
        assert!(!returns_written_rows(r#"UPDATE "a" SET "n" = ' RETURNING '"#));
        assert!(!returns_written_rows(r#"UPDATE "a" SET "n" = $1"#));
    }

    #[test]
    fn a_statement_that_calls_a_function_may_write_anything() {
        assert_eq!(write_kind(r#"SELECT "n" FROM "a""#), WriteKind::None);
        assert_eq!(write_kind(r#"UPDATE "a" SET "n" = $1"#), WriteKind::Rows);
        assert_eq!(write_kind(r#"UPDATE "a" SET "n" = "f"($1)"#), WriteKind::Anything);
    }

    #[test]
    fn a_statement_that_may_commit_is_recognized_by_its_first_word() {
        for sql in
            ["COMMIT", " commit and chain", "END;", "-- a\n/* b /* c */ d */ -- e\r;End", "/**/PREPARE TRANSACTION 'a'"]
        {
            assert!(may_commit(sql), "{sql}");
        }
        // In the last text, `/*/` only opens a comment, which ends after `COMMIT`.
        for sql in [
            "SELECT 1 -- COMMIT",
            "/* COMMIT",
            "/*",
            "/* é /",
            "ROLLBACK",
            "committed",
            "ending",
            "",
            "/*/COMMIT*/SELECT 1",
        ] {
            assert!(!may_commit(sql), "{sql}");
        }
    }

    #[test]
    fn only_a_plain_select_may_run_read_only() {
        assert!(may_run_read_only(r#"SELECT "a"."id" FROM "a" WHERE "a"."id" IN ($1)"#));
        for sql in [
            r#"SELECT "a"."id" FROM "a" FOR UPDATE"#,
            r#"SELECT "a"."id" FROM "a" FOR NO KEY UPDATE SKIP LOCKED"#,
            r#"SELECT "a"."id" FROM "a" for update"#,
            "SELECT id FROM a\nFOR UPDATE",
            r#"SELECT "id" INTO "b" FROM "a""#,
            r#"SELECT nextval('a')"#,
            r#"SELECT "pid" FROM "pg_stat_activity""#,
            "SELECT pid FROM PG_STAT_ACTIVITY",
            r#"INSERT INTO "a" ("id") VALUES ($1)"#,
            r#"WITH "b" AS (DELETE FROM "a" RETURNING "id") SELECT "id" FROM "b""#,
        ] {
            assert!(!may_run_read_only(sql), "{sql}");
        }
    }

    #[test]
    fn statements_built_from_entities_cannot_change_the_session() {
        for sql in [
            r#"SELECT "a"."id", CAST("a"."kind" AS text) FROM "a" WHERE "a"."id" = $1 LIMIT $2"#,
            r#"SELECT COUNT(*) AS num_items FROM (SELECT "a"."id" FROM "a") AS "sub_query""#,
            r#"INSERT INTO "public"."a" ("id", "kind") VALUES ($1, CAST($2 AS "kind")) ON CONFLICT ("id") DO NOTHING"#,
            r#"UPDATE "a" SET "n" = "n" + ($1) WHERE ("a"."id" IN ($2, $3)) AND ("b" IS NULL)"#,
            r#"DELETE FROM "a" WHERE EXISTS(SELECT 1 FROM "b")"#,
            r#"SELECT "a"."n" FROM "a" WHERE ("a"."n" > 1.5) AND "a"."apg_m" = 'a.b' AND "n" <> $1 AND "n" = .5"#,
        ] {
            assert!(cannot_change_session(sql), "{sql}");
        }
    }

    #[test]
    fn an_update_of_the_view_of_settings_may_change_the_session() {
        for table in ["\"pg_settings\"", "PG_SETTINGS", "\"pg_catalog\".\"pg_settings\"", "U&\"\\0070g_settings\""] {
            let sql = format!("UPDATE {table} SET \"setting\" = $1 WHERE \"name\" = $2");
            assert!(!cannot_change_session(&sql), "{sql}");
        }
    }

    #[test]
    fn a_function_that_is_written_like_a_field_may_change_the_session() {
        for sql in [
            r#"SELECT ("a"."n").f FROM "a""#,
            r#"SELECT ("a"."n") . "f" FROM "a""#,
            r#"SELECT (SELECT "n" FROM "a").f"#,
            r#"SELECT "a"."n"[1].f FROM "a""#,
            "SELECT $1.f",
            "SELECT $12\n.f",
            r#"SELECT "x"."pg_advisory_lock" FROM CAST(7 AS bigint) AS "x""#,
            // This runs the text as SQL.
            r#"SELECT "x"."ts_stat" FROM LOWER($1) AS "x""#,
            r#"SELECT "x"."TS_STAT" FROM LOWER($1) AS "x""#,
        ] {
            assert!(!cannot_change_session(sql), "{sql}");
        }
    }

    #[test]
    fn function_calls_select_into_and_other_commands_may_change_the_session() {
        for sql in [
            "SELECT set_config('role', 'postgres', true)",
            r#"SELECT "set_config"('role', 'postgres', true)"#,
            // \005f is an underscore.
            r#"SELECT U&"set\005fconfig"('role', 'postgres', true)"#,
            "SELECT set_config /* = */ ('role', 'postgres', true)",
            "SELECT set_config --=\n('role', 'postgres', true)",
            "SELECT x.COUNT('role')",
            "SELECT x . COUNT('role')",
            r#"INSERT INTO "a" ("n") VALUES (pg_advisory_lock(1))"#,
            r#"INSERT INTO "a" SELECT "f"(1)"#,
            r#"SELECT "id" INTO TEMP "b" FROM "a""#,
            "SELECT id\ninto\tb FROM a",
            "DO $$ BEGIN END $$",
            "RESET ROLE",
            // The names of these functions are éCOUNT, and COUNT with a no-break space.
            "SELECT éCOUNT(1)",
            "SELECT COUNT\u{a0}(1)",
        ] {
            assert!(!cannot_change_session(sql), "{sql}");
        }
    }
}
