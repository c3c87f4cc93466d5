-- Stands for the extension `pg_cron`, which few servers offer. This script creates schema `cron`, the table `cron.job`
-- with the columns that the migrations use, and the functions that schedule and unschedule jobs. Every role that has
-- USAGE on the schema may read the table and call the functions. No job ever runs. A superuser must run this script.

INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT 16000, 'pg_cron', 10, 'pg_catalog'::regnamespace, false, '1.6';

CREATE SCHEMA cron;

CREATE TABLE cron.job (
  jobid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  schedule text NOT NULL,
  command text NOT NULL,
  database text NOT NULL DEFAULT current_database(),
  username text NOT NULL DEFAULT session_user,
  active boolean NOT NULL DEFAULT true,
  jobname text UNIQUE
);
GRANT SELECT ON cron.job TO PUBLIC;

CREATE FUNCTION cron.schedule(job_name text, schedule text, command text)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
AS $$
  INSERT INTO cron.job (jobname, schedule, command)
  VALUES ($1, $2, $3)
  ON CONFLICT (jobname) DO UPDATE SET schedule = excluded.schedule, command = excluded.command
  RETURNING jobid
$$;

CREATE FUNCTION cron.unschedule(job_id bigint)
RETURNS boolean
LANGUAGE sql
SECURITY DEFINER
AS $$
  DELETE FROM cron.job WHERE jobid = $1 RETURNING true
$$;
