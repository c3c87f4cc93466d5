-- Lists the objects that dropping the given ones would cascade to, by the server's own dependencies. A part of another
-- object (the rule of a view, the default of a column, the trigger of a foreign key) is listed as that object.
WITH RECURSIVE
  dropped (classid, objid) AS (VALUES /* dropped */),
  ours (classid, objid) AS (VALUES /* ours */),
  whole AS (
    SELECT classid, objid, refclassid, refobjid
    FROM pg_depend
    WHERE deptype = 'i'
    UNION
    SELECT 'pg_attrdef'::regclass, oid, 'pg_class'::regclass, adrelid
    FROM pg_attrdef
    UNION
    -- NOT NULL is a constraint since version 18.
    SELECT 'pg_constraint'::regclass, oid, 'pg_class'::regclass, conrelid
    FROM pg_constraint
    WHERE contype = 'n' AND conrelid <> 0
  ),
  reached (classid, objid) AS (
    SELECT classid::oid, objid FROM dropped
    UNION
    SELECT step.classid, step.objid
    FROM reached
    CROSS JOIN LATERAL (
      SELECT dependent.classid, dependent.objid
      FROM pg_depend AS dependent
      WHERE dependent.refclassid = reached.classid
        AND dependent.refobjid = reached.objid
        AND dependent.deptype IN ('n', 'a', 'i', 'P', 'S')
      UNION
      SELECT whole.refclassid, whole.refobjid
      FROM whole
      WHERE whole.classid = reached.classid
        AND whole.objid = reached.objid
    ) AS step
  )
SELECT DISTINCT
  reached.classid::regclass::text AS class,
  reached.objid::bigint AS objid,
  pg_describe_object(reached.classid, reached.objid, 0) AS description,
  ours.objid IS NOT NULL AS is_ours
FROM reached
LEFT JOIN ours ON ours.classid::oid = reached.classid AND ours.objid = reached.objid
WHERE NOT EXISTS (
    SELECT FROM whole WHERE whole.classid = reached.classid AND whole.objid = reached.objid
  )
  -- The server's own storage of long values (TOAST).
  AND NOT EXISTS (
    SELECT
    FROM pg_class
    WHERE reached.classid = 'pg_class'::regclass AND oid = reached.objid AND relnamespace = 'pg_toast'::regnamespace
  )
  -- A table leaves the platform's publication without a notice when it is dropped.
  AND NOT (
    reached.classid = 'pg_publication_rel'::regclass
    AND EXISTS (
      SELECT
      FROM pg_publication_rel
      JOIN pg_publication ON pg_publication.oid = prpubid
      WHERE pg_publication_rel.oid = reached.objid AND pubname = 'supabase_realtime'
    )
  )
