// Attacks through the API: what docs/generated/access.md says is refused, what can be attempted only through an API,
// and what the API's OpenAPI description reveals.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  adventureNotPlayable, characterNotYours, checkViolation, createToken, foreignKeyViolation, insufficientPrivilege as denied,
  newCharacter, outcome, rows, sqlAsOwner, startApi,
} from "./api.mjs";

let server;
let seer, ada, stranger, service, visitor;
let adventure, session, adasCharacter, strangersCharacter, failedRoll, draftAdventure;
// Seats can be taken only in sessions that have not started.
let waitingPrivateSession, waitingPublicSession;

before(async () => {
  server = await startApi();
  [seer, ada, stranger] = [server.createAccount(), server.createAccount(), server.createAccount()];
  [service, visitor] = [server.service(), server.visitor()];
  const published = { creator_id: seer.id, name: "The Drowned Ford", is_valid: true, status: "published" };
  [adventure] = await rows(service.from("adventures").insert(published).select());
  [draftAdventure] = await rows(seer.api.from("adventures").insert({ creator_id: seer.id, name: "A secret" }).select());
  [session] = await rows(seer.api.from("sessions").insert({ seer_id: seer.id, adventure_id: adventure.id }).select());
  [adasCharacter] = await rows(ada.api.from("characters").insert(newCharacter(ada.id)).select());
  [strangersCharacter] = await rows(stranger.api.from("characters").insert(newCharacter(stranger.id)).select());
  await rows(service.from("session_players").insert({ session_id: session.id, user_id: ada.id, character_id: adasCharacter.id }));
  await rows(seer.api.from("sessions").update({ status: "active" }).eq("id", session.id));
  const roll = { session_id: session.id, character_id: adasCharacter.id, attribute: "wit", difficulty: 18, roll_type: "attack" };
  [failedRoll] = await rows(service.from("dice_rolls").insert({ ...roll, results: [1, 2] }).select());
  await rows(ada.api.from("tutorial_progress").insert({ user_id: ada.id, path: "player" }));
  const waiting = { seer_id: seer.id, adventure_id: adventure.id };
  [waitingPrivateSession] = await rows(seer.api.from("sessions").insert(waiting).select());
  [waitingPublicSession] = await rows(seer.api.from("sessions").insert({ ...waiting, is_public: true }).select());
});
after(() => server.stop());

/** Sends the request of each attack, and asserts that it has the expected outcome (see `outcome` in api.mjs). */
async function assertOutcomes(attacks) {
  for (const [attack, expectedOutcome, sendRequest] of attacks) {
    assert.equal(await outcome(sendRequest()), expectedOutcome, attack);
  }
}

test("nobody reads what row security and privileges hide", () => assertOutcomes([
  ["e-mail addresses, by a visitor", denied, () => visitor.from("users").select("id, email")],
  ["e-mail addresses, by a user", denied, () => stranger.api.from("users").select("email").eq("id", ada.id)],
  ["one's own e-mail address as a column", denied, () => ada.api.from("users").select("email").eq("id", ada.id)],
  ["e-mail addresses as a filter", denied, () => stranger.api.from("users").select("id").like("email", "%@%")],
  ["e-mail addresses as an order", denied, () => stranger.api.from("users").select("id").order("email")],
  ["e-mail addresses through another table", denied, () => stranger.api.from("adventures").select("name, users(email)")],
  ["all columns of a user", denied, () => visitor.from("users").select("*")],
  ["another user's character", "none", () => stranger.api.from("characters").select().eq("id", adasCharacter.id)],
  ["characters through seats", "none", () => stranger.api.from("session_players").select("characters(*)").eq("session_id", session.id)],
  ["a private session", "none", () => stranger.api.from("sessions").select().eq("id", session.id)],
  ["a private session by its code", "none", () => stranger.api.from("sessions").select().eq("code", session.code)],
  ["details of a private session", "none", () => stranger.api.rpc("get_session_details", { p_session_id: session.id })],
  ["rolls of a private session", "none", () => stranger.api.from("dice_rolls").select().eq("session_id", session.id)],
  ["events of a private session", "none", () => stranger.api.from("session_events").select().eq("session_id", session.id)],
  ["rolls, by a visitor", denied, () => visitor.from("dice_rolls").select()],
  ["a draft", "none", () => stranger.api.from("adventures").select().eq("id", draftAdventure.id)],
  ["another user's tutorial", "none", () => stranger.api.from("tutorial_progress").select().neq("user_id", stranger.id)],
  ["the list of migrations", denied, () => visitor.from("sparc_migrations").select()],
]));

