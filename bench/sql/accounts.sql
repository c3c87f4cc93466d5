-- auth.uid() as the platform defines it: an SQL function that the planner inlines, so that it is evaluated for each row
-- unless a policy wraps it in a subquery. The stand-in of the migrations is not inlined, which would distort the
-- comparison.
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
RETURN coalesce(
  nullif(current_setting('request.jwt.claim.sub', true), ''),
  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
)::uuid;
