//! The definition of a table, and the functions that make its parts: columns, foreign keys, indexes and checks.

use sea_orm_migration::prelude::*;

/// A table with its indexes.
pub(super) struct TableDefinition {
    pub(super) table: TableCreateStatement,
    pub(super) indexes: Vec<IndexCreateStatement>,
}

/// Returns a NOT NULL column.
pub(super) fn required(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).not_null().to_owned()
}

/// Returns a nullable column.
pub(super) fn optional(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name))
}

/// Returns `id UUID PRIMARY KEY DEFAULT gen_random_uuid()`.
pub(super) fn id_column() -> ColumnDef {
    required("id").uuid().primary_key().default(Expr::cust("gen_random_uuid()")).to_owned()
}

/// Returns `NAME TIMESTAMPTZ NOT NULL DEFAULT now()`.
pub(super) fn timestamp_now(name: &'static str) -> ColumnDef {
    required(name).timestamp_with_time_zone().default(Expr::cust("now()")).to_owned()
}

/// Returns `NAME INTEGER NOT NULL DEFAULT 0 CHECK (NAME >= 0)`. Triggers maintain most columns of this kind.
pub(super) fn counter(name: &'static str) -> ColumnDef {
    required(name).integer().default(0).check(Expr::cust(format!("{name} >= 0"))).to_owned()
}

/// Returns a foreign key to the column `id` of `target`, with the name that PostgreSQL would choose.
pub(super) fn foreign_key(
    table: &'static str,
    column: &'static str,
    target: impl IntoTableRef,
    on_delete: ForeignKeyAction,
) -> ForeignKeyCreateStatement {
    let mut key = ForeignKey::create();
    key.name(format!("{table}_{column}_fkey")).from(Alias::new(table), Alias::new(column)).to(target, Alias::new("id"));
    // NO ACTION is the default, and is omitted as in the specification.
    if !matches!(on_delete, ForeignKeyAction::NoAction) {
        key.on_delete(on_delete);
    }
    key.to_owned()
}

/// Returns an index that has no columns yet.
pub(super) fn index(name: &'static str, table: &'static str) -> IndexCreateStatement {
    Index::create().name(name).table(Alias::new(table)).to_owned()
}

/// Returns an index over plain ascending columns.
pub(super) fn index_on(name: &'static str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = index(name, table);
    for column in columns {
        index.col(Alias::new(*column));
    }
    index
}

/// Returns a check constraint with a name.
pub(super) fn named_check(name: &'static str, condition: &'static str) -> Check {
    Check::named(name, Expr::cust(condition))
}