test("counting reveals no more than reading", async () => {
  const { count } = await stranger.api.from("sessions").select("*", { count: "exact", head: true }).eq("id", session.id);
  assert.equal(count, 0);
  const sum = await rows(stranger.api.from("dice_rolls").select("total.sum()"));
  assert.deepEqual(sum, [{ sum: null }]);
});

test("nobody writes what they may not write", async () => {
  const roll = { session_id: session.id, character_id: adasCharacter.id, attribute: "might", difficulty: 10, roll_type: "attack" };
  const event = { session_id: session.id, event_type: "client.hello" };
  const seat = { session_id: waitingPublicSession.id, user_id: stranger.id, character_id: strangersCharacter.id };
  const update = (account, table, values, id, key = "id") => () => account.api.from(table).update(values).eq(key, id).select("*");
  await assertOutcomes([
    ["a visitor's session", denied, () => visitor.from("sessions").insert({ seer_id: seer.id, adventure_id: adventure.id })],
    ["a session in another user's name", denied, () => stranger.api.from("sessions").insert({ seer_id: seer.id, adventure_id: adventure.id })],
    ["a session with a code that its Seer chose", denied, () => seer.api.from("sessions").insert({ seer_id: seer.id, adventure_id: adventure.id, code: "AAAAAA" })],
    ["a session of another user's draft", adventureNotPlayable, () => stranger.api.from("sessions").insert({ seer_id: stranger.id, adventure_id: draftAdventure.id })],
    ["a seat in a private session", denied, () => stranger.api.from("session_players").insert({ ...seat, session_id: waitingPrivateSession.id })],
    ["a seat for another user", denied, () => seer.api.from("session_players").insert(seat)],
    ["a seat with another user's character", characterNotYours, () => stranger.api.from("session_players").insert({ ...seat, character_id: adasCharacter.id })],
    ["verifying one's own profile", denied, () => ada.api.from("users").update({ is_verified: true }).eq("id", ada.id)],
    ["changing one's own number of games", denied, () => ada.api.from("users").update({ games_run: 99 }).eq("id", ada.id)],
    ["another user's name", "none", () => stranger.api.from("users").update({ display_name: "X" }).eq("id", ada.id).select("id")],
    ["one's own level", denied, update(ada, "characters", { level: 10 }, adasCharacter.id)],
    ["giving away a character", denied, update(ada, "characters", { user_id: stranger.id }, adasCharacter.id)],
    ["another user's character", "none", update(stranger, "characters", { name: "Mine" }, adasCharacter.id)],
    ["validating one's own adventure", denied, update(seer, "adventures", { is_valid: true }, draftAdventure.id)],
    ["publishing an invalid adventure", checkViolation, update(seer, "adventures", { status: "published" }, draftAdventure.id)],
    ["another user's session", "none", update(ada, "sessions", { status: "paused" }, session.id)],
    ["the Seer of a session", denied, update(seer, "sessions", { seer_id: ada.id }, session.id)],
    ["the number of seats taken", denied, update(seer, "sessions", { seats_taken: 0 }, session.id)],
    ["one's own heroic saves", denied, update(ada, "session_players", { heroic_saves_used: 0 }, session.id, "session_id")],
    ["results of a roll", denied, () => ada.api.from("dice_rolls").insert({ ...roll, results: [6, 6, 6, 6, 6] })],
    ["outcome of a roll", denied, () => ada.api.from("dice_rolls").insert({ ...roll, outcome: "critical_success" })],
    ["time of a roll", denied, () => ada.api.from("dice_rolls").insert({ ...roll, created_at: "2020-01-01" })],
    ["a roll by a stranger", denied, () => stranger.api.from("dice_rolls").insert(roll)],
    ["a roll with too large a modifier", checkViolation, () => ada.api.from("dice_rolls").insert({ ...roll, modifiers: [{ type: "flat", value: 99, source: "me" }] })],
    ["changing a roll", denied, update(ada, "dice_rolls", { success: true }, failedRoll.id)],
    ["deleting a roll", denied, () => ada.api.from("dice_rolls").delete().eq("id", failedRoll.id)],
    ["an event by a stranger", denied, () => stranger.api.from("session_events").insert(event)],
    ["an event of a type that only triggers write", denied, () => ada.api.from("session_events").insert({ ...event, event_type: "dice_rolled" })],
    ["an event in another user's name", denied, () => ada.api.from("session_events").insert({ ...event, sender_id: seer.id })],
    ["deleting a session", denied, () => seer.api.from("sessions").delete().eq("id", session.id)],
    ["deleting a character that was played", foreignKeyViolation, () => ada.api.from("characters").delete().eq("id", adasCharacter.id)],
    ["deleting all users", denied, () => visitor.from("users").delete().neq("id", ada.id)],
  ]);
  assert.equal(sqlAsOwner("SELECT count(*) FROM public.dice_rolls WHERE results = '{6,6,6,6,6}'"), "0");
});

