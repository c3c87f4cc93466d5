//! Tests an upgrade that applies a new numbered migration to an existing schema. Until the second release there is no
//! such migration. So this module adds one to the migrations, and its objects to the manifest, but only for a thread
//! that calls [`use_next_release`].

use std::cell::Cell;

use sea_orm_migration::prelude::*;

use crate::query::execute_all;

thread_local! {
    static USES_NEXT_RELEASE: Cell<bool> = const { Cell::new(false) };
}

/// The manifest of what the migration creates.
const LINES: &str = "column id of public.notes: uuid not null default gen_random_uuid()
column note of public.users: text
comment on column note of public.users: A note.
comment on table public.notes: Notes.
constraint notes_pkey on public.notes: PRIMARY KEY (id)
row security on public.notes: enabled
table public.notes: replica identity default";

fn use_next_release() {
    USES_NEXT_RELEASE.set(true);
}

fn use_this_release() {
    USES_NEXT_RELEASE.set(false);
}

/// Adds the migration, if this thread uses the next release.
pub(crate) fn add_migration_of_next_release(
    mut migrations: Vec<Box<dyn MigrationTrait>>,
) -> Vec<Box<dyn MigrationTrait>> {
    if USES_NEXT_RELEASE.get() {
        migrations.push(Box::new(Migration));
    }
    migrations
}

/// Returns the migration's name and SQL, if this thread uses the next release.
pub(crate) fn migration_sql() -> Option<(String, Vec<String>)> {
    USES_NEXT_RELEASE.get().then(|| (Migration.name().to_owned(), up_sql()))
}

/// Returns the lines of the manifest for the migration, if this thread uses the next release.
pub(crate) fn manifest_lines() -> &'static str {
    if USES_NEXT_RELEASE.get() { LINES } else { "" }
}

struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20991231_000001_notes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager.get_connection(), &up_sql()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = ["ALTER TABLE public.users DROP COLUMN note".to_owned(), "DROP TABLE public.notes".to_owned()];
        execute_all(manager.get_connection(), &sql).await
    }
}

fn up_sql() -> Vec<String> {
    [
        "ALTER TABLE public.users ADD COLUMN note text",
        "COMMENT ON COLUMN public.users.note IS 'A note.'",
        "CREATE TABLE public.notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid())",
        "COMMENT ON TABLE public.notes IS 'Notes.'",
        "ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY",
        "REVOKE ALL ON public.notes FROM PUBLIC, anon, authenticated, service_role",
    ]
    .map(str::to_owned)
    .to_vec()
}

mod tests {
    use sea_orm_migration::{
        MigrationName,
        sea_orm::{ConnectionTrait, DatabaseConnection},
    };
    use testdb::{Database, Server};

    use super::{Migration, use_next_release, use_this_release};
    use crate::{Command, SchemaChange, check, dry_run, run};

    /// Returns a database as an earlier release might have left it: a function and a policy have other definitions than
    /// in this release. It contains a user's account, and a view that an operator has created.
    async fn create_database_of_earlier_release() -> (Database, DatabaseConnection) {
        let database = Server::open().await.unwrap().create_migrated().await.unwrap();
        let db = database.connect(2).await.unwrap();
        let sql = "INSERT INTO auth.users (email) VALUES ('ada@x.org');
            CREATE VIEW public.names AS SELECT display_name FROM public.users;
            DROP FUNCTION private.event_progress() CASCADE;
            CREATE FUNCTION private.event_progress() RETURNS text LANGUAGE sql AS $$ SELECT 'none' $$;
            ALTER POLICY \"Users can update own profile\" ON public.users USING (true)";
        db.execute_unprepared(sql).await.unwrap();
        (database, db)
    }

    #[tokio::test]
    async fn a_numbered_migration_upgrades_a_schema_and_can_be_undone_without_the_earlier_ones() {
        let (_database, db) = create_database_of_earlier_release().await;
        let upgrade = SchemaChange::Applied(Migration.name().to_owned());
        use_next_release();
        assert_eq!(check(&db).await.unwrap().pending, [Migration.name()]);
        let changes = run(&(&db).into(), Command::Up(None)).await.unwrap();
        assert!(changes.contains(&upgrade), "{changes:?}");
        assert!(
            changes.contains(&SchemaChange::Changed("function private.event_progress()".to_owned())),
            "{changes:?}"
        );
        assert!(check(&db).await.unwrap().is_clean());
        assert_eq!(run(&(&db).into(), Command::Up(None)).await.unwrap(), []);
        db.execute_unprepared("SELECT note FROM public.users, public.names, public.notes").await.unwrap();

        // The operator's view uses only a table that stays, so the migration can be undone, and the view is kept.
        run(&(&db).into(), Command::Down(Some(1))).await.unwrap();
        db.execute_unprepared("SELECT FROM public.names").await.unwrap();
        assert_eq!(check(&db).await.unwrap().pending, [Migration.name()]);
        assert!(run(&(&db).into(), Command::Up(None)).await.unwrap().contains(&upgrade));
        assert!(check(&db).await.unwrap().is_clean());
    }

    #[tokio::test]
    async fn a_damaged_list_of_migrations_must_be_repaired_before_an_upgrade() {
        for sql in ["DELETE FROM public.sparc_migrations", "ALTER TABLE public.sparc_migrations DROP COLUMN version"] {
            let (_database, db) = create_database_of_earlier_release().await;
            db.execute_unprepared(sql).await.unwrap();
            use_next_release();
            let message = run(&(&db).into(), Command::Up(None)).await.unwrap_err().to_string();
            assert!(message.contains("run `up` of version"), "{sql}: {message}");
            use_this_release();
            run(&(&db).into(), Command::Up(None)).await.unwrap();
            use_next_release();
            run(&(&db).into(), Command::Up(None)).await.unwrap();
            assert!(check(&db).await.unwrap().is_clean(), "{sql}");
            use_this_release();
        }
    }

    #[tokio::test]
    async fn the_sql_of_a_dry_run_upgrades_a_schema() {
        let (_database, db) = create_database_of_earlier_release().await;
        use_next_release();
        let sql = dry_run(&(&db).into()).await.unwrap();
        assert_eq!(check(&db).await.unwrap().pending, [Migration.name()], "a dry run must change nothing");
        db.execute_unprepared(&sql).await.unwrap();
        assert!(check(&db).await.unwrap().is_clean());
        assert_eq!(dry_run(&(&db).into()).await.unwrap(), "");
    }
}
