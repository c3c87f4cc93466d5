-- Each session has a *join code*. Whoever knows the code can join the session before it starts
-- (`private.join_by_code`).

-- Returns an unused code of six random characters that are hard to confuse. The function runs as its owner, so that the
-- code is unused among all sessions, not only those that the caller sees. If two transactions draw the same code at
-- once, the unique constraint refuses one of them.
CREATE OR REPLACE FUNCTION private.draw_session_code()
RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  alphabet CONSTANT text := 'ABCDEFGHJKMNPQRSTUVWXYZ23456789';
  symbol_index integer;
  candidate text;
BEGIN
  LOOP
    candidate := '';
    FOREACH symbol_index IN ARRAY private.random_numbers(length(alphabet), 6)
    LOOP
      candidate := candidate || substr(alphabet, symbol_index + 1, 1);
    END LOOP;
    EXIT WHEN NOT EXISTS (SELECT FROM public.sessions WHERE code = candidate::bpchar);
  END LOOP;
  RETURN candidate;
END
$$;

-- Sets the code of a new session that has none. Only the service can supply a code.
CREATE OR REPLACE FUNCTION private.generate_session_code()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.code := private.draw_session_code();
  RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER set_session_code
  BEFORE INSERT ON public.sessions
  FOR EACH ROW
  WHEN (NEW.code IS NULL)
  EXECUTE FUNCTION private.generate_session_code();
