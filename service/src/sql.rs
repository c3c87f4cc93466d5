//! Statements whose conditions depend on what was asked, as text with bound values.

use sea_orm::{DbBackend, Statement, Value};

/// The values of a statement, in the order in which its text names them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Binds(Vec<Value>);

impl Binds {
    /// The name that stands for the value in the text.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> String {
        self.0.push(value.into());
        format!("${}", self.0.len())
    }

    /// A pattern that matches where the text stands anywhere. What a person types means itself, also where LIKE gives
    /// it a meaning.
    pub(crate) fn bind_search(&mut self, text: &str) -> String {
        let text = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        self.bind(format!("%{text}%"))
    }

    pub(crate) fn statement(self, sql: String) -> Statement {
        Statement::from_sql_and_values(DbBackend::Postgres, sql, self.0)
    }
}
