-- Who is asking, written as the platform writes it: a statement that the planner takes into the query, once for each row
-- where a policy does not keep it apart. The stand-in of the migrations is a call, which alone would flatter either side.
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
RETURN coalesce(
  nullif(current_setting('request.jwt.claim.sub', true), ''),
  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
)::uuid;
