-- auth.uid() as the platform defines it: an SQL function that the planner inlines, so that it is evaluated for each row
-- unless a policy wraps it in a subquery. The stand-in that the migrations create is not inlined; it would distort the
-- comparison.
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
RETURN coalesce(
  nullif(current_setting('request.jwt.claim.sub', true), ''),
  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
)::uuid;
