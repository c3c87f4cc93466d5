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
//!   must count as harmless. If `x` is a table or a subquery, then `f` takes rows. Such a function either belongs to
//!   the schema, which this crate trusts, or is one of PostgreSQL's own functions that take a row of any type, none of
//!   which changes anything. If `x` is a function in FROM (`FROM LOWER($1) AS "x"`), its row may be a mere number or
//!   string, and `f` may be any function of one argument. So a text with a function in FROM never counts as harmless.

/// Keywords that SeaORM writes before a parenthesis.
const KEYWORDS_BEFORE_PARENTHESIS: [&str; 27] = [
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "BETWEEN",
    "CASE",
    "CONFLICT",
    "DISTINCT",
    "ELSE",
    "EXCEPT",
    "EXISTS",
    "FROM",
    "IN",
    "INTERSECT",
    "JOIN",
    "NOT",
    "ON",
    "OR",
    "OVER",
    "SELECT",
    "SOME",
    "THEN",
    "UNION",
    "VALUES",
    "WHEN",
    "WHERE",
];

/// Functions that SeaORM calls, and CAST. None of them changes the database session.
const SEA_ORM_FUNCTIONS: [&str; 9] = ["AVG", "CAST", "COALESCE", "COUNT", "LOWER", "MAX", "MIN", "SUM", "UPPER"];

/// Functions that are called without parentheses.
const FUNCTIONS_WITHOUT_PARENTHESES: [&str; 12] = [
    "CURRENT_CATALOG",
    "CURRENT_DATE",
    "CURRENT_ROLE",
    "CURRENT_SCHEMA",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "CURRENT_USER",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "SESSION_USER",
    "SYSTEM_USER",
    "USER",
];

/// The beginnings of the statements that SeaORM builds from entities.
const STATEMENT_PREFIXES: [&str; 4] = ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "];