test("an upsert obeys the rules of an update", () => assertOutcomes([
  ["another user's profile", denied, () => stranger.api.from("users").upsert({ id: ada.id, display_name: "X" })],
  ["another user's character", denied, () => stranger.api.from("characters").upsert({ ...newCharacter(stranger.id, "Y"), id: adasCharacter.id })],
  ["one's own level", denied, () => ada.api.from("characters").upsert({ ...newCharacter(ada.id), id: adasCharacter.id, level: 10 })],
]));

/** Sends a request without the client library, and returns the status and the JSON of the answer. */
async function request(path, headers = {}, options = {}) {
  const response = await fetch(server.url + path, { headers, ...options });
  return { status: response.status, body: await response.json().catch(() => null) };
}

test("schemas that are not exposed cannot be reached", async () => {
  for (const schema of ["private", "auth", "extensions", "pg_catalog"]) {
    assert.equal((await request("/users", { ...ada.headers, "Accept-Profile": schema })).status, 406, schema);
  }
  // These functions are in schema `private`. Without `Content-Profile`, PostgREST looks for them in `public`.
  for (const name of ["join_by_code", "close_account", "is_service", "archive_sessions", "close_account_unchecked", "delete_old_events"]) {
    const postOptions = { method: "POST", body: "{}", headers: { ...ada.headers, "Content-Type": "application/json" } };
    assert.equal((await request(`/rpc/${name}`, {}, postOptions)).status, 404, name);
    postOptions.headers["Content-Profile"] = "private";
    assert.equal((await request(`/rpc/${name}`, {}, postOptions)).status, 406, name);
  }
});

test("a token that is forged, expired or claims too much is refused", async () => {
  const soon = Math.floor(Date.now() / 1000) + 60;
  const claims = { role: "authenticated", sub: ada.id, exp: soon };
  const requestWith = (bearer) => request("/characters", { Authorization: `Bearer ${bearer}` });
  assert.equal((await requestWith(createToken(claims))).status, 200);
  assert.equal((await requestWith(createToken(claims, { key: "another secret, as long as the first one" }))).status, 401, "forged");
  assert.equal((await requestWith(createToken(claims, { algorithm: "none" }))).status, 401, "unsigned");
  assert.equal((await requestWith(createToken({ ...claims, exp: soon - 3600 }))).status, 401, "expired");
  assert.equal((await requestWith(`${createToken(claims).slice(0, -4)}AAAA`)).status, 401, "altered signature");
  assert.equal((await requestWith(createToken({ ...claims, role: "postgres" }))).status, 403, "a role that the API does not have");
  const withoutSubject = await requestWith(createToken({ role: "authenticated", exp: soon }));
  assert.deepEqual([withoutSubject.status, withoutSubject.body], [200, []], "a token without a subject");
  const malformed = await requestWith(createToken({ ...claims, sub: "not a uuid" }));
  assert.ok(malformed.status === 400 || malformed.body.length === 0, "a subject that is not a UUID");
});

test("the API lists only paths that its caller may use", async () => {
  // Only paths are compared, because PostgREST lists the same methods for every table, whatever the caller's privileges
  // are. The tests above try the methods.
  const listedPaths = async (headers) =>
    Object.keys((await request("/", { ...headers, Accept: "application/openapi+json" })).body.paths).sort();
  const pathsForEverybody = ["/", "/adventures", "/archived_sessions", "/creatures", "/profiles", "/rpc/get_session_details", "/sessions", "/users"];
  const pathsForUsers = ["/archived_dice_rolls", "/archived_session_players", "/characters", "/dice_rolls", "/session_events",
    "/session_players", "/tutorial_progress"];
  assert.deepEqual(await listedPaths({}), pathsForEverybody);
  assert.deepEqual(await listedPaths(ada.headers), [...pathsForEverybody, ...pathsForUsers].sort());
});
