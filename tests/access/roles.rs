//! What a role may touch at all: columns, tables as a whole, functions.

use std::fmt::Write;

use crate::world::{Person, World};

use super::{heading, line};

/// Whether the role's privileges let the statement begin; what it then says of the row is no matter.
async fn lets(person: &Person, sql: &str) -> bool {
    // 428C9: a column that the server alone fills, which is said before privileges are looked at.
    person.exec(sql).await.map_or_else(|refused| !refused.is_forbidden() && refused.code != "428C9", |_| true)
}

fn roles(world: &World) -> [(&'static str, Person); 3] {
    [
        ("`anon`", world.visitor()),
        ("`authenticated`", world.user(uuid::Uuid::new_v4())),
        ("`service_role`", world.service()),
    ]
}

/// Every column of every table, whatever the catalog says of it: no row is touched.
pub async fn write_columns(world: &World, page: &mut String) {
    let roles = roles(world);
    heading(
        page,
        "Columns",
        "r: selects it, i: inserts it, u: updates it; of the table as a whole, d: deletes rows, t: truncates, m: makes a\n\
         trigger on it. Which rows is said above.",
        &["table", "column", "visitor", "user", "service"],
    );
    let owner = world.owner();
    let tables: Vec<String> = owner
        .values(
            "SELECT relname::text FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY relname",
        )
        .await
        .unwrap();
    for table in tables {
        let mut cells = vec![format!("`{table}`"), String::new()];
        for (_, person) in &roles {
            let mut letters = String::new();
            for (letter, sql) in [
                ('d', format!("DELETE FROM public.{table} WHERE false")),
                ('t', format!("TRUNCATE public.{table}")),
                (
                    'm',
                    format!(
                        "CREATE TRIGGER mine BEFORE INSERT ON public.{table}
                         EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                    ),
                ),
            ] {
                if lets(person, &sql).await {
                    letters.push(letter);
                }
            }
            cells.push(letters);
        }
        line(page, &cells);
        let columns = format!(
            "SELECT attname::text FROM pg_attribute
             WHERE attrelid = 'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        );
        for column in owner.values::<String>(&columns).await.unwrap() {
            let mut cells = vec![String::new(), format!("`{column}`")];
            for (_, person) in &roles {
                let mut letters = String::new();
                for (letter, sql) in [
                    ('r', format!("SELECT {column} FROM public.{table} LIMIT 0")),
                    ('i', format!("INSERT INTO public.{table} ({column}) SELECT NULL WHERE false")),
                    ('u', format!("UPDATE public.{table} SET {column} = DEFAULT WHERE false")),
                ] {
                    if lets(person, &sql).await {
                        letters.push(letter);
                    }
                }
                cells.push(letters);
            }
            line(page, &cells);
        }
    }
}

/// Every function that is not a trigger's, called with nulls; and what stands beside tables and functions.
pub async fn write_functions(world: &World, page: &mut String) {
    let roles = roles(world);
    heading(
        page,
        "Functions",
        "x: may call it. Schema `private` is not served by the API. What policies call there tells a caller only about the\n\
         caller; what gives more than plain row access says so. No trigger function can be called.",
        &["function", "visitor", "user", "service", "gives beyond plain row access"],
    );
    let functions: Vec<String> = world
        .owner()
        .values(
            "SELECT format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(function.oid))
             FROM pg_proc AS function JOIN pg_namespace AS schema ON schema.oid = pronamespace
             WHERE nspname IN ('public', 'private') ORDER BY 1",
        )
        .await
        .unwrap();
    for function in functions {
        let mut cells = vec![format!("`{function}`")];
        for (_, person) in &roles {
            let (name, arguments) = function.trim_end_matches(')').split_once('(').unwrap();
            let nulls: Vec<String> = arguments
                .split(", ")
                .filter(|argument| !argument.is_empty())
                .map(|argument| format!("NULL::{}", argument.split_once(' ').unwrap().1))
                .collect();
            cells.push(if lets_call(person, name, &nulls.join(", ")).await { "x" } else { "" }.to_owned());
        }
        if cells[1..].iter().all(String::is_empty) {
            continue;
        }
        let name = function.split(['.', '(']).nth(1).unwrap();
        cells.push(ELEVATED.iter().find(|(elevated, _)| *elevated == name).map_or("", |(_, gives)| *gives).to_owned());
        line(page, &cells);
    }
    page.push_str(
        "\nNobody of the API makes a table, a function or a schema, draws from a sequence, or reads `auth.users` (but the\nservice, where that is our stand-in):\n",
    );
    for (role, person) in &roles {
        for sql in [
            "CREATE TABLE public.mine ()",
            "CREATE TABLE private.mine ()",
            "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "CREATE SCHEMA mine",
            "SELECT nextval('public.session_events_seq_seq')",
            "SELECT * FROM auth.users",
            "UPDATE auth.users SET email = 'x'",
            "SET LOCAL session_replication_role = replica",
            "ALTER TABLE public.users DISABLE ROW LEVEL SECURITY",
            "COPY public.users TO PROGRAM 'true'",
        ] {
            // Where the platform keeps no accounts, the service does.
            let keeps_accounts = *role == "`service_role`" && sql.contains("auth.users");
            assert_eq!(lets(person, sql).await, keeps_accounts, "{role}: {sql}");
        }
    }
    writeln!(page, "each was tried, as was COPY to a program, switching row security off, and the triggers.").unwrap();
}

/// What a call may be refused with besides the privilege: a function that says no by itself uses the same code, and so
/// does one that calls another.
async fn lets_call(person: &Person, name: &str, arguments: &str) -> bool {
    let denied = format!("permission denied for function {}", name.split('.').next_back().unwrap());
    let outcome = person.exec(&format!("SELECT {name}({arguments})")).await;
    outcome.map_or_else(|refused| refused.message != denied, |_| true)
}

const ELEVATED: &[(&str, &str)] = &[
    ("join_by_code", "a seat in the session of that code, public or private"),
    ("session_by_code", "the card of the session of that code, before sitting down"),
    (
        "initiative_order",
        "the order of rolls at own tables: ties by grace, which stands on sheets that the table does not see",
    ),
    (
        "change_hit_points",
        "hit points of the own character, or, to a Seer, of one that sits at a table of theirs which plays",
    ),
    ("close_account", "the own account erased; to the service, any"),
    ("my_email", "the own address"),
    (
        "session_details",
        "a session that the caller sees: its mates' names and classes, its adventure, the content for the table alone",
    ),
    ("clean_events", "upkeep in batches"),
    ("event_clock", "whether anybody wrote an event, for live events"),
    ("event_history", "whether the server is still the one that was read from, for live events"),
    ("listener_status", "whether an account may listen to a session, for live events"),
    ("my_listener_status", "whether the caller may listen to a session"),
    ("require_listener", "whether the caller may listen to a session"),
    ("archive_sessions", "upkeep in batches"),
    ("cancel_abandoned_sessions", "upkeep in batches"),
    ("renew_session_code", "another code for a live session of one's own; to the service, for any"),
];