/// Returns whether the text shows that the statement cannot change the database session. (`false` means only that the
/// text does not show it.)
pub(crate) fn cannot_change_session(sql: &str) -> bool {
    // A comment could stand between a name and its parenthesis.
    if !STATEMENT_PREFIXES.iter().any(|prefix| sql.starts_with(prefix)) || sql.contains("--") || sql.contains("/*") {
        return false;
    }
    let mut calls_function =
        sql.match_indices('(').any(|(index, _)| SEA_ORM_FUNCTIONS.contains(&word_before(&sql[..index])));
    for word in words(sql) {
        if is_system_name(word) {
            return false;
        }
        calls_function |= is_any(word, &FUNCTIONS_WITHOUT_PARENTHESES);
    }
    // In `U&"\0070g_settings"`, the name is not readable.
    if sql.contains("U&\"") || sql.contains("u&\"") || may_call_function_as_field(sql) {
        return false;
    }
    // Most texts call no function, and need no closer look.
    if calls_function && may_call_function_in_from(sql) {
        return false;
    }
    // `SELECT ... INTO` creates a table, which may be a temporary one. (The word can also occur in a name or a string;
    // the statement then counts as raw SQL without need.)
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
    // primary without need.) `cannot_change_session` also rules out the system views, whose rows differ from server to
    // server.
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

/// Whether the text contains the word, in upper or lower case.
fn has_word(sql: &str, word: &str) -> bool {
    words(sql).any(|other| other.eq_ignore_ascii_case(word))
}

/// Whether the word is one of these, in upper or lower case.
fn is_any(word: &str, others: &[&str]) -> bool {
    others.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// Whether the word is the name of a system object (`pg_...`), which may change the database session, or whose rows
/// differ from server to server. An update of the view `pg_settings` has the effect of `set_config`, for the rest of
/// the session; PostgreSQL lets every role do that.
fn is_system_name(word: &str) -> bool {
    word.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("pg_"))
}

/// Whether, as far as the text shows, a function could be called in FROM; `true` if in doubt. This matters only for the
/// functions that SeaORM calls and those without parentheses: a text with any other function is not harmless, wherever
/// the function stands.
fn may_call_function_in_from(sql: &str) -> bool {
    /// The words after which, in FROM, a parenthesis opens a subquery or a join, not the arguments of a function.
    const BEFORE_SUBQUERY_OR_JOIN: [&str; 3] = ["FROM", "JOIN", "LATERAL"];
    const BEGIN_OTHER_CLAUSE: [&str; 14] = [
        "SELECT",
        "WHERE",
        "GROUP",
        "ORDER",
        "HAVING",
        "WINDOW",
        "LIMIT",
        "OFFSET",
        "SET",
        "VALUES",
        "RETURNING",
        "UNION",
        "INTERSECT",
        "EXCEPT",
    ];
    /// The part of a query in which a word stands.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Clause {
        From,
        JoinCondition,
        Other,
    }
    // If there is a backslash (`E'\''`), a quote in a string may be escaped, so it is not known where the string ends.
    if sql.contains('\\') {
        return true;
    }
    // For each open parenthesis, the clause in which it stands.
    let mut outer_clauses = Vec::new();
    let (mut clause, mut last_word, mut rest) = (Clause::Other, "", sql);
    while let Some(character) = rest.chars().next() {
        let mut length = character.len_utf8();
        match character {
            // A string or a quoted name. A quote within a string is doubled, so the string looks like two strings.
            '\'' | '"' => {
                length = rest[1..].find(character).map_or(rest.len(), |index| index + 2);
                last_word = "";
            }
            '(' => {
                if clause == Clause::From && !last_word.is_empty() && !is_any(last_word, &BEFORE_SUBQUERY_OR_JOIN) {
                    return true;
                }
                outer_clauses.push(clause);
                if clause == Clause::JoinCondition {
                    clause = Clause::Other;
                }
                last_word = "";
            }
            ')' => clause = outer_clauses.pop().unwrap_or(Clause::Other),
            ',' => {
                if clause == Clause::JoinCondition {
                    clause = Clause::From;
                }
                last_word = "";
            }
            _ if is_part_of_name(character) => {
                length = rest.find(|character| !is_part_of_name(character)).unwrap_or(rest.len());
                last_word = &rest[..length];
                // A dollar quote (`$a$ ... $a$`) may contain anything.
                if last_word.matches('$').count() > 1 {
                    return true;
                }
                if clause == Clause::From && is_any(last_word, &FUNCTIONS_WITHOUT_PARENTHESES) {
                    return true;
                }
                if is_any(last_word, &["FROM", "JOIN", "USING"]) {
                    clause = Clause::From;
                } else if is_any(last_word, &["ON"]) {
                    clause = Clause::JoinCondition;
                } else if is_any(last_word, &BEGIN_OTHER_CLAUSE) {
                    clause = Clause::Other;
                }
            }
            _ => {}
        }
        rest = &rest[length..];
    }
    false
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
    let word = word_before(before);
    let before = before.trim_end_matches(is_sql_space);
    if word.is_empty() {
        return before.is_empty() || before.ends_with(['(', ',', '=', '<', '>', '+', '-', '*', '%', '|']);
    }
    // `x.COUNT(` does not call PostgreSQL's `COUNT` but a function of the schema `x`, which could do anything.
    let rest = &before[..before.len() - word.len()];
    !rest.trim_end_matches(is_sql_space).ends_with('.')
        && (KEYWORDS_BEFORE_PARENTHESIS.contains(&word) || SEA_ORM_FUNCTIONS.contains(&word))
}

/// Returns the word at the end of the text, before white space. Empty if there is none.
fn word_before(text: &str) -> &str {
    text.trim_end_matches(is_sql_space).rsplit(|character| !is_part_of_name(character)).next().unwrap_or_default()
}

fn is_part_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

#[cfg(test)]
mod tests;
