//! SeaORM's own tests of transactions, shortened, and with the names of its types replaced: `DatabaseConnection` by
//! `IdentityConnection`, and `DatabaseTransaction` by `Transaction`. The imports of SeaORM's traits are unchanged. The
//! last test is not SeaORM's.

use rls::{Database, Identity, IdentityConnection, Options, Transaction};
use sea_orm::{
    AccessMode, DbBackend, IsolationLevel, RuntimeErr, Set, TransactionError, TransactionOptions, TransactionTrait,
    prelude::*,
};

mod bakery {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "bakery")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
        pub profit_margin: f64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use bakery::Entity as Bakery;

/// The context of a test, named as in SeaORM's tests. `db` is the connection that is tested; the other two fields are
/// the handle and the database that it belongs to.
struct TestContext {
    db: IdentityConnection,
    handle: Database,
    test_database: testdb::Database,
}

impl TestContext {
    async fn new() -> Self {
        let test_database = testdb::Server::open().await.unwrap().create_unmigrated().await.unwrap();
        let role = format!("baker_{}", uuid::Uuid::new_v4().simple());
        let schema = format!(
            "CREATE ROLE {role};
             CREATE TABLE bakery (id serial PRIMARY KEY, name text NOT NULL, profit_margin double precision NOT NULL);
             ALTER TABLE bakery ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON bakery TO {role} USING (current_setting('app.baker', true) = 'ada');
             GRANT ALL ON bakery TO {role};
             GRANT USAGE ON SEQUENCE bakery_id_seq TO {role}"
        );
        test_database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
        let handle = Database::connect(test_database.url(), &Options::default()).await.unwrap();
        let db = handle.as_identity(Identity::new(role).with_setting("app.baker", "ada"));
        Self { db, handle, test_database }
    }

    async fn delete(self) {
        self.handle.close().await.unwrap();
        drop(self.test_database);
    }
}

fn new_bakery(name: &str) -> bakery::ActiveModel {
    bakery::ActiveModel { name: Set(name.to_owned()), profit_margin: Set(10.4), ..Default::default() }
}

/// Counts the bakeries that the tests create: each has "Bakery" in its name.
async fn count_bakeries(db: &impl ConnectionTrait) -> usize {
    Bakery::find().filter(bakery::Column::Name.contains("Bakery")).all(db).await.unwrap().len()
}

fn forced_error<T>() -> Result<T, DbErr> {
    Err(DbErr::Query(RuntimeErr::Internal("Force Rollback!".to_owned())))
}

