//! The schema as one SQL script creates it, as a dump restores it in another project, and as `up` upgrades it from each
//! release.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use sea_orm::ConnectionTrait;
use sparc::migration::{self, MANIFEST, check, connect, sea_orm_migration::MigratorTrait};

use super::{Migrator, create_unmigrated_database, query_lines, read_catalog};

/// Runs a program with the given input. Returns its standard output or, if it fails, its standard error (as `Err`).
/// Returns `None` if the program is not installed.
pub fn run_program(name: &str, arguments: &[&str], input: &str) -> Option<Result<String, String>> {
    let mut child = match Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: this machine has no {name}");
            return None;
        }
        child => child.unwrap(),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join().unwrap();
    let into_text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Some(if output.status.success() { Ok(into_text(output.stdout)) } else { Err(into_text(output.stderr)) })
}

#[tokio::test]
async fn the_install_script_creates_what_up_creates_and_refuses_to_run_again() {
    let (_database, db) = create_unmigrated_database().await;
    Migrator::up(&db, None).await.unwrap();
    let migrated_catalog = read_catalog(&db).await;

    let (database, scripted_db) = create_unmigrated_database().await;
    let Some(outcome) =
        run_program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", database.url()], &migration::install_script())
    else {
        return;
    };
    outcome.unwrap();
    assert_eq!(read_catalog(&scripted_db).await, migrated_catalog);
    assert!(check(&scripted_db).await.unwrap().is_clean());
    assert_eq!(migration::full_manifest_of(&scripted_db).await.unwrap(), MANIFEST);
    let catalog_before = read_catalog(&scripted_db).await;
    Migrator::up(&scripted_db, None).await.unwrap();
    assert_eq!(read_catalog(&scripted_db).await, catalog_before);
    assert_eq!(Migrator::get_pending_migrations(&scripted_db).await.unwrap().len(), 0);
    let second_run =
        run_program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", database.url()], &migration::install_script())
            .unwrap();
    assert!(second_run.unwrap_err().contains("has the schema already"));
    Migrator::reset(&scripted_db).await.unwrap();
}

/// psql sends each statement on its own. Other clients, such as SQLx, send a text of several statements as one query.
#[tokio::test]
async fn the_install_script_also_runs_as_one_query() {
    let (_database, db) = create_unmigrated_database().await;
    db.execute_unprepared(&migration::install_script()).await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());
}

#[tokio::test]
async fn the_sql_of_a_dry_run_creates_the_schema() {
    use sparc::migration::sea_orm_migration::IntoSchemaManagerConnection;
    let (_database, db) = create_unmigrated_database().await;
    let catalog_before = read_catalog(&db).await;
    let sql = migration::dry_run(&(&db).into_database_executor()).await.unwrap();
    assert_eq!(read_catalog(&db).await, catalog_before, "a dry run must change nothing");
    db.execute_unprepared(&sql).await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());
}

#[tokio::test]
async fn up_revokes_what_default_privileges_grant_on_the_tables_of_a_restored_dump() {
    let server = testdb::Server::start_supabase(None).await.unwrap();
    let old_project = server.create_migrated().await.unwrap();
    let new_project = server.create_unmigrated().await.unwrap();
    let arguments = ["-n", "public", "-n", "private", "--no-owner", old_project.url()];
    let Some(dump) = run_program("pg_dump", &arguments, "") else { return };
    let dump = match dump {
        Err(error) if error.contains("version mismatch") => {
            eprintln!("skipped: pg_dump is older than the server");
            return;
        }
        dump => dump.unwrap(),
    };
    // A new project already has schema `public`. An older psql does not know the commands `\restrict` and
    // `\unrestrict`.
    let dump = dump.replace("CREATE SCHEMA public;", "").replace("\\restrict", "-- ").replace("\\unrestrict", "-- ");
    // The dump also contains the superuser's default privileges, which the owner may not set. psql reports an
    // error for each of them and continues.
    run_program("psql", &["-X", "-q", new_project.url()], &dump).unwrap().unwrap();
    let db = connect(new_project.url()).await.unwrap();
    let select_privileges = "SELECT has_column_privilege('anon', 'public.users', 'email', 'SELECT') || ' ' ||
        has_table_privilege('anon', 'public.users', 'TRUNCATE')";
    assert_eq!(
        query_lines(&db, select_privileges).await,
        ["true true"],
        "before `up`, the platform's default privileges must give access"
    );
    // A user signs up before the triggers on accounts exist. `up` creates the missing profile.
    let id = uuid::Uuid::new_v4();
    db.execute_unprepared(&format!("INSERT INTO auth.users (id, email) VALUES ('{id}', 'early@x.org')")).await.unwrap();

    let report = check(&db).await.unwrap();
    let objects: Vec<&str> = report.differences.iter().map(|difference| difference.object.as_str()).collect();
    assert!(objects.contains(&"grant on table public.users to anon"), "{objects:?}");
    assert!(objects.contains(&"trigger on_auth_user_created on auth.users"), "{objects:?}");
    Migrator::up(&db, None).await.unwrap();
    assert_eq!(query_lines(&db, select_privileges).await, ["false false"]);
    let report = check(&db).await.unwrap();
    // The new project has an empty publication, and the dump does not say which tables belong to it. The operator may
    // have removed a table from the publication on purpose, so `check` reports each missing table only as a hint.
    assert!(report.is_clean() && report.hints.iter().any(|hint| hint.starts_with("publication ")), "{report:#?}");
    assert_eq!(
        query_lines(&db, "SELECT display_name FROM public.users").await,
        ["early"],
        "every account must have a profile"
    );
}

/// `tests/upgrade/` contains the schema of each release since 0.17.0, as printed by that release's `sql` command.
#[tokio::test]
async fn up_upgrades_the_schema_of_every_release_and_keeps_its_rows() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade");
    let mut release_count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "gz") {
            continue;
        }
        let Some(sql) = run_program("gzip", &["-dc", path.to_str().unwrap()], "") else { return };
        let sql = sql.unwrap();
        if path.ends_with(concat!(env!("CARGO_PKG_VERSION"), ".sql.gz")) {
            assert!(
                sql == migration::install_script(),
                "{} is out of date: regenerate it (tests/upgrade/README.md) or, if this version is released, raise the \
                 version",
                path.display()
            );
        }
        let (_database, db) = create_unmigrated_database().await;
        db.execute_unprepared(&sql).await.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let id = uuid::Uuid::new_v4();
        // `up` can create a profile again from its account, but not the bio.
        db.execute_unprepared(&format!(
            "INSERT INTO auth.users (id, email) VALUES ('{id}', 'ada@x.org'); UPDATE public.users SET bio = 'kept'"
        ))
        .await
        .unwrap();
        Migrator::up(&db, None).await.unwrap();
        assert!(check(&db).await.unwrap().is_clean(), "{}", path.display());
        assert_eq!(migration::full_manifest_of(&db).await.unwrap(), MANIFEST, "{}", path.display());
        let select_profile = "SELECT display_name || ' ' || bio FROM public.users";
        assert_eq!(query_lines(&db, select_profile).await, ["ada kept"], "{}", path.display());
        Migrator::reset(&db).await.unwrap();
        release_count += 1;
    }
    assert!(release_count > 0);
}
