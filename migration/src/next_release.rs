//! Tests an upgrade that applies a new numbered migration to an existing schema. Until the second release there is no
//! such migration. So this module adds one to the migrations, and its objects to the manifest, but only for a thread
//! that calls [`use_next_release`].

mod tests;

use std::cell::Cell;

use sea_orm_migration::prelude::*;

use crate::query::execute_all;

thread_local! {
    static USES_NEXT_RELEASE: Cell<bool> = const { Cell::new(false) };
}

/// The lines of the manifest for what the migration creates.
const MANIFEST_LINES: &str = "column id of public.notes: uuid not null default gen_random_uuid()
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
pub(crate) fn add_migration_if_next_release(
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
    if USES_NEXT_RELEASE.get() { MANIFEST_LINES } else { "" }
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
