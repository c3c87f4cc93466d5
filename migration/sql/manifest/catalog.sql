-- Lists every object and attribute of the schema, for writing the manifest (`manifest.txt`) and for comparing a
-- database with it. Each object or attribute has one row: its `name`, its `definition`, and its address in the catalog
-- (`class`, `objid` and `subid`, as in `pg_depend`; `class` is NULL for roles, for `session_replication_role`, and for
-- attributes such as privileges and comments). The definition is the same on every server version, because this query
-- removes the differences in how versions print it. The caller sets `search_path` to pg_catalog, so that the names of
-- objects in other schemas are printed qualified.
--
-- This is one statement, so that all rows come from one snapshot, and so that a WITH query runs only once even if
-- several others read it.
WITH
  -- Schema `auth` is included only if it is our stand-in for the schema of the platform (Supabase). In that case the
  -- caller replaces the `false` below by `true`.
  included_schema AS (
    SELECT oid, nspname
    FROM pg_namespace
    WHERE nspname IN ('public', 'private')
      OR (nspname = 'auth' AND /* stand-in */ false)
  ),
  -- The roles of Supabase's API, and PUBLIC. Only the privileges of these grantees are listed.
  grantee_role AS (
    SELECT oid, rolname::text AS name
    FROM pg_roles
    WHERE rolname IN ('anon', 'authenticated', 'service_role')
    UNION ALL
    SELECT 0, 'PUBLIC'
  ),
  -- The role that should own all objects. It is the first of these that exists: the owner of most functions in schema
  -- `private`, the owner of SeaORM's list of migrations (`sparc_migrations`), the owner of schema `private`, the
  -- current role. Owners are compared because some functions run as their owner.
  owner AS (
    SELECT coalesce(
      (SELECT mode() WITHIN GROUP (ORDER BY proowner) FROM pg_proc WHERE pronamespace = to_regnamespace('private')),
      (SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relname = 'sparc_migrations'),
      (SELECT nspowner FROM pg_namespace WHERE nspname = 'private'),
      (SELECT oid FROM pg_roles WHERE rolname = current_user)
    ) AS oid
  ),
  -- The owner of `auth.users`. On the platform, this is the role with which its Auth server writes accounts.
  auth_users_owner AS (
    SELECT relowner AS oid
    FROM pg_class
    WHERE relnamespace = to_regnamespace('auth') AND relname = 'users'
  ),
  extension_member AS (
    SELECT classid, objid
    FROM pg_depend
    WHERE deptype = 'e'
  ),
  relation AS (
    SELECT
      class.oid,
      class.relkind,
      class.relacl,
      class.relowner,
      class.relrowsecurity,
      class.relforcerowsecurity,
      class.relreplident,
      class.relpersistence,
      class.reltoastrelid,
      class.reloptions,
      format('%I.%I', included_schema.nspname, class.relname) AS name
    FROM pg_class AS class
    JOIN included_schema ON included_schema.oid = class.relnamespace
    WHERE class.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND NOT EXISTS (
        SELECT FROM extension_member WHERE classid = 'pg_class'::regclass AND objid = class.oid
      )
  ),
  base_table AS (
    SELECT * FROM relation WHERE relkind IN ('r', 'p')
  ),
  routine AS (
    SELECT
      proc.*,
      format('%I.%I(%s)', included_schema.nspname, proc.proname, oidvectortypes(proc.proargtypes)) AS name
    FROM pg_proc AS proc
    JOIN included_schema ON included_schema.oid = proc.pronamespace
    WHERE NOT EXISTS (
      SELECT FROM extension_member WHERE classid = 'pg_proc'::regclass AND objid = proc.oid
    )
  ),
  database AS (
    SELECT * FROM pg_database WHERE datname = current_database()
  ),
  -- The roles of which no API role may be a member, neither directly nor through another role, because a member can
  -- assume them or has their privileges. Membership in a role that is not listed here is the operator's choice.
  powerful_role AS (
    SELECT pg_roles.oid
    FROM pg_roles
    CROSS JOIN owner
    WHERE rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication
      OR pg_roles.oid = owner.oid
      OR pg_roles.oid < 16384 -- made by PostgreSQL: the superuser of `initdb`, `pg_read_all_data` and so on
      OR rolname IN ('anon', 'authenticated', 'service_role')
    UNION
    -- The roles that own one of the objects, have a privilege on it, or are named by one of its policies.
    SELECT refobjid
    FROM pg_shdepend
    JOIN database ON database.oid = dbid
    WHERE refclassid = 'pg_authid'::regclass
      AND (classid, objid) IN (
        SELECT 'pg_class'::regclass, oid FROM relation
        UNION ALL
        SELECT 'pg_proc'::regclass, oid FROM routine
        UNION ALL
        SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid IN (SELECT oid FROM relation)
      )
    UNION
    SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('auth') AND relname = 'users'
    UNION
    SELECT datdba FROM database
    UNION
    SELECT grantee FROM database CROSS JOIN LATERAL aclexplode(datacl) WHERE privilege_type = 'CREATE'
    UNION
    SELECT nspowner FROM pg_namespace WHERE nspname IN ('public', 'private', 'extensions')
    UNION
    SELECT grantee
    FROM pg_namespace
    CROSS JOIN LATERAL aclexplode(nspacl)
    WHERE nspname IN ('public', 'private', 'extensions') AND privilege_type = 'CREATE'
    UNION
    SELECT grantee
    FROM pg_parameter_acl
    CROSS JOIN LATERAL aclexplode(paracl)
    WHERE parname = 'session_replication_role'
  ),
  -- The privileges on the objects, one row for each privilege and grantee; `attname` is NULL unless the privilege is on
  -- a column.
  acl AS (
    SELECT
      'schema ' || quote_ident(included_schema.nspname) AS name,
      'pg_namespace'::regclass AS classid, included_schema.oid AS objid,
      acl_item.grantee, lower(acl_item.privilege_type) AS privilege, acl_item.is_grantable, NULL::name AS attname
    FROM included_schema
    JOIN pg_namespace ON pg_namespace.oid = included_schema.oid
    CROSS JOIN LATERAL aclexplode(nspacl) AS acl_item
    WHERE included_schema.nspname <> 'public'
    UNION ALL
    -- In some databases the API's roles have their privileges on `public` through PUBLIC, in others directly. So this
    -- lists the privileges that each role has in effect.
    SELECT 'schema public', 'pg_namespace'::regclass, included_schema.oid, grantee_role.oid, privilege, false, NULL
    FROM included_schema
    CROSS JOIN grantee_role
    CROSS JOIN (VALUES ('usage'), ('create')) AS checked (privilege)
    WHERE included_schema.nspname = 'public'
      AND grantee_role.oid <> 0
      AND has_schema_privilege(grantee_role.oid, included_schema.oid, privilege)
    UNION ALL
    SELECT
      CASE relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END || relation.name, 'pg_class'::regclass, relation.oid,
      acl_item.grantee, lower(acl_item.privilege_type), acl_item.is_grantable, NULL
    FROM relation
    CROSS JOIN LATERAL aclexplode(relacl) AS acl_item
    UNION ALL
    SELECT
      'table ' || relation.name, 'pg_class'::regclass, relation.oid,
      acl_item.grantee, lower(acl_item.privilege_type), acl_item.is_grantable, attname
    FROM relation
    JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
    CROSS JOIN LATERAL aclexplode(attacl) AS acl_item
    UNION ALL
    SELECT
      'function ' || routine.name, 'pg_proc'::regclass, routine.oid,
      acl_item.grantee, lower(acl_item.privilege_type), acl_item.is_grantable, NULL
    FROM routine
    CROSS JOIN LATERAL aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl_item
    UNION ALL
    SELECT
      CASE typtype WHEN 'd' THEN 'domain ' ELSE 'type ' END || format('%I.%I', nspname, typname),
      'pg_type'::regclass, type.oid,
      acl_item.grantee, lower(acl_item.privilege_type), acl_item.is_grantable, NULL
    FROM pg_type AS type
    JOIN included_schema ON included_schema.oid = typnamespace
    CROSS JOIN LATERAL aclexplode(coalesce(typacl, acldefault('T', typowner))) AS acl_item
    WHERE typtype IN ('e', 'd')
  ),
  -- The privileges that owners lack on their own objects, because somebody revoked them: one row for each
  -- object, which lists all of them. Many functions run as their owner, and fail without these privileges.
  revoked_owner_privilege AS (
    SELECT
      classid, objid,
      ', its owner lacks '
        || string_agg(lower(privilege_type), ' and ' ORDER BY privilege_type COLLATE "C") AS description
    FROM (
      SELECT 'pg_namespace'::regclass, pg_namespace.oid, nspowner, nspacl, acldefault('n', nspowner)
      FROM included_schema
      JOIN pg_namespace USING (oid)
      UNION ALL
      SELECT
        'pg_class'::regclass, oid, relowner, relacl,
        acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)
      FROM relation
      UNION ALL
      SELECT 'pg_proc'::regclass, oid, proowner, proacl, acldefault('f', proowner)
      FROM routine
      UNION ALL
      SELECT 'pg_type'::regclass, type.oid, typowner, typacl, acldefault('T', typowner)
      FROM pg_type AS type
      JOIN included_schema ON included_schema.oid = typnamespace
    ) AS object (classid, objid, owner_oid, acl, full_acl)
    CROSS JOIN LATERAL aclexplode(full_acl) AS expected_item
    WHERE acl IS NOT NULL -- If it is NULL, the owner has all privileges.
      AND expected_item.grantee = owner_oid
      AND NOT EXISTS (
        SELECT
        FROM aclexplode(acl) AS acl_item
        WHERE acl_item.grantee = owner_oid AND acl_item.privilege_type = expected_item.privilege_type
      )
    GROUP BY classid, objid
  ),
  -- The privileges in `acl`, with the columns of a privilege in one list, and only for the grantees in `grantee_role`.
  granted_privilege AS (
    SELECT
      acl.name, acl.classid, acl.objid, grantee_role.name AS grantee_name,
      privilege
        || coalesce(' (' || string_agg(quote_ident(attname), ', ' ORDER BY attname COLLATE "C") || ')', '')
        || CASE WHEN is_grantable THEN ' with grant option' ELSE '' END AS privilege
    FROM acl
    JOIN grantee_role ON grantee_role.oid = acl.grantee
    GROUP BY acl.name, classid, objid, grantee_role.name, privilege, is_grantable, attname IS NULL
  ),
  entry (name, definition, class, objid, subid) AS (
    SELECT
      'schema ' || included_schema.nspname,
      'present' || CASE
        -- A schema that existed before the first migration may have any owner: it is the operator's.
        WHEN nspowner <> owner.oid AND obj_description(included_schema.oid, 'pg_namespace') LIKE 'made by sparc%'
          THEN ', owned by another role'
        ELSE ''
      END
        || coalesce(
          (
            SELECT description
            FROM revoked_owner_privilege
            WHERE classid = 'pg_namespace'::regclass AND objid = included_schema.oid
          ),
          ''
        ),
      'pg_namespace', included_schema.oid, 0
    FROM included_schema
    JOIN pg_namespace ON pg_namespace.oid = included_schema.oid
    CROSS JOIN owner
    WHERE included_schema.nspname <> 'public'
    UNION ALL
    -- The comment by which `down` recognizes a schema as ours. Schema `private` is listed even if it was renamed.
    SELECT
      'comment on schema ' || quote_ident(nspname), obj_description(pg_namespace.oid, 'pg_namespace'),
      NULL, pg_namespace.oid, 0
    FROM pg_namespace
    CROSS JOIN owner
    WHERE (pg_namespace.oid IN (SELECT oid FROM included_schema) AND nspname <> 'public')
      -- The comment on `private`. Anyone can read it and put the same comment on a schema of their own, so the owner
      -- must match too.
      OR (obj_description(pg_namespace.oid, 'pg_namespace') LIKE 'made by sparc: rules%' AND nspowner = owner.oid)
    UNION ALL
    -- Row security does not bind a role that bypasses it or that owns the tables. A member of such a role can assume
    -- that role, so row security does not bind the member either. `repair/access.rs` reads the phrases that this query
    -- returns.
    SELECT
      'role ' || api_role.rolname,
      concat_ws(
        ', ',
        CASE
          WHEN api_role.rolsuper OR api_role.rolbypassrls OR api_role.oid = owner.oid THEN 'bypasses row security'
          WHEN EXISTS (
            SELECT
            FROM pg_roles AS bypassing_role
            WHERE (bypassing_role.rolsuper OR bypassing_role.rolbypassrls OR bypassing_role.oid = owner.oid)
              AND pg_has_role(api_role.oid, bypassing_role.oid, 'MEMBER')
          ) THEN 'bypasses row security as a member of another role'
          ELSE 'bound by row security'
        END,
        CASE WHEN api_role.rolsuper THEN 'superuser' END,
        CASE WHEN api_role.rolcanlogin THEN 'can log in' END,
        CASE WHEN api_role.rolcreaterole THEN 'creates roles' END,
        CASE WHEN api_role.rolcreatedb THEN 'creates databases' END,
        CASE WHEN api_role.rolreplication THEN 'replicates' END,
        CASE
          WHEN has_database_privilege(api_role.oid, database.oid, 'CREATE') AND NOT api_role.rolsuper
            THEN 'creates schemas in the database'
        END,
        -- The functions in schema `extensions` are not ours, but no client may add to them.
        (
          SELECT 'creates objects in schema extensions'
          FROM pg_namespace
          WHERE nspname = 'extensions'
            AND has_schema_privilege(api_role.oid, pg_namespace.oid, 'CREATE')
            AND NOT api_role.rolsuper
        ),
        CASE
          WHEN has_parameter_privilege(api_role.oid, 'session_replication_role', 'SET') AND NOT api_role.rolsuper
            THEN 'disables triggers by session_replication_role'
        END,
        CASE WHEN api_role.oid = owner.oid THEN 'owns the objects of the schema' END,
        CASE WHEN api_role.oid = database.datdba THEN 'owns the database' END,
        (
          SELECT string_agg('owns schema ' || nspname, ', ' ORDER BY nspname)
          FROM pg_namespace
          WHERE nspowner = api_role.oid
            AND nspname IN ('public', 'private', 'extensions')
            -- If these migrations made schema `private`, the entry of that schema says whether another role owns it.
            AND (nspname <> 'private' OR coalesce(obj_description(oid, 'pg_namespace'), '') NOT LIKE 'made by sparc%')
        ),
        (
          SELECT 'owns publication supabase_realtime'
          FROM pg_publication
          WHERE pubname = 'supabase_realtime' AND pubowner = api_role.oid
        ),
        -- The memberships come last, because the names of roles may contain anything.
        'member of ' || (
          SELECT string_agg(DISTINCT quote_ident(parent_role.rolname), ', ')
          FROM pg_auth_members
          JOIN pg_roles AS parent_role ON parent_role.oid = roleid
          WHERE member = api_role.oid
            AND EXISTS (
              SELECT
              FROM powerful_role
              WHERE powerful_role.oid <> 0 -- PUBLIC
                AND pg_has_role(parent_role.oid, powerful_role.oid, 'MEMBER')
            )
        )
      ),
      NULL, api_role.oid, 0
    FROM pg_roles AS api_role
    CROSS JOIN owner
    CROSS JOIN database
    WHERE api_role.rolname IN ('anon', 'authenticated', 'service_role')

    UNION ALL
    -- If this setting is `replica`, neither triggers nor foreign keys apply.
    SELECT
      'session_replication_role',
      coalesce(string_agg(description, ', ' ORDER BY description), 'origin'),
      NULL, 0, 0
    FROM (
      SELECT
        split_part(item, '=', 2) || ' for ' || CASE
          WHEN setrole <> 0 THEN concat_ws(' in database ', 'role ' || setrole::regrole, quote_ident(datname))
          ELSE coalesce('database ' || quote_ident(datname), 'all roles')
        END
      FROM pg_db_role_setting
      CROSS JOIN LATERAL unnest(setconfig) AS item
      LEFT JOIN pg_database ON pg_database.oid = setdatabase
      WHERE lower(item) LIKE 'session\_replication\_role=%'
        AND lower(item) <> 'session_replication_role=origin'
        AND (setdatabase = 0 OR datname = current_database())
        -- Of the settings of roles, only those of the API's roles, of their members (such as the role that migrates)
        -- and of the owner of `auth.users` are listed. Other roles may belong to another database, so their settings
        -- are the operator's.
        AND (
          setrole = 0
          OR setrole IN (SELECT oid FROM auth_users_owner)
          OR EXISTS (
            SELECT FROM grantee_role WHERE grantee_role.oid <> 0 AND pg_has_role(setrole, grantee_role.oid, 'MEMBER')
          )
        )
      UNION ALL
      -- The setting may also come from the server's configuration, or from the options of the connection.
      SELECT format('%s for this connection (set by %s)', setting, source)
      FROM pg_settings
      WHERE name = 'session_replication_role'
        AND setting <> 'origin'
        AND source NOT IN ('global', 'database', 'user', 'database user')
    ) AS changed_setting (description)

    UNION ALL
    SELECT
      CASE typtype WHEN 'd' THEN 'domain ' ELSE 'type ' END || format('%I.%I', nspname, typname),
      CASE typtype
        WHEN 'e' THEN 'enum (' || (
          SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
          FROM pg_enum
          WHERE enumtypid = type.oid
        ) || ')'
        ELSE concat_ws(
          ' ',
          format_type(typbasetype, typtypmod),
          CASE WHEN typnotnull THEN 'not null' END,
          'default ' || typdefault,
          (
            SELECT string_agg(pg_get_constraintdef(oid), ' ' ORDER BY conname)
            FROM pg_constraint
            WHERE contypid = type.oid AND contype = 'c'
          )
        )
      END
        || CASE WHEN typowner = owner.oid THEN '' ELSE ', owned by another role' END
        || coalesce(
          (
            SELECT description
            FROM revoked_owner_privilege
            WHERE classid = 'pg_type'::regclass AND objid = type.oid
          ),
          ''
        ),
      'pg_type', type.oid, 0
    FROM pg_type AS type
    JOIN included_schema ON included_schema.oid = typnamespace
    CROSS JOIN owner
    WHERE typtype IN ('e', 'd')
      AND NOT EXISTS (
        SELECT FROM extension_member WHERE classid = 'pg_type'::regclass AND objid = type.oid
      )

    UNION ALL
    SELECT
      'table ' || base_table.name,
      'replica identity ' || CASE relreplident
        WHEN 'd' THEN 'default'
        WHEN 'f' THEN 'full'
        WHEN 'n' THEN 'nothing'
        ELSE 'index ' || coalesce(
          (
            SELECT quote_ident(class.relname)
            FROM pg_index
            JOIN pg_class AS class ON class.oid = indexrelid
            WHERE indrelid = base_table.oid AND indisreplident
          ),
          'that is gone'
        )
      END
        || CASE WHEN relpersistence = 'p' THEN '' ELSE ', unlogged' END
        || CASE WHEN relowner = owner.oid THEN '' ELSE ', owned by another role' END
        || coalesce(
          (
            SELECT description
            FROM revoked_owner_privilege
            WHERE classid = 'pg_class'::regclass AND objid = base_table.oid
          ),
          ''
        ),
      'pg_class', base_table.oid, 0
    FROM base_table
    CROSS JOIN owner
    UNION ALL
    SELECT format('setting %s of %s', option_name, name), option_value, NULL, base_table.oid, 0
    FROM base_table
    CROSS JOIN LATERAL pg_options_to_table(reloptions)
    UNION ALL
    SELECT format('setting toast.%s of %s', option_name, base_table.name), option_value, NULL, base_table.oid, 0
    FROM base_table
    JOIN pg_class AS toast ON toast.oid = base_table.reltoastrelid
    CROSS JOIN LATERAL pg_options_to_table(toast.reloptions)
    UNION ALL
    -- Settings of columns for the planner's statistics: two are the schema's, any others are an operator's.
    SELECT
      format('statistics of column %I of %s', attname, name),
      concat_ws(
        ', ',
        CASE WHEN coalesce(attstattarget, -1) <> -1 THEN 'target ' || attstattarget END,
        array_to_string(attoptions, ', ')
      ),
      NULL, base_table.oid, attnum
    FROM base_table
    JOIN pg_attribute ON attrelid = base_table.oid AND attnum > 0 AND NOT attisdropped
    WHERE coalesce(attstattarget, -1) <> -1 OR attoptions IS NOT NULL
    UNION ALL
    SELECT
      'comment on ' || CASE objsubid WHEN 0 THEN 'table ' || name ELSE format('column %I of %s', attname, name) END,
      description, NULL, base_table.oid, objsubid
    FROM base_table
    JOIN pg_description ON classoid = 'pg_class'::regclass AND objoid = base_table.oid
    LEFT JOIN pg_attribute ON attrelid = base_table.oid AND attnum = objsubid
    UNION ALL
    SELECT
      'row security on ' || name,
      CASE WHEN relrowsecurity THEN 'enabled' ELSE 'disabled' END
        || CASE WHEN relforcerowsecurity THEN ', forced' ELSE '' END,
      NULL, base_table.oid, 0
    FROM base_table
    UNION ALL
    SELECT
      format('column %I of %s', attname, name),
      concat_ws(
        ' ',
        format_type(atttypid, atttypmod),
        CASE WHEN attcollation <> typcollation THEN 'collate ' || attcollation::regcollation END,
        CASE WHEN attstorage <> typstorage
          THEN 'storage ' || CASE attstorage
            WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' ELSE 'extended' END
        END,
        CASE attcompression WHEN 'p' THEN 'compression pglz' WHEN 'l' THEN 'compression lz4' END,
        CASE WHEN attnotnull THEN 'not null' END,
        CASE
          WHEN attidentity = 'a' THEN 'generated always as identity'
          WHEN attidentity = 'd' THEN 'generated by default as identity'
          WHEN attgenerated <> '' THEN 'generated always as (' || pg_get_expr(adbin, adrelid) || ') '
            || CASE attgenerated WHEN 's' THEN 'stored' ELSE 'virtual' END
          ELSE 'default ' || pg_get_expr(adbin, adrelid)
        END
      ),
      'pg_class', base_table.oid, attnum
    FROM base_table
    JOIN pg_attribute ON attrelid = base_table.oid AND attnum > 0 AND NOT attisdropped
    JOIN pg_type ON pg_type.oid = atttypid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum

    UNION ALL
    SELECT
      'sequence ' || name,
      concat_ws(
        ' ',
        format_type(seqtypid, NULL),
        'start ' || seqstart,
        'increment ' || seqincrement,
        'minvalue ' || seqmin,
        'maxvalue ' || seqmax,
        'cache ' || seqcache,
        CASE WHEN seqcycle THEN 'cycle' END,
        (
          SELECT format('of %s.%I', refobjid::regclass, attname)
          FROM pg_depend
          JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
          WHERE classid = 'pg_class'::regclass AND objid = relation.oid AND deptype IN ('a', 'i')
        )
      )
        || CASE WHEN relpersistence = 'p' THEN '' ELSE ', unlogged' END
        || CASE WHEN relowner = owner.oid THEN '' ELSE ', owned by another role' END
        || coalesce(
          (
            SELECT description
            FROM revoked_owner_privilege
            WHERE classid = 'pg_class'::regclass AND objid = relation.oid
          ),
          ''
        ),
      'pg_class', relation.oid, 0
    FROM relation
    JOIN pg_sequence ON seqrelid = relation.oid
    CROSS JOIN owner

    UNION ALL
    -- NOT NULL is part of the column's definition, because before version 18 it is not a constraint.
    SELECT
      format('constraint %I on %s', conname, name),
      pg_get_constraintdef(table_constraint.oid) || CASE
        WHEN EXISTS (SELECT FROM pg_trigger WHERE tgconstraint = table_constraint.oid AND tgenabled <> 'O')
          THEN ', its triggers disabled'
        ELSE ''
      END,
      'pg_constraint', table_constraint.oid, 0
    FROM base_table
    JOIN pg_constraint AS table_constraint ON conrelid = base_table.oid
    WHERE contype IN ('c', 'f', 'p', 'u', 'x')
    UNION ALL
    SELECT
      format('index %I on %s', class.relname, name),
      pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ', invalid' END,
      'pg_class', indexrelid, 0
    FROM base_table
    JOIN pg_index ON indrelid = base_table.oid
    JOIN pg_class AS class ON class.oid = indexrelid
    WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))

    UNION ALL
    SELECT
      'function ' || name,
      concat_ws(
        ' ',
        '(' || pg_get_function_arguments(routine.oid) || ') returns '
          || coalesce(pg_get_function_result(routine.oid), 'nothing'),
        'language ' || lanname,
        CASE provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
        CASE WHEN proisstrict THEN 'strict' END,
        CASE WHEN proleakproof THEN 'leakproof' END,
        CASE proparallel WHEN 's' THEN 'parallel safe' WHEN 'r' THEN 'parallel restricted' END,
        CASE WHEN prosecdef THEN 'security definer' END,
        -- The defaults of cost and rows are not printed.
        CASE WHEN procost <> 100 THEN 'cost ' || procost END,
        CASE WHEN prorows NOT IN (0, 1000) THEN 'rows ' || prorows END,
        'set ' || array_to_string(proconfig, ' set '),
        'body ' || left(encode(sha256(convert_to(prosrc, 'UTF8')), 'hex'), 16),
        CASE WHEN proowner <> owner.oid THEN 'owned by another role' END
      )
        || coalesce(
          (
            SELECT description
            FROM revoked_owner_privilege
            WHERE classid = 'pg_proc'::regclass AND objid = routine.oid
          ),
          ''
        ),
      'pg_proc', routine.oid, 0
    FROM routine
    JOIN pg_language ON pg_language.oid = prolang
    CROSS JOIN owner

    UNION ALL
    -- Some versions qualify a view's columns with their table and others do not, so the qualifiers are removed. This
    -- also removes the schemas of tables and functions. So the objects that the view reads are listed in addition, by
    -- their full names.
    SELECT
      'view ' || name,
      concat_ws(
        ', ',
        CASE relkind WHEN 'm' THEN 'materialized' END,
        (SELECT string_agg(option, ', ' ORDER BY option COLLATE "C") FROM unnest(reloptions) AS option),
        CASE WHEN relowner <> owner.oid THEN 'owned by another role' END,
        'reads ' || (
          SELECT string_agg(object_read, ', ' ORDER BY object_read COLLATE "C")
          FROM (
            SELECT DISTINCT read.type || ' ' || read.identity
            FROM pg_rewrite
            JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
            CROSS JOIN LATERAL pg_identify_object(refclassid, refobjid, 0) AS read
            WHERE ev_class = relation.oid
              AND ev_type = '1'
              AND NOT (refclassid = 'pg_class'::regclass AND refobjid = relation.oid)
          ) AS objects_read (object_read)
        )
      )
        || coalesce(
          (
            SELECT description
            FROM revoked_owner_privilege
            WHERE classid = 'pg_class'::regclass AND objid = relation.oid
          ),
          ''
        )
        || ' as ' || btrim(regexp_replace(
          regexp_replace(pg_get_viewdef(relation.oid), '("[^"]+"|[a-z_][a-z0-9_]*)\.', '', 'g'), '\s+', ' ', 'g'
        ), ' ;'),
      'pg_class', relation.oid, 0
    FROM relation
    CROSS JOIN owner
    WHERE relkind IN ('v', 'm')

    UNION ALL
    SELECT
      format('trigger %I on %I.%I', tgname, nspname, relname),
      replace(pg_get_triggerdef(trigger.oid), format('CREATE TRIGGER %I ', tgname), '') || CASE tgenabled
        WHEN 'O' THEN '' WHEN 'D' THEN ', disabled' WHEN 'A' THEN ', enabled always' ELSE ', enabled replica' END,
      'pg_trigger', trigger.oid, 0
    FROM pg_trigger AS trigger
    JOIN pg_class ON pg_class.oid = tgrelid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE NOT tgisinternal
      AND (tgrelid IN (SELECT oid FROM relation) OR tgfoid IN (SELECT oid FROM routine))

    UNION ALL
    SELECT
      format('statistics %I.%I on %s', nspname, stxname, base_table.name), 'extended',
      'pg_statistic_ext', pg_statistic_ext.oid, 0
    FROM pg_statistic_ext
    JOIN pg_namespace ON pg_namespace.oid = stxnamespace
    JOIN base_table ON base_table.oid = stxrelid

    UNION ALL
    SELECT
      format('rule %I on %s', rulename, relation.name),
      regexp_replace(pg_get_ruledef(rewrite.oid), '\s+', ' ', 'g'),
      'pg_rewrite', rewrite.oid, 0
    FROM pg_rewrite AS rewrite
    JOIN relation ON relation.oid = ev_class
    -- A view's query is itself a rule, and is already listed with the view.
    WHERE NOT (relkind IN ('v', 'm') AND ev_type = '1')

    UNION ALL
    -- With inheritance, the rows of a child table also appear in its parent, but the parent's policies and keys do not
    -- apply to the child. None of our tables has a child or a parent.
    SELECT format('child table %s of %s', inhrelid::regclass, base_table.name), 'inherits', NULL, base_table.oid, 0
    FROM pg_inherits
    JOIN base_table ON base_table.oid = inhparent
    UNION ALL
    SELECT format('parent table %s of %s', inhparent::regclass, base_table.name), 'inherited', NULL, base_table.oid, 0
    FROM pg_inherits
    JOIN base_table ON base_table.oid = inhrelid

    UNION ALL
    SELECT
      format('policy %I on %I.%I', polname, nspname, relname),
      concat_ws(
        ' ',
        CASE WHEN polpermissive THEN 'permissive' ELSE 'restrictive' END,
        'for ' || CASE polcmd
          WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update' WHEN 'd' THEN 'delete' ELSE 'all' END,
        'to ' || (
          -- The names are quoted, because the name of a single role may be "anon, authenticated".
          SELECT string_agg(coalesce(quote_ident(rolname), 'PUBLIC'), ', ' ORDER BY rolname COLLATE "C")
          FROM unnest(polroles) AS policy_role (oid)
          LEFT JOIN pg_roles USING (oid)
        ),
        'using (' || regexp_replace(pg_get_expr(polqual, polrelid), '\s+', ' ', 'g') || ')',
        'with check (' || regexp_replace(pg_get_expr(polwithcheck, polrelid), '\s+', ' ', 'g') || ')'
      ),
      'pg_policy', policy.oid, 0
    FROM pg_policy AS policy
    JOIN pg_class ON pg_class.oid = polrelid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE polrelid IN (SELECT oid FROM base_table)
      -- A table of the platform, on which `policies/broadcast.sql` creates two policies.
      OR (nspname = 'realtime' AND relname = 'messages')

    UNION ALL
    SELECT
      format('grant on %s to %s', name, grantee_name),
      string_agg(privilege, ', ' ORDER BY privilege COLLATE "C"),
      NULL, objid, 0
    FROM granted_privilege
    GROUP BY name, classid, objid, grantee_name

    UNION ALL
    SELECT
      'publication supabase_realtime',
      concat_ws(
        ', ',
        CASE WHEN pubinsert THEN 'insert' END,
        CASE WHEN pubupdate THEN 'update' END,
        CASE WHEN pubdelete THEN 'delete' END,
        CASE WHEN pubtruncate THEN 'truncate' END
      ),
      'pg_publication', oid, 0
    FROM pg_publication
    WHERE pubname = 'supabase_realtime'
    UNION ALL
    -- With a row filter or a column list, the publication would omit changes. The server would also refuse every UPDATE
    -- of the table if the replica identity lacked a column of the filter, or the list lacked a column of the replica
    -- identity.
    SELECT
      format('publication supabase_realtime of %s', base_table.name),
      concat_ws(
        ' ',
        'included',
        'columns (' || (
          SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
          FROM pg_attribute
          WHERE attrelid = base_table.oid AND attnum = ANY (prattrs)
        ) || ')',
        'where ' || pg_get_expr(prqual, prrelid)
      ),
      NULL, base_table.oid, 0
    FROM pg_publication_tables AS published
    JOIN pg_publication USING (pubname)
    JOIN base_table ON base_table.name = format('%I.%I', published.schemaname, published.tablename)
    LEFT JOIN pg_publication_rel ON prpubid = pg_publication.oid AND prrelid = base_table.oid
    WHERE pubname = 'supabase_realtime'
  )
SELECT
  name,
  regexp_replace(definition, '\n\s*', ' ', 'g') AS definition,
  class,
  objid::bigint AS objid,
  subid::integer AS subid
FROM entry
WHERE definition IS NOT NULL
ORDER BY name COLLATE "C"
