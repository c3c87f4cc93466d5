//! What the schema stands on: Supabase's platform, or a stand-in for it on plain PostgreSQL.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, include_str!("../sql/platform/up.sql")).await?;
        if !crate::guard::has_auth(manager.get_connection()).await? {
            crate::execute(
                manager,
                "CREATE SCHEMA auth; COMMENT ON SCHEMA auth IS 'made by sparc: stand-in for the platform'",
            )
            .await?;
            manager.create_table(accounts()).await?;
            crate::execute(manager, include_str!("../sql/platform/auth.sql")).await?;
        }
        // SeaORM's list of migrations lies in `public`, where the API would serve it.
        crate::execute(
            manager,
            "ALTER TABLE seaql_migrations ENABLE ROW LEVEL SECURITY;
             REVOKE ALL ON TABLE seaql_migrations FROM PUBLIC, anon, authenticated, service_role",
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, include_str!("../sql/platform/down.sql")).await
    }
}

/// The columns of the platform's accounts that the schema relies on.
fn accounts() -> TableCreateStatement {
    Table::create()
        .table(("auth", "users"))
        .col(ColumnDef::new("id").uuid().primary_key().default(Expr::cust("gen_random_uuid()")))
        .col(ColumnDef::new("email").text())
        .col(ColumnDef::new("phone").text())
        .col(ColumnDef::new("raw_user_meta_data").json_binary())
        .col(ColumnDef::new("is_sso_user").boolean().not_null().default(false))
        .col(ColumnDef::new("is_anonymous").boolean().not_null().default(false))
        .col(ColumnDef::new("created_at").timestamp_with_time_zone().default(Expr::cust("now()")))
        .col(ColumnDef::new("deleted_at").timestamp_with_time_zone())
        .to_owned()
}
