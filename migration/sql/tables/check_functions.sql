-- What check constraints ask and an expression alone cannot say. Pure functions of their arguments; plpgsql, because
-- a pinned search_path keeps a function in SQL from being inlined, and then it would be planned at every call.

-- The pips of a roll added up.
CREATE OR REPLACE FUNCTION private.sum_of_dice(results integer[])
RETURNS integer
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
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
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  modifier jsonb;
  number integer;
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
      OR char_length(modifier ->> 'source') > 100
      OR btrim(modifier ->> 'source') = ''
    THEN
      RETURN false;
    END IF;
    -- `5.0` equals 5 to PostgreSQL, and is no integer to a typed reader of the text.
    IF modifier ->> 'value' !~ '^-?[0-9]{1,2}$' THEN
      RETURN false;
    END IF;
    number := (modifier ->> 'value')::integer;
    IF (CASE modifier ->> 'type' WHEN 'dice' THEN abs(number) > 5 WHEN 'flat' THEN abs(number) > 10 ELSE true END) THEN
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
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF modifiers = '[]' OR NOT private.are_valid_modifiers(modifiers) THEN
    RETURN 0;
  END IF;
  RETURN (
    SELECT coalesce(sum((element ->> 'value')::integer), 0)::integer
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
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  name text;
BEGIN
  IF jsonb_typeof(stats) IS DISTINCT FROM 'object' THEN
    RETURN false;
  END IF;
  FOREACH name IN ARRAY ARRAY['might', 'grace', 'wit', 'heart']
  LOOP
    IF jsonb_typeof(stats -> name) IS DISTINCT FROM 'number' THEN
      RETURN false;
    END IF;
    -- Digits alone: `5.0` is no integer to a typed reader of the text.
    IF stats ->> name !~ '^([1-9]|10)$' THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;

-- Whether a name that others see is fit to be seen: no control characters or line breaks, no bidirectional embeddings,
-- overrides or isolates, no zero-width space, no byte-order mark, and at least one visible character. ZWJ and ZWNJ are
-- allowed: Persian and emoji need them. A name that its length check refuses, too long or empty, is left to it.
CREATE OR REPLACE FUNCTION private.is_clean_name(name text)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN name = ''
    OR char_length(name) > 100
    OR (
      name !~ '[\u0001-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2066-\u2069\ufeff]'
      -- What leaves no mark: blanks of every width, soft hyphen, joiners and marks of direction, fillers, the blank
      -- Braille pattern, variation selectors, tags.
      AND name ~ (
        '[^\u0020\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u202f\u205f-\u206f'
        || '\u2800\u3000\u3164\ufe00-\ufe0f\uffa0\ufff0-\uffff\U00016fe4\U0001bca0-\U0001bca3\U0001d159'
        || '\U0001d173-\U0001d17a\U000e0000-\U000e0fff]'
      )
    );
END
$$;
