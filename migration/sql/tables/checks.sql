-- What check constraints ask and an expression alone cannot say. Pure functions of their arguments; plpgsql, because
-- a pinned search_path keeps a function in SQL from being inlined, and then it would be planned at every call.

-- The pips of a roll added up.
CREATE OR REPLACE FUNCTION private.sum_of_dice(results integer[])
RETURNS integer
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = ''
AS $$
DECLARE
  total integer := 0;
  die integer;
BEGIN
  FOREACH die IN ARRAY coalesce(results, '{}')
  LOOP
    total := total + coalesce(die, 0);
  END LOOP;
  RETURN total;
END
$$;

-- A list of at most ten `{"type": "dice" | "flat", "value": int, "source": text}`, dice from -5 to 5, flat from -10 to
-- 10, the source named. Everyone at the table sees a modifier, and nobody can forge a result with one.
CREATE OR REPLACE FUNCTION private.are_valid_modifiers(modifiers jsonb)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = ''
AS $$
DECLARE
  modifier jsonb;
  number numeric;
BEGIN
  IF modifiers = '[]' THEN
    RETURN true;
  END IF;
  IF modifiers IS NULL OR jsonb_typeof(modifiers) <> 'array' OR jsonb_array_length(modifiers) > 10 THEN
    RETURN false;
  END IF;
  FOR modifier IN SELECT element FROM jsonb_array_elements(modifiers) AS list (element)
  LOOP
    IF jsonb_typeof(modifier) <> 'object'
      OR jsonb_typeof(modifier -> 'type') IS DISTINCT FROM 'string'
      OR jsonb_typeof(modifier -> 'value') IS DISTINCT FROM 'number'
      OR jsonb_typeof(modifier -> 'source') IS DISTINCT FROM 'string'
      OR char_length(btrim(modifier ->> 'source')) NOT BETWEEN 1 AND 100
    THEN
      RETURN false;
    END IF;
    number := (modifier ->> 'value')::numeric;
    IF number <> trunc(number)
      OR (CASE modifier ->> 'type' WHEN 'dice' THEN abs(number) > 5 WHEN 'flat' THEN abs(number) > 10 ELSE true END)
    THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;

-- The modifiers of one kind added up; nothing for a list that is not valid, which its own check refuses.
CREATE OR REPLACE FUNCTION private.sum_of_modifiers(modifiers jsonb, kind text)
RETURNS integer
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = ''
AS $$
BEGIN
  IF modifiers = '[]' OR NOT private.are_valid_modifiers(modifiers) THEN
    RETURN 0;
  END IF;
  RETURN (
    SELECT coalesce(sum((element ->> 'value')::numeric), 0)::integer
    FROM jsonb_array_elements(modifiers) AS list (element)
    WHERE element ->> 'type' = kind
  );
END
$$;

-- A creature's sheet: an object with the four attributes, whole numbers from 1 to 10. It may hold more.
CREATE OR REPLACE FUNCTION private.are_valid_stats(stats jsonb)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = ''
AS $$
DECLARE
  name text;
  number numeric;
BEGIN
  IF jsonb_typeof(stats) IS DISTINCT FROM 'object' THEN
    RETURN false;
  END IF;
  FOREACH name IN ARRAY ARRAY['might', 'grace', 'wit', 'heart']
  LOOP
    IF jsonb_typeof(stats -> name) IS DISTINCT FROM 'number' THEN
      RETURN false;
    END IF;
    number := (stats ->> name)::numeric;
    IF number <> trunc(number) OR number NOT BETWEEN 1 AND 10 THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;
