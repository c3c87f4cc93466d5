-- JSON documents that clients could not read are refused, in every table with a document that clients write.

-- Whether a typical client, one whose numbers are doubles and whose parser accepts at most a hundred levels (arrays and
-- objects within each other), can read a document. An unreadable document would break every client that reads the row.
-- `max_bytes` is the size limit of the document. For a document above the limit the answer is true without a search,
-- because the check constraint on the size refuses it. That constraint measures the stored size, so a value that
-- arrives compressed from another table could pass it. Therefore the text of a compressed value is measured here.
--
-- A number may print far longer than it is stored: `0e-16383` takes 12 bytes and prints 16,385 characters. So no number
-- may be beyond 1e308 or closer to 0 than 1e-308. A zero may have at most 308 decimals and any other number at most
-- 325, enough for the 17 digits of each double. And the text of a document may be at most eight times as long as its
-- size limit. Escapes print up to six times their size, so only a document with numbers of more than 40 digits can
-- exceed this factor. So a large document without such numbers is not printed to measure its text.
CREATE OR REPLACE FUNCTION private.is_readable(document jsonb, max_bytes integer)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  stored_size CONSTANT integer := pg_column_size(document);
  document_text text;
  -- Whether the text of a small document is within its limit and has no run of 64 digits, so that every number in it is
  -- in range. Stays false for a large document, whose text is not examined.
  has_acceptable_text boolean := false;
  max_decimals integer;
  greatest_number numeric;
  least_number numeric;
BEGIN
  IF pg_column_compression(document) IS NOT NULL AND octet_length(document::text) > max_bytes THEN
    RETURN false;
  END IF;
  IF stored_size > max_bytes THEN
    RETURN true;
  END IF;
  -- Printing a small document costs less than searching it. A text of 200 characters is too short for a hundred levels.
  IF stored_size <= 4096 THEN
    document_text := document::text;
    has_acceptable_text := octet_length(document_text) <= 8 * max_bytes AND document_text !~ '[0-9]{64}';
    IF has_acceptable_text AND octet_length(document_text) <= 200 THEN
      RETURN true;
    END IF;
  END IF;
  -- The document itself is level 0 of the path, so an array or object at level 100 is the hundred-and-first.
  IF jsonb_path_exists(document, 'strict $.**{100} ? (@.type() == "array" || @.type() == "object")') THEN
    RETURN false;
  END IF;
  IF has_acceptable_text THEN
    RETURN true;
  END IF;
  -- The numbers are read as the elements of one array, because one row for each result of the path costs four times as
  -- much.
  SELECT max(scale(number::numeric)), max(number::numeric), min(number::numeric)
  INTO max_decimals, greatest_number, least_number
  FROM jsonb_array_elements(
    jsonb_path_query_array(document, 'strict $.** ? (@.type() == "number")')
  ) AS list (number);
  IF max_decimals > 325 OR greatest_number > 1e308 OR least_number < -1e308 THEN
    RETURN false;
  END IF;
  IF max_decimals > 308 AND EXISTS (
    SELECT
    FROM jsonb_array_elements(
      jsonb_path_query_array(document, 'strict $.** ? (@ > -1e-308 && @ < 1e-308)')
    ) AS list (number)
    WHERE scale(number::numeric) > 308
  ) THEN
    RETURN false;
  END IF;
  RETURN (max_decimals <= 40 AND greatest_number < 1e40 AND least_number > -1e40) IS NOT FALSE
    OR octet_length(document::text) <= 8 * max_bytes;
END
$$;

-- Raises the error for an unreadable document in the given column.
CREATE OR REPLACE FUNCTION private.refuse_unreadable_document(relation text, column_name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'check_violation',
    MESSAGE = format(
      '%s must keep its size limit, have at most 100 levels, and no number beyond 1e308 or closer to 0 than 1e-308',
      column_name
    ),
    TABLE = relation,
    COLUMN = column_name,
    CONSTRAINT = 'readable_document';
END
$$;

-- Refuses the document in the column that the trigger's argument names. The trigger's WHEN condition, which names the
-- column itself, has already found that the document is not readable.
CREATE OR REPLACE FUNCTION private.refuse_unreadable_column()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.refuse_unreadable_document(TG_TABLE_NAME, TG_ARGV[0]);
  RETURN NEW;
END
$$;
