-- auth.uid() as Supabase defines it: an SQL function that the planner inlines, so that it is evaluated for each row
-- unless a policy wraps it in a subquery. The migrations create a stand-in that the planner cannot inline, which would
-- distort the comparison.
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
RETURN coalesce(
  nullif(current_setting('request.jwt.claim.sub', true), ''),
  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
)::uuid;
