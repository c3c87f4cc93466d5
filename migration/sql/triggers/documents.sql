-- JSON documents that clients could not read are refused, in every table with a document that clients write.

-- Whether a typical client, one whose numbers are doubles and whose parser accepts at most a hundred levels, can read a
-- document. An unreadable document would break every client that reads the row. For a document above its size limit the
-- answer is true without a search, because the check constraint on its size refuses it. That constraint measures the
-- stored size. A value that arrives compressed from another table would pass it, so here the text of such a value is
-- measured.
--
-- A number may print far longer than it is stored: `0e-16383` takes 12 bytes and prints 16,385 characters. So no number
-- may be beyond 1e308 or closer to 0 than 1e-308. A zero may have at most 308 decimals and any other number at most
-- 325, enough for the 17 digits of each double. And a document may print at most eight times its size limit. Escapes
-- print up to six times their size, so only numbers of more than 40 digits can exceed that. So a large document without
-- such numbers is not printed to measure it.
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
  -- False also as long as this is not known. A short number has fewer than 64 digits before and after its point.
  has_only_short_numbers boolean := false;
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
  -- Printing a small document costs less than searching it. A text of 200 characters is too short for a hundred levels.
  IF size <= 4096 THEN
    printed := document::text;
    has_only_short_numbers := octet_length(printed) <= 8 * max_bytes AND printed !~ '[0-9]{64}';
    IF has_only_short_numbers AND octet_length(printed) <= 200 THEN
      RETURN true;
    END IF;
  END IF;
  IF jsonb_path_exists(document, '$.**{100}') THEN
    RETURN false;
  END IF;
  IF has_only_short_numbers THEN
    RETURN true;
  END IF;
  -- The numbers are read as the elements of one array, because one row for each result of the path costs four times as
  -- much.
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

-- Refuses the document in the column that the trigger's argument names. It is called only for an unreadable document:
-- the trigger's WHEN condition has examined it. So for a readable document no function has to be called that finds the
-- column by name.
CREATE OR REPLACE FUNCTION private.refuse_unreadable_column()
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
