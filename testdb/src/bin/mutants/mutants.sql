-- Lists the rules of the schema: for each, its kind, its name, and a statement that removes it, or that loosens a
-- numeric bound by one. The program `mutants` executes one of these statements at a time, and then expects a test to
-- fail.
--
-- The kinds are `constraint`, `bound`, `not null`, `unique index`, `trigger`, `row security`, `policy gone` (the policy
-- is dropped), `policy open` (its USING or WITH CHECK becomes `true`), `grant` (a role gets a privilege that it
-- lacks, on a whole table or on a function), and three kinds of parts of functions: `raise`, `call` and `lock`.
WITH our_tables AS (
  -- `sparc_migrations` and `sparc_record`, in which the migration program records what it has done, are left out.
  -- `name` includes the schema (as in `private.request_digests`) unless the schema is in the search path.
  SELECT pg_class.oid, oid::regclass::text AS name, relnamespace = 'public'::regnamespace AS is_public
  FROM pg_catalog.pg_class
  WHERE relnamespace IN ('public'::regnamespace, 'private'::regnamespace) AND relkind = 'r'
    AND relname NOT IN ('sparc_migrations', 'sparc_record')
),
constraints AS (
  SELECT our_tables.name AS "table", conname, contype, pg_get_constraintdef(pg_constraint.oid) AS definition
  FROM pg_catalog.pg_constraint JOIN our_tables ON our_tables.oid = conrelid
  WHERE contype IN ('c', 'f', 'p', 'u')
),
-- Numeric bounds in check constraints. The two groups of the pattern are the comparison and the number; the lookahead
-- after them leaves out dates (2000-01-01). `start` is the position of the number in the definition, and adding `step`
-- to the number loosens the bound.
bounds AS (
  SELECT constraints.*, nth,
    regexp_instr(definition, pattern, 1, nth, 0, '', 2) AS start,
    regexp_substr(definition, pattern, 1, nth, '', 2) AS number,
    CASE WHEN regexp_substr(definition, pattern, 1, nth, '', 1) LIKE '<%' THEN 1 ELSE -1 END AS step
  FROM constraints,
    (VALUES ('(<=|>=|<|>) \(?''?(-?[0-9]+)(?![-0-9])')) AS bound (pattern),
    generate_series(1, regexp_count(definition, pattern)) AS nth
  WHERE contype = 'c'
),
functions AS (
  SELECT pg_proc.oid::regprocedure::text AS name, proname, pg_get_functiondef(pg_proc.oid) AS definition
  FROM pg_catalog.pg_proc
  WHERE pronamespace IN ('public'::regnamespace, 'private'::regnamespace)
),
-- Errors that functions raise, row locks that they take, and calls of functions in schema `private` whose result is not
-- used (`PERFORM`). The new `definition` lacks the function's nth part of this kind.
parts_of_functions AS (
  SELECT kind, functions.name || ': ' || nth AS name,
    regexp_replace(definition, pattern, CASE kind WHEN 'lock' THEN '' ELSE 'NULL;' END, 1, nth) AS definition
  FROM functions,
    (VALUES
      ('raise', 'RAISE EXCEPTION USING([^;'']|''[^'']*'')*;'),
      ('call', 'PERFORM private\.([^;'']|''[^'']*'')*;'),
      ('lock', 'FOR (NO KEY UPDATE|UPDATE|KEY SHARE|SHARE)( OF [a-z]+)?( SKIP LOCKED| NOWAIT)?')
    ) AS part (kind, pattern),
    generate_series(1, regexp_count(definition, pattern)) AS nth
)
SELECT 'constraint' AS kind, "table" || '.' || conname AS name,
  format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', "table", conname) AS statement
FROM constraints
UNION ALL
SELECT
  'bound',
  format('%s.%s: %s becomes %s', "table", conname, number, number::bigint + step),
  format(
    'ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', "table", conname, conname,
    left(definition, start - 1) || (number::bigint + step) || substr(definition, start + length(number))
  )
FROM bounds
UNION ALL
SELECT
  'not null',
  our_tables.name || '.' || attname,
  format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', our_tables.name, attname)
FROM our_tables JOIN pg_catalog.pg_attribute ON attrelid = our_tables.oid
WHERE attnum > 0 AND attnotnull AND attidentity = ''
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_constraint WHERE conrelid = our_tables.oid AND contype = 'p' AND attnum = ANY (conkey)
  )
  -- PostgreSQL refuses DROP NOT NULL for the columns of an index that is a replica identity, as it does for those of a
  -- primary key and for identity columns.
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_index WHERE indrelid = our_tables.oid AND indisreplident AND attnum = ANY (indkey)
  )
UNION ALL
SELECT 'unique index', indexrelid::regclass::text, format('DROP INDEX %s', indexrelid::regclass)
FROM pg_catalog.pg_index JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid
WHERE relnamespace IN ('public'::regnamespace, 'private'::regnamespace) AND indisunique
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u'))
UNION ALL
-- The schema also has triggers on `auth.users`.
SELECT 'trigger', tgrelid::regclass || '.' || tgname, format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)
FROM pg_catalog.pg_trigger JOIN pg_catalog.pg_class ON pg_class.oid = tgrelid
WHERE NOT tgisinternal AND relnamespace IN ('public'::regnamespace, 'private'::regnamespace, 'auth'::regnamespace)
UNION ALL
SELECT 'row security', name, format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', name)
FROM our_tables WHERE is_public
UNION ALL
SELECT 'policy gone', tablename || ': ' || policyname, format('DROP POLICY %I ON public.%I', policyname, tablename)
FROM pg_catalog.pg_policies WHERE schemaname = 'public'
UNION ALL
SELECT 'policy open', tablename || ': ' || policyname || ', ' || clause,
  format('ALTER POLICY %I ON public.%I %s (true)', policyname, tablename, clause)
FROM pg_catalog.pg_policies,
  LATERAL (VALUES ('USING', qual), ('WITH CHECK', with_check)) AS condition (clause, expression)
WHERE schemaname = 'public' AND expression IS NOT NULL AND expression <> 'true'
UNION ALL
-- In this SELECT and the next, the rule is that a role lacks a privilege. A grant of the privilege removes the rule.
SELECT
  'grant',
  format('%s on %s to %s', privilege, name, role),
  format('GRANT %s ON %s TO %s', privilege, name, role)
FROM our_tables,
  unnest(ARRAY['anon', 'authenticated', 'service_role']) AS role,
  unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS privilege
WHERE NOT has_table_privilege(role, our_tables.oid, privilege)
UNION ALL
SELECT
  'grant',
  format('EXECUTE on %s to %s', functions.name, role),
  format('GRANT EXECUTE ON FUNCTION %s TO %s', functions.name, role)
FROM functions, unnest(ARRAY['anon', 'authenticated', 'service_role']) AS role
WHERE NOT has_function_privilege(role, functions.name::regprocedure, 'EXECUTE')
UNION ALL
SELECT kind, name, definition FROM parts_of_functions
ORDER BY 1, 2
