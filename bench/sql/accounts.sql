-- The caller's id, as the platform defines the function: a SQL function that the planner inlines into the query, where
-- it is evaluated once per row unless a policy isolates it. The migrations' stand-in is a plpgsql function, and
-- measuring only with that would favour one of the two schemas.
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
RETURN coalesce(
  nullif(current_setting('request.jwt.claim.sub', true), ''),
  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
)::uuid;
