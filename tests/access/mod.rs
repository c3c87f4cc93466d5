//! Determines who may do what by trying it: every kind of user attempts to read and write every kind of row, and every
//! role attempts to use every column and function. The results are in `docs/generated/access.md`. If the results differ
//! from that page, the test in this file fails. (`repeated_writes.rs` has a test of its own, which writes no page.)

use crate::generated_docs::write_or_assert_up_to_date;

mod attempt;
mod fixture;
mod page;
mod repeated_writes;
mod roles;
mod rows;

const INTRODUCTION: &str = "# Access\n\n\
    Who may do what by *plain row access* (with SELECT, INSERT, UPDATE and DELETE of their own), and who may call\n\
    which function. `tests/access/` attempts every kind of access to every kind of row as every kind of user, and to\n\
    every column and function as every role, and compares the results with this page. To update it, run\n\
    `SPARC_WRITE_DOCS=1 cargo test --test integration access`, and review the difference before you commit it. Who\n\
    may call which operation of the crate `service`, and which errors the others get, is in [api.md](api.md).\n\n\
    The **visitor** is `anon`, the **service** is `service_role`, and all others are `authenticated`. The **player**\n\
    has a seat in the session. **left** is a player who left it; **retired** left too, and retired the character.\n\
    **removed** was removed by the Seer. **closed** had a seat until the account was closed, and still has a token.\n\
    The **Seer** runs the session and created its adventure; the **other Seer** runs another session; the\n\
    **stranger** has no part in it.\n\n\
    A letter is an attempt that succeeds. A letter in brackets is one that privileges and policies allow, but that a\n\
    rule of the game refuses: the account is closed, a limit is reached, the order of a session's statuses forbids it,\n\
    or history must be kept. Any other letter of the section is one that a missing privilege, row security, a trigger\n\
    or a function refuses, or for which the user has no such row.\n";

#[tokio::test]
async fn the_page_about_access_is_up_to_date() {
    let fixture = fixture::Fixture::new().await;
    let mut page = INTRODUCTION.to_owned();
    rows::write_sections(&fixture, &mut page).await;
    rows::write_transitions_section(&fixture, &mut page).await;
    roles::write_columns_section(&fixture.world, &mut page).await;
    roles::write_functions_section(&fixture.world, &mut page).await;
    let select_tables = "SELECT DISTINCT tablename::text FROM pg_policies WHERE schemaname = 'public' ORDER BY 1";
    for table in fixture.world.owner().fetch_values::<String>(select_tables).await.unwrap() {
        let has_section = page
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .any(|title| title.split(", ").any(|name| name == table));
        assert!(has_section, "tests/access/rows.rs must attempt every access to the rows of {table}");
    }
    write_or_assert_up_to_date("access.md", &page, "access");
}
