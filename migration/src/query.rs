//! Questions to the catalog.

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

/// The one column `answer` of the one row.
pub(crate) async fn ask<C: ConnectionTrait>(db: &C, sql: &str) -> Result<bool, DbErr> {
    Ok(one::<C, Answer>(db, sql).await?.answer)
}

/// The one row.
pub(crate) async fn one<C: ConnectionTrait, T: FromQueryResult>(db: &C, sql: &str) -> Result<T, DbErr> {
    T::find_by_statement(Statement::from_string(DbBackend::Postgres, sql))
        .one(db)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("a catalog query gave no row".to_owned()))
}

/// Every row.
pub(crate) async fn all<C: ConnectionTrait, T: FromQueryResult>(db: &C, sql: &str) -> Result<Vec<T>, DbErr> {
    T::find_by_statement(Statement::from_string(DbBackend::Postgres, sql)).all(db).await
}

/// The column `name` of each row.
pub(crate) async fn list<C: ConnectionTrait>(db: &C, sql: &str) -> Result<Vec<String>, DbErr> {
    Ok(all::<C, Name>(db, sql).await?.into_iter().map(|row| row.name).collect())
}

/// A text as SQL writes it.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Texts in a list, as SQL writes it; never empty.
pub(crate) fn literals<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(literal).collect();
    if texts.is_empty() { "NULL".to_owned() } else { texts.join(", ") }
}
