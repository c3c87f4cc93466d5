//! What the game's schema needs from the platform (Supabase): roles and PostgreSQL schemas. This migration creates
//! those that the database lacks; on plain PostgreSQL, schema `auth` is then a stand-in for Supabase's. The migration
//! also creates schema `private` and the program's record, `private.sparc_record`.

use sea_orm_migration::prelude::*;

use crate::{query::execute_all, repeatable::privileges_on_schemas_sql};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager.get_connection(), &up_sql()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager.get_connection(), &[include_str!("../../sql/platform/down.sql").to_owned()]).await
    }
}

/// Returns the SQL that creates the API's roles, the schemas `auth` (as a stand-in for Supabase's), `extensions` and
/// `private`, two optional extensions, and the table `private.sparc_record`, each unless it exists. The SQL also sets
/// the privileges on what it creates, and those on schema `private` even if that schema existed before.
pub(super) fn up_sql() -> Vec<String> {
    let stand_in_sql = format!(
        "CREATE SCHEMA auth;
COMMENT ON SCHEMA auth IS 'made by sparc: stand-in for the platform';
{};
{}",
        auth_users_table().to_string(PostgresQueryBuilder),
        include_str!("../../sql/platform/auth.sql").trim_end()
    );
    let mut sql = vec![
        include_str!("../../sql/platform/up.sql").to_owned(),
        include_str!("../../sql/platform/record.sql").to_owned(),
        // The stand-in is one string, which is executed only if schema `auth` does not exist.
        format!(
            "DO $do$
BEGIN
  IF to_regnamespace('auth') IS NULL THEN
    EXECUTE $stand_in$
{stand_in_sql}
    $stand_in$;
  END IF;
END
$do$"
        ),
    ];
    sql.extend(privileges_on_schemas_sql());
    sql
}

/// Defines the stand-in's `auth.users`, which has only some columns of Supabase's table: those that the game's schema
/// uses, and also `is_sso_user` and `is_anonymous`.
fn auth_users_table() -> TableCreateStatement {
    Table::create()
        .table(("auth", "users"))
        .col(ColumnDef::new("id").uuid().primary_key().default(Expr::cust("gen_random_uuid()")))
        // The same type as Supabase's, because PostgreSQL prints it in the conditions of triggers, which are part of
        // the manifest.
        .col(ColumnDef::new("email").string_len(255))
        .col(ColumnDef::new("phone").text())
        .col(ColumnDef::new("raw_user_meta_data").json_binary())
        .col(ColumnDef::new("is_sso_user").boolean().not_null().default(false))
        .col(ColumnDef::new("is_anonymous").boolean().not_null().default(false))
        .col(ColumnDef::new("created_at").timestamp_with_time_zone().default(Expr::cust("now()")))
        .col(ColumnDef::new("deleted_at").timestamp_with_time_zone())
        .to_owned()
}
