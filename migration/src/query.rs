//! Runs statements and queries, and quotes literals for them.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{DbBackend, FromQueryResult, Statement},
};

#[derive(FromQueryResult)]
struct Answer {
    answer: bool,
}

#[derive(FromQueryResult)]
struct Name {
    name: String,
}

/// Returns the value of the only row, whose column must be called `answer`.
pub(crate) async fn fetch_bool<C: ConnectionTrait>(db: &C, sql: &str) -> Result<bool, DbErr> {
    Ok(fetch_one::<C, Answer>(db, sql).await?.answer)
}

/// Returns the first row, or an error if there is none.
pub(crate) async fn fetch_one<C: ConnectionTrait, T: FromQueryResult>(db: &C, sql: &str) -> Result<T, DbErr> {
    T::find_by_statement(Statement::from_string(DbBackend::Postgres, sql))
        .one(db)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("a query returned no row".to_owned()))
}

/// Returns all rows.
pub(crate) async fn fetch_all<C: ConnectionTrait, T: FromQueryResult>(db: &C, sql: &str) -> Result<Vec<T>, DbErr> {
    T::find_by_statement(Statement::from_string(DbBackend::Postgres, sql)).all(db).await
}

/// Returns the value of each row, whose column must be called `name`.
pub(crate) async fn fetch_names<C: ConnectionTrait>(db: &C, sql: &str) -> Result<Vec<String>, DbErr> {
    Ok(fetch_all::<C, Name>(db, sql).await?.into_iter().map(|row| row.name).collect())
}

/// Runs the statements one after the other.
pub(crate) async fn execute_all<C: ConnectionTrait>(db: &C, statements: &[String]) -> Result<(), DbErr> {
    for sql in statements {
        db.execute_unprepared(sql).await?;
    }
    Ok(())
}

/// Returns the text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the texts as a list of SQL literals, or NULL if there are none, because `IN ()` is an error.
pub(crate) fn literals<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(literal).collect();
    if texts.is_empty() { "NULL".to_owned() } else { texts.join(", ") }
}