#[tokio::test]
async fn transaction() {
    let ctx = TestContext::new().await;
    ctx.db
        .transaction_async::<_, _, DbErr>(async |txn| {
            let _ = new_bakery("SeaSide Bakery").save(txn).await?;
            let _ = new_bakery("Top Bakery").save(txn).await?;
            assert_eq!(count_bakeries(txn).await, 2);
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(count_bakeries(&ctx.db).await, 2);
    ctx.delete().await;
}

#[tokio::test]
async fn transaction_with_reference() {
    let ctx = TestContext::new().await;
    let (name1, name2) = ("SeaSide Bakery", "Top Bakery");
    ctx.db.transaction_async(async |txn| _transaction_with_reference(txn, name1, name2, "Bakery").await).await.unwrap();
    ctx.delete().await;
}

async fn _transaction_with_reference(
    txn: &Transaction,
    name1: &str,
    name2: &str,
    search_name: &str,
) -> Result<(), DbErr> {
    let _ = new_bakery(name1).save(txn).await?;
    let _ = new_bakery(name2).save(txn).await?;
    let found = Bakery::find().filter(bakery::Column::Name.contains(search_name)).all(txn).await?;
    assert_eq!(found.len(), 2);
    Ok(())
}

#[tokio::test]
async fn transaction_begin_out_of_scope() -> Result<(), DbErr> {
    let ctx = TestContext::new().await;
    {
        // The transaction begins in this scope
        let txn = ctx.db.begin().await?;
        new_bakery("SeaSide Bakery").save(&txn).await?;
        assert_eq!(count_bakeries(&txn).await, 1);
        // The scope ends, and the transaction is dropped without a commit
    }
    assert_eq!(count_bakeries(&ctx.db).await, 0);
    ctx.delete().await;
    Ok(())
}

#[tokio::test]
async fn transaction_begin_commit() -> Result<(), DbErr> {
    let ctx = TestContext::new().await;
    {
        let txn = ctx.db.begin().await?;
        new_bakery("SeaSide Bakery").save(&txn).await?;
        assert_eq!(count_bakeries(&txn).await, 1);
        // Commit the changes before the end of the scope
        txn.commit().await?;
    }
    assert_eq!(count_bakeries(&ctx.db).await, 1);
    ctx.delete().await;
    Ok(())
}

#[tokio::test]
async fn transaction_begin_rollback() -> Result<(), DbErr> {
    let ctx = TestContext::new().await;
    {
        let txn = ctx.db.begin().await?;
        new_bakery("SeaSide Bakery").save(&txn).await?;
        // Roll back the changes before the end of the scope
        txn.rollback().await?;
    }
    assert_eq!(count_bakeries(&ctx.db).await, 0);
    ctx.delete().await;
    Ok(())
}

#[tokio::test]
async fn transaction_closure_commit_and_rollback() -> Result<(), DbErr> {
    let ctx = TestContext::new().await;
    let res = ctx
        .db
        .transaction::<_, _, DbErr>(|txn| {
            Box::pin(async move {
                new_bakery("SeaSide Bakery").save(txn).await?;
                assert_eq!(count_bakeries(txn).await, 1);
                Ok(())
            })
        })
        .await;
    assert!(res.is_ok());
    let res = ctx
        .db
        .transaction_async::<_, (), DbErr>(async |txn| {
            new_bakery("Top Bakery").save(txn).await?;
            assert_eq!(count_bakeries(txn).await, 2);
            forced_error()
        })
        .await;
    assert!(matches!(res, Err(TransactionError::Transaction(DbErr::Query(_)))), "{res:?}");
    assert_eq!(count_bakeries(&ctx.db).await, 1);
    ctx.delete().await;
    Ok(())
}

#[tokio::test]
async fn transaction_nested() {
    let ctx = TestContext::new().await;
    ctx.db
        .transaction_async::<_, _, DbErr>(async |txn| {
            let _ = new_bakery("SeaSide Bakery").save(txn).await?;
            let _ = new_bakery("Top Bakery").save(txn).await?;
            // A nested transaction that is committed; of the two nested in it, one is rolled back and one committed
            txn.transaction_async::<_, _, DbErr>(async |txn| {
                let _ = new_bakery("Nested Bakery").save(txn).await?;
                let is_err = txn
                    .transaction_async::<_, (), DbErr>(async |txn| {
                        let _ = new_bakery("Rock n Roll Bakery").save(txn).await?;
                        assert_eq!(count_bakeries(txn).await, 4);
                        forced_error()
                    })
                    .await
                    .is_err();
                assert!(is_err);
                assert_eq!(count_bakeries(txn).await, 3);
                txn.transaction_async::<_, _, DbErr>(async |txn| {
                    let _ = new_bakery("Rock n Roll Bakery").save(txn).await?;
                    Ok(())
                })
                .await
                .unwrap();
                assert_eq!(count_bakeries(txn).await, 4);
                Ok(())
            })
            .await
            .unwrap();
            // A nested transaction that is rolled back
            let is_err = txn
                .transaction_async::<_, (), DbErr>(async |txn| {
                    let _ = new_bakery("Rock n Roll Bakery").save(txn).await?;
                    assert_eq!(count_bakeries(txn).await, 5);
                    forced_error()
                })
                .await
                .is_err();
            assert!(is_err);
            assert_eq!(count_bakeries(txn).await, 4);
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(count_bakeries(&ctx.db).await, 4);
    ctx.delete().await;
}

#[tokio::test]
async fn transaction_with_config() -> Result<(), DbErr> {
    let ctx = TestContext::new().await;
    for (isolation_level, access_mode) in [
        (IsolationLevel::RepeatableRead, None),
        (IsolationLevel::ReadCommitted, None),
        (IsolationLevel::ReadCommitted, Some(AccessMode::ReadWrite)),
        (IsolationLevel::Serializable, Some(AccessMode::ReadWrite)),
    ] {
        ctx.db
            .transaction_with_config_async::<_, _, DbErr>(
                async |txn| {
                    let _ = new_bakery("SeaSide Bakery").save(txn).await?;
                    Ok(())
                },
                Some(isolation_level),
                access_mode,
            )
            .await
            .unwrap();
    }
    assert_eq!(count_bakeries(&ctx.db).await, 4);
    let options = TransactionOptions { access_mode: Some(AccessMode::ReadOnly), ..Default::default() };
    let txn = ctx.db.begin_with_options(options).await?;
    assert!(new_bakery("SeaSide Bakery").save(&txn).await.is_err());
    txn.rollback().await?;
    ctx.delete().await;
    Ok(())
}

#[tokio::test]
async fn get_database_backend_is_not_ambiguous_and_streams_and_pings_succeed() {
    // `StreamTrait` and `ConnectionTrait` both have a method `get_database_backend`. The calls below are not ambiguous,
    // because the connection and the transaction have an inherent method of that name, as SeaORM's own types do.
    use sea_orm::StreamTrait;
    let ctx = TestContext::new().await;
    assert_eq!(ctx.db.get_database_backend(), DbBackend::Postgres);
    let txn = ctx.db.begin().await.unwrap();
    assert_eq!(txn.get_database_backend(), DbBackend::Postgres);
    let begin_stream = StreamTrait::stream_raw(&txn, crate::statement("SELECT 1"));
    assert!(begin_stream.await.is_ok());
    drop(txn);
    ctx.db.ping().await.unwrap();
    ctx.delete().await;
}
