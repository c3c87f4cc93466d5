//! Determines who may do what by trying it: every kind of user attempts to read and write every kind of row, and every
//! role attempts to use every column and function. The results are in `docs/generated/access.md`. If the results differ
//! from that page, the test fails.

use std::fmt::Write;

use sea_orm::ConnectionTrait;

use crate::{
    documents::assert_up_to_date,
    world::{SqlCaller, into_sql_error},
};

mod fixture;
mod roles;
mod rows;
mod two_connections;

/// The result of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// A row was read or written.
    Done,
    /// A missing privilege or a policy refused the attempt, or row security hid the row.
    NoAccess,
    /// Privileges and policies allow the attempt, but a rule of the game refuses it.
    RefusedByRule,
}

/// Runs the statement, rolls it back, and returns its result.
async fn attempt(caller: &SqlCaller, sql: &str) -> Attempt {
    let transaction = caller.begin().await;
    let attempt = match transaction.execute_unprepared(sql).await.map_err(into_sql_error) {
        Ok(result) if result.rows_affected() > 0 => Attempt::Done,
        Ok(_) => Attempt::NoAccess,
        Err(refused) if refused.is_forbidden() => Attempt::NoAccess,
        Err(refused) => {
            // The schema's own errors, and integrity constraint violations.
            assert!(refused.code.starts_with("SP") || refused.code.starts_with("23"), "{refused:?}: {sql}");
            Attempt::RefusedByRule
        }
    };
    transaction.rollback().await.unwrap();
    attempt
}

const INTRODUCTION: &str = "# Access\n\n\
    Who may do what by plain row access. `tests/access/` attempts every kind of access to every kind of row as every kind of\n\
    user, and to every column and function as every role, and compares the results with this page. To update it, run\n\
    `SPARC_WRITE_DOCS=1 cargo test --test integration access`, and review the difference before you commit it.\n\
    Who may call which operation of the service, and which errors the others get, is in [api.md](api.md).\n\n\
    The **visitor** is `anon`, the **service** is `service_role`, and all others are `authenticated`. The **player** has a seat\n\
    in the session. **left** is a player who left it; **retired** left too, and retired the character. **removed** was removed by\n\
    the Seer. **closed** had a seat until the account was closed, and still has a token. The **Seer** runs the session and\n\
    created its adventure; the **other Seer** runs another session; the **stranger** has no part in it.\n\n\
    A letter is an attempt that succeeds. For a letter in brackets, access would allow the attempt, but a rule of the game\n\
    refuses it: a limit, the status machine, or history that must be kept. Any other letter of the section is refused by row\n\
    security or a privilege.\n";

#[tokio::test]
async fn the_page_about_access_is_up_to_date() {
    let fixture = fixture::Fixture::new().await;
    let mut page = INTRODUCTION.to_owned();
    rows::write_sections(&fixture, &mut page).await;
    rows::write_transitions(&fixture, &mut page).await;
    roles::write_columns(&fixture.world, &mut page).await;
    roles::write_functions(&fixture.world, &mut page).await;
    let tables = "SELECT DISTINCT tablename::text FROM pg_policies WHERE schemaname = 'public' ORDER BY 1";
    for table in fixture.world.owner().fetch_values::<String>(tables).await.unwrap() {
        let has_section = page
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .any(|title| title.split(", ").any(|name| name == table));
        assert!(has_section, "tests/access/rows.rs must attempt every access to the rows of {table}");
    }
    assert_up_to_date("access.md", &page, "access");
}

/// Writes the heading and introduction of a section of the page, and the head of the section's table.
fn write_heading(page: &mut String, title: &str, introduction: &str, columns: &[&str]) {
    write!(
        page,
        "\n## {title}\n\n{introduction}\n\n| {} |\n|{}\n",
        columns.join(" | "),
        " --- |".repeat(columns.len())
    )
    .unwrap();
}

/// Writes a row of a table of the page.
fn write_row(page: &mut String, cells: &[String]) {
    writeln!(page, "| {} |", cells.join(" | ")).unwrap();
}
