-- A session's events can be read by its Seer and by everybody who has or had a seat in it, except removed players. Of
-- the users, only the Seer and players with an active seat may send events, and only of types that begin with
-- `client.`. The service may send any.

CREATE POLICY "Events visible to session participants"
ON public.session_events FOR SELECT
TO authenticated
USING (session_id = ANY ((SELECT private.my_session_ids())::uuid[]));

CREATE POLICY "Seer and seated players send client events"
ON public.session_events FOR INSERT
TO authenticated
WITH CHECK (starts_with(event_type, 'client.') AND private.may_send_event(session_id));

GRANT SELECT ON public.session_events TO authenticated;
GRANT INSERT (id, session_id, event_type, payload) ON public.session_events TO authenticated;
GRANT SELECT, INSERT, DELETE ON public.session_events TO service_role;
