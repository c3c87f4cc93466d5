-- Documents that a client could not read are refused, in every table that has a document.

-- Whether a client whose numbers are doubles and whose parser accepts at most a hundred levels can read a document. An
-- unreadable one would break every client that reads the row. A document above its size limit is not searched, because
-- its check refuses it. That check measures the stored size; a value that arrives compressed from another table is
-- measured here as uncompressed text.
--
-- A number may print far longer than it is stored: `0e-16383` takes 12 bytes and prints 16,385 characters. So no number
-- is beyond 1e308 or closer to 0 than 1e-308. A zero has at most 308 decimals, any other number at most 325, enough for
-- the 17 digits of each double. A document prints at most eight times its size limit. Escapes print up to six times
-- their size, so only numbers of more than 40 digits can exceed that; a large document without them is not printed.
CREATE OR REPLACE FUNCTION private.is_readable(document jsonb, max_bytes integer)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  size CONSTANT integer := pg_column_size(document);
  printed text;
  has_short_numbers boolean := false; -- Whether no number has more than 64 digits before or after its point.
  decimals integer;
  greatest_number numeric;
  least_number numeric;
BEGIN
  IF pg_column_compression(document) IS NOT NULL AND octet_length(document::text) > max_bytes THEN
    RETURN false;
  END IF;
  IF size > max_bytes THEN
    RETURN true;
  END IF;
  -- Printing a small document costs less than searching it. 200 characters have no room for a hundred levels.
  IF size <= 4096 THEN
    printed := document::text;
    has_short_numbers := octet_length(printed) <= 8 * max_bytes AND printed !~ '[0-9]{64}';
    IF has_short_numbers AND octet_length(printed) <= 200 THEN
      RETURN true;
    END IF;
  END IF;
  IF jsonb_path_exists(document, '$.**{100}') THEN
    RETURN false;
  END IF;
  IF has_short_numbers THEN
    RETURN true;
  END IF;
  -- As elements of an array, because a row per result of the path costs four times as much.
  SELECT max(scale(number::numeric)), max(number::numeric), min(number::numeric)
  INTO decimals, greatest_number, least_number
  FROM jsonb_array_elements(
    jsonb_path_query_array(document, 'strict $.** ? (@.type() == "number")')
  ) AS list (number);
  IF decimals > 325 OR greatest_number > 1e308 OR least_number < -1e308 THEN
    RETURN false;
  END IF;
  IF decimals > 308 AND EXISTS (
    SELECT
    FROM jsonb_array_elements(
      jsonb_path_query_array(document, 'strict $.** ? (@ > -1e-308 && @ < 1e-308)')
    ) AS list (number)
    WHERE scale(number::numeric) > 308
  ) THEN
    RETURN false;
  END IF;
  RETURN (decimals <= 40 AND greatest_number < 1e40 AND least_number > -1e40) IS NOT FALSE
    OR octet_length(document::text) <= 8 * max_bytes;
END
$$;

CREATE OR REPLACE FUNCTION private.refuse_unreadable(relation text, document text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'check_violation',
    MESSAGE = format(
      '%s must keep its size limit, have at most 100 levels, and no number beyond 1e308 or closer to 0 than 1e-308',
      document
    ),
    TABLE = relation,
    COLUMN = document,
    CONSTRAINT = 'readable_document';
END
$$;

-- Refuses the document that the trigger's argument names. The trigger's own condition examines the document, so a
-- readable one costs no call of a function that looks its column up by name.
CREATE OR REPLACE FUNCTION private.check_readable()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.refuse_unreadable(TG_TABLE_NAME, TG_ARGV[0]);
  RETURN NEW;
END
$$;
