-- Participants may read their session's broadcasts (live messages) and, on the topic of the session, track their
-- presence (show the others that they are connected). Only the trigger `broadcast_event` (`triggers/broadcast.sql`)
-- writes broadcasts, because a client could otherwise forge a roll.
--
-- Realtime (Supabase's server for live messages) sets `realtime.topic` to the topic that a client wants to join, and
-- then tests, with that client's role and JWT claims, whether a row of the topic can be read from or inserted into
-- `realtime.messages`. A caller who can send SQL can set `realtime.topic` to the topic of a session of theirs. The
-- policies therefore also require that the row itself has this topic; otherwise such a caller could read the rows of
-- all topics. A row of presence must have no content, because Realtime sends the content of every row to the
-- participants.

-- Whether the topic is `session:<id>` of a session that the caller takes part in (`my_session_ids`), and the caller's
-- account is not closed. For a topic in any other form this returns false and raises no error.
CREATE OR REPLACE FUNCTION private.can_follow_topic(topic text)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF topic IS NULL OR topic !~ '^session:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
    RETURN false;
  END IF;
  RETURN substr(topic, 9)::uuid = ANY (private.my_session_ids())
    AND NOT EXISTS (SELECT FROM private.account_gates WHERE account_id = auth.uid() AND NOT is_open);
END
$$;

DO $$
BEGIN
  IF to_regclass('realtime.messages') IS NULL OR to_regprocedure('realtime.topic()') IS NULL THEN
    RETURN;
  END IF;
  DROP POLICY IF EXISTS "Participants follow their sessions" ON realtime.messages;
  CREATE POLICY "Participants follow their sessions"
  ON realtime.messages FOR SELECT
  TO authenticated
  USING (
    extension IN ('broadcast', 'presence')
    AND topic = (SELECT realtime.topic())
    AND private.can_follow_topic((SELECT realtime.topic()))
  );
  DROP POLICY IF EXISTS "Participants track their presence" ON realtime.messages;
  CREATE POLICY "Participants track their presence"
  ON realtime.messages FOR INSERT
  TO authenticated
  WITH CHECK (
    extension = 'presence'
    AND topic = (SELECT realtime.topic())
    AND event IS NULL
    AND payload IS NULL
    -- Not every version of Realtime has this column.
    AND to_jsonb(messages.*) ->> 'binary_payload' IS NULL
    AND private.can_follow_topic((SELECT realtime.topic()))
  );
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE WARNING 'policies on realtime.messages were not created, because this role lacks the privilege';
END
$$;
