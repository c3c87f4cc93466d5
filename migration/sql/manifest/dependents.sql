-- Lists the given objects, which are to be dropped, and the objects that DROP ... CASCADE would drop or change with
-- them. The query follows the dependencies that the server records. If only a part of an object would be dropped (the
-- rule of a view, the default of a column, the trigger of a foreign key), the whole object is listed instead (the view,
-- the table, the foreign key). The caller replaces the comment in `to_drop` by the given objects, and the comment in
-- `ours` by the existing objects of the SPARC schema.
WITH RECURSIVE
  to_drop (classid, objid) AS (VALUES /* to_drop */),
  ours (classid, objid) AS (VALUES /* ours */),
  -- Each part of an object, with the object that it belongs to, and whether that object would be dropped with the part:
  -- a table stays if a default is dropped, and so does a type if a check is dropped.
  part AS (
    SELECT classid, objid, refclassid, refobjid, true AS drops_whole
    FROM pg_depend
    WHERE deptype = 'i'
    UNION
    SELECT 'pg_attrdef'::regclass, oid, 'pg_class'::regclass, adrelid, false
    FROM pg_attrdef
    UNION
    -- From PostgreSQL 18 on, the NOT NULL of a column is a constraint with a row in `pg_constraint`.
    SELECT 'pg_constraint'::regclass, oid, 'pg_class'::regclass, conrelid, false
    FROM pg_constraint
    WHERE contype = 'n' AND conrelid <> 0
    UNION
    SELECT 'pg_constraint'::regclass, oid, 'pg_type'::regclass, contypid, false
    FROM pg_constraint
    WHERE contypid <> 0
  ),
  -- The given objects, what would be dropped with them, and whole objects of which a part would be dropped. What
  -- depends on an object that would stay is not listed.
  reached (classid, objid, is_dropped) AS (
    SELECT classid::oid, objid, true FROM to_drop
    UNION
    SELECT step.classid, step.objid, step.is_dropped
    FROM reached
    CROSS JOIN LATERAL (
      SELECT dependent.classid, dependent.objid, true AS is_dropped
      FROM pg_depend AS dependent
      WHERE dependent.refclassid = reached.classid
        AND dependent.refobjid = reached.objid
        -- All kinds of dependency (normal, automatic, internal, partition), except those on an extension.
        AND dependent.deptype IN ('n', 'a', 'i', 'P', 'S')
        -- The crate `migration` drops a schema only once it is empty. So of the objects that depend on a schema, only
        -- its entries in publications and its default privileges are dropped with it.
        AND (
          dependent.refclassid <> 'pg_namespace'::regclass
          OR dependent.classid IN ('pg_publication_namespace'::regclass, 'pg_default_acl'::regclass)
        )
      UNION
      SELECT part.refclassid, part.refobjid, part.drops_whole
      FROM part
      WHERE part.classid = reached.classid
        AND part.objid = reached.objid
    ) AS step
    WHERE reached.is_dropped
  ),
  -- A subscription that replicates into one of the given tables would lose that table. Subscriptions are looked up
  -- here, because `pg_depend` does not record that a subscription depends on a table.
  subscription AS (
    SELECT 'pg_subscription'::regclass::oid AS classid, srsubid AS objid
    FROM pg_subscription_rel
    JOIN to_drop ON to_drop.classid = 'pg_class'::regclass AND to_drop.objid = srrelid
  ),
  listed AS (
    SELECT reached.classid, reached.objid
    FROM reached
    LEFT JOIN ours ON ours.classid::oid = reached.classid AND ours.objid = reached.objid
    LEFT JOIN pg_constraint AS table_constraint
      ON reached.classid = 'pg_constraint'::regclass AND table_constraint.oid = reached.objid
    LEFT JOIN pg_index AS table_index ON reached.classid = 'pg_class'::regclass AND indexrelid = reached.objid
    -- If a table that is not part of the SPARC schema inherits from one of ours, that table is listed, but its
    -- constraints and indexes are not.
    WHERE ours.objid IS NOT NULL
      OR NOT EXISTS (
        SELECT
        FROM reached AS child
        JOIN pg_inherits ON inhrelid = child.objid
        WHERE child.classid = 'pg_class'::regclass AND child.objid IN (table_constraint.conrelid, table_index.indrelid)
      )
    UNION
    SELECT classid, objid FROM subscription
  )
SELECT DISTINCT
  listed.classid::regclass::text AS class,
  listed.objid::bigint AS objid,
  pg_describe_object(listed.classid, listed.objid, 0) AS description,
  ours.objid IS NOT NULL AS is_ours
FROM listed
LEFT JOIN ours ON ours.classid::oid = listed.classid AND ours.objid = listed.objid
WHERE NOT EXISTS (
    SELECT FROM part WHERE part.classid = listed.classid AND part.objid = listed.objid
  )
  -- TOAST tables, in which the server stores long values, are not listed.
  AND NOT EXISTS (
    SELECT
    FROM pg_class
    WHERE listed.classid = 'pg_class'::regclass AND oid = listed.objid AND relnamespace = 'pg_toast'::regnamespace
  )
  -- A dropped table is also removed from the publication of the platform (Supabase); this removal is not listed.
  AND NOT (
    listed.classid = 'pg_publication_rel'::regclass
    AND EXISTS (
      SELECT
      FROM pg_publication_rel
      JOIN pg_publication ON pg_publication.oid = prpubid
      WHERE pg_publication_rel.oid = listed.objid AND pubname = 'supabase_realtime'
    )
  )
