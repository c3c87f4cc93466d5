//! Writes the sections of the page `docs/generated/access.md` that say what each role's privileges allow on columns,
//! whole tables and functions.

use sea_orm::ConnectionTrait;

use crate::{
    sqlstates::{GENERATED_ALWAYS, WRONG_OBJECT_TYPE},
    world::{SqlCaller, World, into_sql_error},
};

use super::page::{write_row, write_section_start};

/// Runs the statement, rolls it back, and returns whether the role's privileges allow it. A statement that they allow
/// can still fail, with another error.
async fn is_allowed(caller: &SqlCaller, sql: &str) -> bool {
    let transaction = caller.begin().await;
    let outcome = transaction.execute_unprepared(sql).await.map_err(into_sql_error);
    transaction.rollback().await.unwrap();
    // PostgreSQL reports two errors before it checks privileges: a generated or identity column cannot be written, and
    // a view does not support the operation. A statement that fails with one of them does not count as allowed.
    outcome.map_or_else(
        |refusal| {
            !refusal.is_insufficient_privilege()
                && ![GENERATED_ALWAYS, WRONG_OBJECT_TYPE].contains(&refusal.sqlstate.as_str())
        },
        |_| true,
    )
}

/// Returns each of the API's roles by its name, with a caller who has that role.
fn callers_by_role(world: &World) -> [(&'static str, SqlCaller); 3] {
    [
        ("`anon`", world.visitor()),
        ("`authenticated`", world.user(uuid::Uuid::new_v4())),
        ("`service_role`", world.service()),
    ]
}

/// Writes the section about columns. Attempts, with statements that match no row, to read and write every column of
/// every table and view in schema `public`, and to delete from every table and view. Also attempts to truncate each of
/// them, and to create a trigger on it. The attempts show the privileges independently of what the catalog says about
/// them. (`schema_rules.rs` checks that no API role has a privilege on a table in schema `private`.)
pub async fn write_columns_section(world: &World, page: &mut String) {
    let callers_by_role = callers_by_role(world);
    write_section_start(
        page,
        "Columns",
        "r: selects it, i: inserts it, u: updates it; for the whole table, d: deletes rows, t: truncates it, m: creates a\n\
         trigger on it. The sections above say which rows.",
        &["table", "column", "visitor", "user", "service"],
    );
    let owner = world.owner();
    let tables: Vec<String> = owner
        .fetch_values(
            "SELECT relname::text FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY relname",
        )
        .await
        .unwrap();
    for table in tables {
        let mut cells = vec![format!("`{table}`"), String::new()];
        for (_, caller) in &callers_by_role {
            let mut letters = String::new();
            for (letter, sql) in [
                ('d', format!("DELETE FROM public.{table} WHERE false")),
                ('t', format!("TRUNCATE public.{table}")),
                (
                    'm',
                    format!(
                        "CREATE TRIGGER attempted BEFORE INSERT ON public.{table}
                         EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                    ),
                ),
            ] {
                if is_allowed(caller, &sql).await {
                    letters.push(letter);
                }
            }
            cells.push(letters);
        }
        write_row(page, &cells);
        let select_columns = format!(
            "SELECT attname::text FROM pg_attribute
             WHERE attrelid = 'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        );
        for column in owner.fetch_values::<String>(&select_columns).await.unwrap() {
            let mut cells = vec![String::new(), format!("`{column}`")];
            for (_, caller) in &callers_by_role {
                let mut letters = String::new();
                for (letter, sql) in [
                    ('r', format!("SELECT {column} FROM public.{table} LIMIT 0")),
                    ('i', format!("INSERT INTO public.{table} ({column}) SELECT NULL WHERE false")),
                    ('u', format!("UPDATE public.{table} SET {column} = DEFAULT WHERE false")),
                ] {
                    if is_allowed(caller, &sql).await {
                        letters.push(letter);
                    }
                }
                cells.push(letters);
            }
            write_row(page, &cells);
        }
    }
}

/// Writes the section about functions. Calls every function with NULL arguments, and writes a row for each function
/// that some role may call. Below these rows, the page says what no API role may do; this Rust function asserts that.
pub async fn write_functions_section(world: &World, page: &mut String) {
    let callers_by_role = callers_by_role(world);
    write_section_start(
        page,
        "Functions",
        "x: may call it. The API does not serve schema `private`. The functions there that policies call reveal to a caller only\n\
         what concerns that caller; the last column says which ones give more than plain row access. No trigger function can be\n\
         called.",
        &["function", "visitor", "user", "service", "gives more than plain row access"],
    );
    let signatures: Vec<String> = world
        .owner()
        .fetch_values(
            "SELECT format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(function.oid))
             FROM pg_proc AS function JOIN pg_namespace AS schema ON schema.oid = pronamespace
             WHERE nspname IN ('public', 'private') ORDER BY 1",
        )
        .await
        .unwrap();
    for signature in signatures {
        let mut cells = vec![format!("`{signature}`")];
        for (_, caller) in &callers_by_role {
            let (qualified_name, arguments) = signature.trim_end_matches(')').split_once('(').unwrap();
            let nulls: Vec<String> = arguments
                .split(", ")
                .filter(|argument| !argument.is_empty())
                .map(|argument| format!("NULL::{}", argument.split_once(' ').unwrap().1))
                .collect();
            cells.push(if may_call(caller, qualified_name, &nulls.join(", ")).await { "x" } else { "" }.to_owned());
        }
        if cells[1..].iter().all(String::is_empty) {
            continue;
        }
        let name = signature.split(['.', '(']).nth(1).unwrap();
        let extra_access =
            EXTRA_ACCESS.iter().find(|(function, _)| *function == name).map_or("", |(_, access)| *access);
        cells.push(extra_access.to_owned());
        write_row(page, &cells);
    }
    page.push_str(
        "\nNo API role may create a table, a function or a schema, draw from a sequence, COPY to a program, disable row security or\ntriggers, or read or update `auth.users` (except the service, where `auth.users` is our stand-in). Each of these was\nattempted.\n",
    );
    for (role, caller) in &callers_by_role {
        for sql in [
            "CREATE TABLE public.attempted ()",
            "CREATE TABLE private.attempted ()",
            "CREATE FUNCTION public.attempted() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "CREATE SCHEMA attempted",
            "SELECT nextval('public.session_events_seq_seq')",
            "SELECT * FROM auth.users",
            "UPDATE auth.users SET email = 'x'",
            "SET LOCAL session_replication_role = replica",
            "ALTER TABLE public.users DISABLE ROW LEVEL SECURITY",
            "COPY public.users TO PROGRAM 'true'",
        ] {
            // In this database, `auth.users` is our stand-in, which the migrations create where Supabase's table is
            // missing. The service may read and write the stand-in.
            let should_be_allowed = *role == "`service_role`" && sql.contains("auth.users");
            assert_eq!(is_allowed(caller, sql).await, should_be_allowed, "{role}: {sql}");
        }
    }
}

/// Calls the function, and returns whether the role may call it. The message is compared, not the SQLSTATE, because a
/// missing privilege has the same SQLSTATE as a refusal by the body of the function, or by another function that the
/// body calls.
async fn may_call(caller: &SqlCaller, qualified_name: &str, arguments: &str) -> bool {
    let denied = format!("permission denied for function {}", qualified_name.split('.').next_back().unwrap());
    let outcome = caller.execute(&format!("SELECT {qualified_name}({arguments})")).await;
    outcome.map_or_else(|refusal| refusal.message != denied, |_| true)
}

/// The names of the functions that give to their caller what plain row access does not, each with what it gives.
const EXTRA_ACCESS: &[(&str, &str)] = &[
    ("join_by_code", "a seat in the session of that code, public or private"),
    ("session_by_code", "the summary of the session of that code, before joining"),
    (
        "initiative_order",
        "the order of rolls in the caller's own sessions: ties are broken by grace, which is on sheets that other participants do not see",
    ),
    (
        "change_hit_points",
        "hit points of the caller's own character, and, for a Seer, of one seated in their live session",
    ),
    ("close_account", "erases the caller's own account; for the service, any"),
    ("my_email", "the caller's own e-mail address"),
    ("get_session_details", "the same as `session_details`, as JSON"),
    (
        "session_details",
        "a session that the caller sees: the participants' names and classes, and its adventure, with the content only for participants",
    ),
    ("delete_old_events", "maintenance in batches"),
    ("event_number_progress", "whether any event was written, for live events"),
    ("event_history_id", "whether the server still has the history that was read, for live events"),
    ("event_access", "whether an account may subscribe to a session, for live events"),
    ("my_event_access", "whether the caller may subscribe to a session"),
    ("require_event_access", "whether the caller may subscribe to a session"),
    ("archive_sessions", "maintenance in batches"),
    ("cancel_abandoned_sessions", "maintenance in batches"),
    ("replace_session_code", "a new code for the Seer's own live session; for the service, for any"),
];
