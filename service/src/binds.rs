//! The bound values of a statement whose SQL text is put together at run time, because its conditions depend on the
//! arguments.

use sea_orm::{DbBackend, Statement, Value};

/// The bound values of a statement, in the order of their placeholders.
#[derive(Clone, Debug, Default)]
pub(crate) struct Binds(Vec<Value>);

impl Binds {
    /// Binds the value and returns its placeholder.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> String {
        self.0.push(value.into());
        format!("${}", self.0.len())
    }

    /// Binds a LIKE pattern that matches the text anywhere. LIKE's special characters in the text are escaped.
    pub(crate) fn bind_contains_pattern(&mut self, text: &str) -> String {
        let text = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        self.bind(format!("%{text}%"))
    }

    /// Returns the statement with these bound values.
    pub(crate) fn into_statement(self, sql: String) -> Statement {
        Statement::from_sql_and_values(DbBackend::Postgres, sql, self.0)
    }
}
