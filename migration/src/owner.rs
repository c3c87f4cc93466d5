//! The role that owns the schema's objects.

/// What the catalog query appends to the definition of an object whose owner differs from that of the schema.
pub(crate) const OTHER_OWNER: &str = "owned by another role";

/// SQL for the oid of the role that should own all objects, the same as in the catalog query. It is the first of these
/// that exists: the role that owns most functions in schema `private`, the owner of the list of migrations, the owner
/// of schema `private`, the current role.
pub(crate) const SCHEMA_OWNER_SQL: &str = "coalesce(
  (
    SELECT mode() WITHIN GROUP (ORDER BY proowner)
    FROM pg_catalog.pg_proc
    WHERE pronamespace = pg_catalog.to_regnamespace('private')
  ),
  (
    SELECT relowner
    FROM pg_catalog.pg_class
    WHERE relnamespace = pg_catalog.to_regnamespace('public') AND relname = 'sparc_migrations'
  ),
  (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'private'),
  (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
)";
