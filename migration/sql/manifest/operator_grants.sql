-- Lists the GRANT statements for the privileges that operators' roles have on the given views, functions and tables, so
-- that the privileges can be restored after these objects are dropped and created again. If a privilege is on a column,
-- `column_name` names it. An operator is a person who runs the database; an operator's role is any role but the
-- object's owner and the API's roles (`anon`, `authenticated`, `service_role`). The caller replaces the comment in
-- `to_recreate` by the given objects: for each, its name in the manifest (`view ...`, `function ...` or `table ...`),
-- its name as GRANT expects it (`TABLE ...` or `ROUTINE ...`), and its oid.
WITH
  to_recreate (object, target, oid) AS (VALUES /* to_recreate */),
  -- The privileges on the given objects, one row for each privilege and grantee; `attname` is NULL unless the privilege
  -- is on a column.
  acl AS (
    SELECT object, target, relowner AS owner, NULL::name AS attname, acl_item.*
    FROM to_recreate
    JOIN pg_class USING (oid)
    CROSS JOIN LATERAL aclexplode(relacl) AS acl_item
    WHERE target LIKE 'TABLE %'
    UNION ALL
    SELECT object, target, relowner, attname, acl_item.*
    FROM to_recreate
    JOIN pg_class USING (oid)
    JOIN pg_attribute ON attrelid = oid AND attnum > 0 AND NOT attisdropped
    CROSS JOIN LATERAL aclexplode(attacl) AS acl_item
    WHERE target LIKE 'TABLE %'
    UNION ALL
    SELECT object, target, proowner, NULL, acl_item.*
    FROM to_recreate
    JOIN pg_proc USING (oid)
    CROSS JOIN LATERAL aclexplode(proacl) AS acl_item
    WHERE target LIKE 'ROUTINE %'
  )
SELECT DISTINCT
  object,
  quote_ident(attname) AS column_name,
  format(
    'GRANT %s%s ON %s TO %I%s',
    privilege_type,
    ' (' || quote_ident(attname) || ')', -- NULL if `attname` is; `format` prints nothing for it.
    target,
    rolname,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
  ) AS sql
FROM acl
JOIN pg_roles ON pg_roles.oid = grantee
WHERE grantee <> owner AND rolname NOT IN ('anon', 'authenticated', 'service_role')
ORDER BY 1, 3
