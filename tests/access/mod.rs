//! Who may do what, from attempts: every kind of row asked for by everybody, every column by every role, every function.
//! `docs/generated/access.md` is what came of them; a policy that lets more or fewer through makes it differ.

use std::fmt::Write;

use sea_orm::ConnectionTrait;

use crate::{
    documents::assert_up_to_date,
    world::{Person, refused},
};

mod roles;
mod rows;
mod scene;
mod twice;

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// A row was read or written.
    Done,
    /// A privilege or a policy said no, or no such row is seen.
    Closed,
    /// Access would let it through; a rule of the game says no.
    Ruled,
}

/// Tries the statement and takes it back.
async fn attempt(person: &Person, sql: &str) -> Came {
    let transaction = person.begin().await;
    let came = match transaction.execute_unprepared(sql).await.map_err(refused) {
        Ok(result) if result.rows_affected() > 0 => Came::Done,
        Ok(_) => Came::Closed,
        Err(refused) if refused.is_forbidden() => Came::Closed,
        Err(refused) => {
            assert!(refused.code.starts_with("SP") || refused.code.starts_with("23"), "{refused:?}: {sql}");
            Came::Ruled
        }
    };
    transaction.rollback().await.unwrap();
    came
}

const INTRODUCTION: &str = "# Access\n\n\
    Who may do what by plain row access, found by trying: `tests/access/` asks for every kind of row as everybody, for every\n\
    column and every function as every role, and compares this page with what came of it.\n\
    `SPARC_WRITE_DOCS=1 cargo test --test integration access` writes it anew; read the difference before it is committed.\n\
    Who may call which operation of the service, and what the others are told, is [api.md](api.md).\n\n\
    A **visitor** is `anon`, everybody else but the **service** (`service_role`) is `authenticated`. The **player** sits at the\n\
    table, the one who **left** did; the **retired** one left too, and the character that was played is retired. The Seer took\n\
    the **removed** one's seat away. The **closed** one sat there until the account was closed, and still has a token. The\n\
    **Seer** runs the table and made its adventure, the **other Seer** runs another; the **stranger** has no part in it.\n\n\
    A letter is an attempt that was done. In brackets, access lets it through and a rule of the game refuses it: a limit, the\n\
    status machine, history that would tear. An empty cell: row security or a privilege says no.\n";

#[tokio::test]
async fn the_matrix_of_access_is_as_documented() {
    let scene = scene::Scene::new().await;
    let mut page = INTRODUCTION.to_owned();
    rows::write(&scene, &mut page).await;
    rows::write_transitions(&scene, &mut page).await;
    roles::write_columns(&scene.world, &mut page).await;
    roles::write_functions(&scene.world, &mut page).await;
    assert_up_to_date("access.md", &page, "access");
}

fn heading(page: &mut String, title: &str, about: &str, columns: &[&str]) {
    write!(page, "\n## {title}\n\n{about}\n\n| {} |\n|{}\n", columns.join(" | "), " --- |".repeat(columns.len()))
        .unwrap();
}

fn line(page: &mut String, cells: &[String]) {
    writeln!(page, "| {} |", cells.join(" | ")).unwrap();
}
