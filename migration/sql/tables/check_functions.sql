-- CHECK constraints call these functions, because the conditions are too long for a constraint or need a loop or a
-- subquery. The result of each function depends only on its arguments. The functions are written in plpgsql, because a
-- SQL function that sets `search_path` is not inlined and would be planned at every call.

-- Returns the sum of the results of the dice. A NULL counts as 0.
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

-- Whether a text has no visible character. These characters count as invisible: spaces of every width, control
-- characters, the characters that Unicode calls default ignorable (soft hyphen, joiners, direction marks, fillers,
-- variation selectors, tags), the invisible signs with which Indic scripts stack consonants, the blanks and joiners of
-- Tifinagh, Braille, Khitan, Egyptian and musical notation, the noncharacters U+FDD0 to U+FDEF, and all of U+FFF0 to
-- U+FFFF.
CREATE OR REPLACE FUNCTION private.is_blank(value text)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN value !~ (
    '[^\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u1039\u115f\u1160\u1680\u17b4\u17b5\u17d2\u180b-\u180f\u1a60'
    || '\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u2d7f\u3000\u3164\uaaf6\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0'
    || '\ufff0-\uffff\U00010a3f\U0001107f\U00011133\U000113d0\U0001193e\U00011a47\U00011a99\U00011d45\U00011d97'
    || '\U00011f42\U00013430-\U0001343f\U00013441\U00013442\U00016fe4\U0001bca0-\U0001bca3\U0001d159'
    || '\U0001d173-\U0001d17a\U000e0000-\U000e0fff]'
  );
END
$$;

-- Whether the modifiers are a list of at most ten `{"type": "dice" | "flat", "value": int, "source": text}`. The value
-- is from -5 to 5 if the type is `dice`, and from -10 to 10 if it is `flat`. The source has at most 100 characters, at
-- least one of them visible, because it tells the other participants where a modifier comes from. Other keys are
-- allowed. The bounds apply to each modifier alone, so ten modifiers together can still decide a roll, but every
-- participant sees them.
CREATE OR REPLACE FUNCTION private.are_valid_modifiers(modifiers jsonb)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  modifier jsonb;
  modifier_value integer;
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
      OR private.is_blank(modifier ->> 'source')
    THEN
      RETURN false;
    END IF;
    -- PostgreSQL considers `5.0` equal to 5, but a client that expects an integer cannot parse `5.0`.
    IF modifier ->> 'value' !~ '^-?[0-9]{1,2}$' THEN
      RETURN false;
    END IF;
    modifier_value := (modifier ->> 'value')::integer;
    IF (
      CASE modifier ->> 'type'
        WHEN 'dice' THEN abs(modifier_value) > 5
        WHEN 'flat' THEN abs(modifier_value) > 10
        ELSE true
      END
    ) THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;

-- Returns the sum of the modifiers whose type is `kind` (`dice` or `flat`). For an invalid list it returns 0; the check
-- constraint `valid_modifiers` then refuses the row.
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

-- Whether a creature's stats are a JSON object in which each of the four attributes is an integer from 1 to 10. Other
-- keys are allowed.
CREATE OR REPLACE FUNCTION private.are_valid_stats(stats jsonb)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  attribute text;
BEGIN
  IF jsonb_typeof(stats) IS DISTINCT FROM 'object' THEN
    RETURN false;
  END IF;
  FOREACH attribute IN ARRAY ARRAY['might', 'grace', 'wit', 'heart']
  LOOP
    IF jsonb_typeof(stats -> attribute) IS DISTINCT FROM 'number' THEN
      RETURN false;
    END IF;
    -- Only digits are accepted, because a client that expects an integer cannot parse `5.0`.
    IF stats ->> attribute !~ '^([1-9]|10)$' THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;

-- Whether a name is safe to show to others: it must not contain control characters, line breaks, bidirectional
-- embeddings, overrides or isolates, zero-width spaces or byte-order marks, and it must have at least one visible
-- character. Zero-width joiners and non-joiners are allowed, because Persian and emoji need them. For an empty or
-- overlong name this returns true, because the check constraint on the length refuses such a name.
CREATE OR REPLACE FUNCTION private.is_displayable_name(name text)
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
      AND NOT private.is_blank(name)
    );
END
$$;
