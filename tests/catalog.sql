-- Lists the objects of a database: schemas, relations, columns, constraints, indexes, functions, triggers, rules,
-- policies, types, extensions and publications. The query returns one row per object or column, one for the owner of
-- each object, and one per comment, and tests compare databases by these rows. The row of an object has its definition.
-- For a schema, relation, column or function, it also has the privileges; and for a schema or an extension, which
-- `initdb` may have created, the comment. The privileges are sorted, because PostgreSQL keeps them in the order in
-- which they were granted.
WITH user_schemas AS (
  SELECT oid, nspname
  FROM pg_namespace
  WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
)
SELECT line
FROM (
  SELECT 'schema ' || nspname || ' '
    || coalesce((SELECT array_agg(item::text ORDER BY item::text COLLATE "C") FROM unnest(nspacl) AS item)::text, '')
    || ' ' || coalesce(obj_description(oid, 'pg_namespace'), '')
  FROM pg_namespace WHERE oid IN (SELECT oid FROM user_schemas)
  UNION ALL
  SELECT 'relation ' || oid::regclass || ' ' || relkind::text || ' ' || relrowsecurity || ' ' || relforcerowsecurity || ' '
    || coalesce(reloptions::text, '') || ' '
    || coalesce((SELECT array_agg(item::text ORDER BY item::text COLLATE "C") FROM unnest(relacl) AS item)::text, '')
    || coalesce(CASE WHEN relkind = 'v' THEN ' ' || pg_get_viewdef(oid) END, '')
  FROM pg_class WHERE relnamespace IN (SELECT oid FROM user_schemas)
  UNION ALL
  SELECT 'column ' || attrelid::regclass || '.' || attname || ' '
    || format_type(atttypid, atttypmod) || ' ' || attnotnull || ' ' || attidentity::text || ' '
    || coalesce(pg_get_expr(adbin, adrelid), '') || ' '
    || coalesce((SELECT array_agg(item::text ORDER BY item::text COLLATE "C") FROM unnest(attacl) AS item)::text, '')
  FROM pg_attribute
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
  WHERE attrelid IN (
      SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM user_schemas) AND relkind IN ('r', 'v')
    )
    AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace IN (SELECT oid FROM user_schemas) AND conrelid <> 0
  UNION ALL
  SELECT 'index ' || pg_get_indexdef(indexrelid)
  FROM pg_index WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM user_schemas))
  UNION ALL
  SELECT 'function ' || pg_get_functiondef(oid) || ' '
    || coalesce((SELECT array_agg(item::text ORDER BY item::text COLLATE "C") FROM unnest(proacl) AS item)::text, '')
  FROM pg_proc WHERE pronamespace IN (SELECT oid FROM user_schemas) AND prokind = 'f'
  UNION ALL
  SELECT 'trigger ' || tgenabled::text || ' ' || pg_get_triggerdef(oid)
  FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL
  SELECT 'policy ' || tablename || ' ' || policyname || ' ' || permissive || ' ' || cmd || ' ' || roles::text || ' '
    || coalesce(qual, '') || ' ' || coalesce(with_check, '')
  FROM pg_policies
  UNION ALL
  SELECT 'type ' || oid::regtype || ' ' || typtype::text || ' '
    || coalesce(
      (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = pg_type.oid), ''
    )
  FROM pg_type WHERE typnamespace IN (SELECT oid FROM user_schemas)
  UNION ALL
  SELECT 'extension ' || extname || ' ' || coalesce(obj_description(oid, 'pg_extension'), '')
  FROM pg_extension
  UNION ALL
  SELECT 'publication ' || pubname || ' '
    || coalesce(
      (
        SELECT string_agg(schemaname || '.' || tablename, ',' ORDER BY tablename)
        FROM pg_publication_tables AS published
        WHERE published.pubname = pg_publication.pubname
      ),
      ''
    )
  FROM pg_publication
  UNION ALL
  SELECT 'rule ' || pg_get_ruledef(oid)
  FROM pg_rewrite
  WHERE ev_class IN (SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM user_schemas))
  UNION ALL
  -- `pg_shdepend` has no rows for objects that the bootstrap superuser (the one that `initdb` created) owns, and none
  -- for objects that belong to the owner of their table, such as indexes and triggers.
  SELECT 'owner of ' || pg_describe_object(classid, objid, objsubid) || ' ' || refobjid::regrole
  FROM pg_shdepend
  WHERE deptype = 'o' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  -- Objects with ids below 16384 were created by `initdb`.
  SELECT 'comment on ' || pg_describe_object(classoid, objoid, objsubid) || ' ' || description
  FROM pg_description
  WHERE objoid >= 16384
) AS everything (line)
ORDER BY line COLLATE "C"
