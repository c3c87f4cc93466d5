-- Functions that refuse JSON documents that clients could not parse. Their triggers are in the files of the tables.

-- Whether a typical client, one whose numbers are doubles and whose parser accepts at most a hundred levels (arrays and
-- objects within each other), can parse a document. A document that it cannot parse would break every client that reads
-- the row.
--
-- `max_bytes` is the size limit of the document. A document whose stored size exceeds the limit is not examined, and
-- the answer is true, because the check constraint on the size refuses it. A value that is copied from a stored row can
-- arrive compressed, and could then pass that constraint. Its size before the compression is not known, so the length
-- of its text is compared with the limit instead, and if the text is longer, the answer is false.
--
-- The text of a number can be far longer than its stored form: `0e-16383` is stored in 12 bytes, and its text has
-- 16,385 characters. So there are three more limits:
--
-- - No number may be beyond 1e308, and no number but 0 may be closer to 0 than 1e-308.
-- - A zero may have at most 308 decimals, and any other number at most 325. So the 17 significant digits of a double
--   can be written even if it is close to 1e-308.
-- - The text of a document may be at most eight times as long as the document's size limit.
--
-- Of a document that is stored in more than 4096 bytes, the text is measured only if it may be too long, because
-- producing the text takes time. It cannot be too long if the document's stored form is within the size limit and no
-- number has more than 40 digits before or after the decimal point: the text of an escaped character is at most six
-- times as long as its stored form, and the text of such a number at most seven times. (The stored size says nothing if
-- the value is compressed, so then the text is measured in any case.)
CREATE OR REPLACE FUNCTION private.is_client_parsable(document jsonb, max_bytes integer)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  stored_size CONSTANT integer := pg_column_size(document);
  document_text text;
  -- Whether the text shows that size and numbers are acceptable (the levels are checked separately): the document is
  -- stored in at most 4096 bytes, its text is at most eight times `max_bytes` long, and no number in it has 64 digits
  -- in a row, which implies that every number is in range.
  has_harmless_text boolean := false;
  greatest_decimal_count integer;
  greatest_number numeric;
  least_number numeric;
BEGIN
  IF pg_column_compression(document) IS NOT NULL AND octet_length(document::text) > max_bytes THEN
    RETURN false;
  END IF;
  IF stored_size > max_bytes THEN
    RETURN true;
  END IF;
  -- The text of a small document costs less than a search of its values. A text of 200 characters is too short for more
  -- than a hundred levels.
  IF stored_size <= 4096 THEN
    document_text := document::text;
    has_harmless_text := octet_length(document_text) <= 8 * max_bytes AND document_text !~ '[0-9]{64}';
    IF has_harmless_text AND octet_length(document_text) <= 200 THEN
      RETURN true;
    END IF;
  END IF;
  -- The document itself is level 0 of the path, so an array or object at level 100 is the hundred-and-first level.
  IF jsonb_path_exists(document, 'strict $.**{100} ? (@.type() == "array" || @.type() == "object")') THEN
    RETURN false;
  END IF;
  IF has_harmless_text THEN
    RETURN true;
  END IF;
  -- `jsonb_path_query`, which returns a row for each number, costs four times as much as this array of all numbers.
  SELECT max(scale(number::numeric)), max(number::numeric), min(number::numeric)
  INTO greatest_decimal_count, greatest_number, least_number
  FROM jsonb_array_elements(
    jsonb_path_query_array(document, 'strict $.** ? (@.type() == "number")')
  ) AS list (number);
  IF greatest_decimal_count > 325 OR greatest_number > 1e308 OR least_number < -1e308 THEN
    RETURN false;
  END IF;
  IF greatest_decimal_count > 308 AND EXISTS (
    SELECT
    FROM jsonb_array_elements(
      jsonb_path_query_array(document, 'strict $.** ? (@ > -1e-308 && @ < 1e-308)')
    ) AS list (number)
    WHERE scale(number::numeric) > 308
  ) THEN
    RETURN false;
  END IF;
  RETURN (greatest_decimal_count <= 40 AND greatest_number < 1e40 AND least_number > -1e40) IS NOT FALSE
    OR octet_length(document::text) <= 8 * max_bytes;
END
$$;

-- Raises the error for a document that clients cannot parse.
CREATE OR REPLACE FUNCTION private.refuse_unparsable_document(relation text, column_name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'check_violation',
    MESSAGE = format(
      '%s must not exceed its size limit or 100 levels, nor have a number beyond 1e308 or closer to 0 than 1e-308',
      column_name
    ),
    TABLE = relation,
    COLUMN = column_name,
    CONSTRAINT = 'client_parsable_document';
END
$$;

-- Refuses the document in the column that the trigger's argument names. The trigger's WHEN condition has already found
-- that clients cannot parse the document.
CREATE OR REPLACE FUNCTION private.refuse_unparsable_column()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.refuse_unparsable_document(TG_TABLE_NAME, TG_ARGV[0]);
  RETURN NEW;
END
$$;
