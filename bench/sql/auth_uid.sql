-- auth.uid() as Supabase defines it: an SQL function, which the planner inlines. The stand-in that the migrations
-- create is a PL/pgSQL function, which cannot be inlined: its calls take longer and would distort the comparison of
-- this schema with the specification's.
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
RETURN coalesce(
  nullif(current_setting('request.jwt.claim.sub', true), ''),
  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
)::uuid;
