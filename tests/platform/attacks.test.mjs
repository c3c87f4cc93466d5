// The attacks of the matrix (docs/generated/access.md) through the API, those that only an API has, and its list of itself.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { hero, owner, rows, start, token, told } from "./api.mjs";

let server;
let seer, ada, stranger, service, visitor;
let adventure, session, character, strangers, failed, draft;

before(async () => {
  server = await start();
  [seer, ada, stranger] = [server.account(), server.account(), server.account()];
  [service, visitor] = [server.service(), server.visitor()];
  const made = { creator_id: seer.id, name: "The Drowned Ford", is_valid: true, status: "published" };
  [adventure] = await rows(service.from("adventures").insert(made).select());
  [draft] = await rows(seer.api.from("adventures").insert({ creator_id: seer.id, name: "A secret" }).select());
  [session] = await rows(seer.api.from("sessions").insert({ seer_id: seer.id, adventure_id: adventure.id }).select());
  [character] = await rows(ada.api.from("characters").insert(hero(ada.id)).select());
  [strangers] = await rows(stranger.api.from("characters").insert(hero(stranger.id)).select());
  await rows(service.from("session_players").insert({ session_id: session.id, user_id: ada.id, character_id: character.id }));
  await rows(seer.api.from("sessions").update({ status: "active" }).eq("id", session.id));
  const roll = { session_id: session.id, character_id: character.id, attribute: "wit", difficulty: 18, roll_type: "attack" };
  [failed] = await rows(service.from("dice_rolls").insert({ ...roll, results: [1, 2] }).select());
});
after(() => server.stop());

/** Each attack and what it is told. */
async function all(attacks) {
  for (const [what, expected, asking] of attacks) {
    assert.equal(await told(asking()), expected, what);
  }
}

const closed = "42501";

test("nobody reads what is not theirs", () => all([
  ["addresses, by a visitor", closed, () => visitor.from("users").select("id, email")],
  ["addresses, by a user", closed, () => stranger.api.from("users").select("email").eq("id", ada.id)],
  ["the own address as a column", closed, () => ada.api.from("users").select("email").eq("id", ada.id)],
  ["addresses as a filter", closed, () => stranger.api.from("users").select("id").like("email", "%@%")],
  ["addresses as an order", closed, () => stranger.api.from("users").select("id").order("email")],
  ["addresses through another table", closed, () => stranger.api.from("adventures").select("name, users(email)")],
  ["everything of a user", closed, () => visitor.from("users").select("*")],
  ["a stranger's characters", "none", () => stranger.api.from("characters").select().eq("id", character.id)],
  ["characters through seats", "none", () => stranger.api.from("session_players").select("characters(*)").eq("session_id", session.id)],
  ["a private session", "none", () => stranger.api.from("sessions").select().eq("id", session.id)],
  ["by its code", "none", () => stranger.api.from("sessions").select().eq("code", session.code)],
  ["its details", "none", () => stranger.api.rpc("get_session_details", { p_session_id: session.id })],
  ["its rolls", "none", () => stranger.api.from("dice_rolls").select().eq("session_id", session.id)],
  ["its events", "none", () => stranger.api.from("session_events").select().eq("session_id", session.id)],
  ["its rolls, by a visitor", closed, () => visitor.from("dice_rolls").select()],
  ["a draft", "none", () => stranger.api.from("adventures").select().eq("id", draft.id)],
  ["another's tutorial", "none", () => stranger.api.from("tutorial_progress").select().neq("user_id", stranger.id)],
  ["the list of migrations", closed, () => visitor.from("sparc_migrations").select()],
]));

test("counting tells no more than reading", async () => {
  const { count } = await stranger.api.from("sessions").select("*", { count: "exact", head: true }).eq("id", session.id);
  assert.equal(count, 0);
  const sum = await rows(stranger.api.from("dice_rolls").select("total.sum()"));
  assert.deepEqual(sum, [{ sum: null }]);
});

test("nobody writes what is not theirs", () => {
  const roll = { session_id: session.id, character_id: character.id, attribute: "might", difficulty: 10, roll_type: "attack" };
  const event = { session_id: session.id, event_type: "client.hello" };
  const seat = { session_id: session.id, user_id: stranger.id, character_id: strangers.id };
  const change = (who, table, values, id, key = "id") => () => who.api.from(table).update(values).eq(key, id).select("*");
  return all([
    ["a visitor's session", closed, () => visitor.from("sessions").insert({ seer_id: seer.id, adventure_id: adventure.id })],
    ["a session in another's name", closed, () => stranger.api.from("sessions").insert({ seer_id: seer.id, adventure_id: adventure.id })],
    ["a session with a code of one's own", closed, () => seer.api.from("sessions").insert({ seer_id: seer.id, adventure_id: adventure.id, code: "AAAAAA" })],
    ["a session of a stranger's draft", "SP009", () => stranger.api.from("sessions").insert({ seer_id: stranger.id, adventure_id: draft.id })],
    ["a seat in a private session", closed, () => stranger.api.from("session_players").insert(seat)],
    ["a seat with another's character", closed, () => seer.api.from("session_players").insert({ ...seat, character_id: character.id })],
    ["the own badge", closed, () => ada.api.from("users").update({ is_verified: true }).eq("id", ada.id)],
    ["the own games", closed, () => ada.api.from("users").update({ games_run: 99 }).eq("id", ada.id)],
    ["another's name", "none", () => stranger.api.from("users").update({ display_name: "X" }).eq("id", ada.id).select("id")],
    ["the own level", closed, change(ada, "characters", { level: 10 }, character.id)],
    ["the own owner", closed, change(ada, "characters", { user_id: stranger.id }, character.id)],
    ["another's character", "none", change(stranger, "characters", { name: "Mine" }, character.id)],
    ["the own verdict", closed, change(seer, "adventures", { is_valid: true }, draft.id)],
    ["an adventure that is not valid, published", "23514", change(seer, "adventures", { status: "published" }, draft.id)],
    ["another's session", "none", change(ada, "sessions", { status: "paused" }, session.id)],
    ["its Seer", closed, change(seer, "sessions", { seer_id: ada.id }, session.id)],
    ["its count of seats", closed, change(seer, "sessions", { seats_taken: 0 }, session.id)],
    ["its heroic saves", closed, change(ada, "session_players", { heroic_saves_used: 0 }, session.id, "session_id")],
    ["a result", closed, () => ada.api.from("dice_rolls").insert({ ...roll, results: [6, 6, 6, 6, 6] })],
    ["an outcome", closed, () => ada.api.from("dice_rolls").insert({ ...roll, outcome: "critical_success" })],
    ["a moment", closed, () => ada.api.from("dice_rolls").insert({ ...roll, created_at: "2020-01-01" })],
    ["a roll by a stranger", closed, () => stranger.api.from("dice_rolls").insert(roll)],
    ["a roll with a strong claim", "23514", () => ada.api.from("dice_rolls").insert({ ...roll, modifiers: [{ type: "flat", value: 99, source: "me" }] })],
    ["a roll changed", closed, change(ada, "dice_rolls", { success: true }, failed.id)],
    ["a roll taken back", closed, () => ada.api.from("dice_rolls").delete().eq("id", failed.id)],
    ["an event by a stranger", closed, () => stranger.api.from("session_events").insert(event)],
    ["an event of the server's", closed, () => ada.api.from("session_events").insert({ ...event, event_type: "dice_rolled" })],
    ["an event in another's name", closed, () => ada.api.from("session_events").insert({ ...event, sender_id: seer.id })],
    ["a session deleted", closed, () => seer.api.from("sessions").delete().eq("id", session.id)],
    ["a played character deleted", "23503", () => ada.api.from("characters").delete().eq("id", character.id)],
    ["everything deleted", closed, () => visitor.from("users").delete().neq("id", ada.id)],
  ]);
});

test("an insert that merges is an update, and is held to its rules", () => all([
  ["another's profile", closed, () => stranger.api.from("users").upsert({ id: ada.id, display_name: "X" })],
  ["another's character", closed, () => stranger.api.from("characters").upsert({ ...hero(stranger.id, "Y"), id: character.id })],
  ["the own level", closed, () => ada.api.from("characters").upsert({ ...hero(ada.id), id: character.id, level: 10 })],
]));

async function asked(path, headers = {}, more = {}) {
  const answer = await fetch(server.url + path, { headers, ...more });
  return { status: answer.status, body: await answer.json().catch(() => null) };
}

test("schemas that are not served are not served", async () => {
  for (const schema of ["private", "auth", "extensions", "pg_catalog"]) {
    assert.equal((await asked("/users", { ...ada.headers, "Accept-Profile": schema })).status, 406, schema);
  }
  for (const name of ["join_by_code", "close_account", "is_server", "archive_sessions", "erase_account", "clean_events"]) {
    const post = { method: "POST", body: "{}", headers: { ...ada.headers, "Content-Type": "application/json" } };
    assert.equal((await asked(`/rpc/${name}`, {}, post)).status, 404, name);
    post.headers["Content-Profile"] = "private";
    assert.equal((await asked(`/rpc/${name}`, {}, post)).status, 406, name);
  }
});

test("a token that is forged, old, or claims too much is no token", async () => {
  const soon = Math.floor(Date.now() / 1000) + 60;
  const claims = { role: "authenticated", sub: ada.id, exp: soon };
  const of = (bearer) => asked("/characters", { Authorization: `Bearer ${bearer}` });
  assert.equal((await of(token(claims))).status, 200);
  assert.equal((await of(token(claims, { key: "another secret, as long as the first one" }))).status, 401, "forged");
  assert.equal((await of(token(claims, { algorithm: "none" }))).status, 401, "unsigned");
  assert.equal((await of(token({ ...claims, exp: soon - 3600 }))).status, 401, "old");
  assert.equal((await of(`${token(claims).slice(0, -4)}AAAA`)).status, 401, "cut");
  assert.equal((await of(token({ ...claims, role: "postgres" }))).status, 403, "a role that the API has not");
  const nobody = await of(token({ role: "authenticated", exp: soon }));
  assert.deepEqual([nobody.status, nobody.body], [200, []], "signed in as nobody");
  const odd = await of(token({ ...claims, sub: "not a uuid" }));
  assert.ok(odd.status === 400 || odd.body.length === 0, "a subject that is no id");
});

test("the API lists nothing by accident", async () => {
  // Paths; the verbs beside them are every table's, whatever its privileges, and are tried above.
  const listed = async (headers) =>
    Object.keys((await asked("/", { ...headers, Accept: "application/openapi+json" })).body.paths).sort();
  const open = ["/", "/adventures", "/archived_sessions", "/creatures", "/profiles", "/rpc/get_session_details", "/sessions", "/users"];
  const closed = ["/archived_dice_rolls", "/archived_session_players", "/characters", "/dice_rolls", "/session_events",
    "/session_players", "/tutorial_progress"];
  assert.deepEqual(await listed({}), open);
  assert.deepEqual(await listed(ada.headers), [...open, ...closed].sort());
  assert.equal(owner("SELECT count(*) FROM public.dice_rolls WHERE results = '{6,6,6,6,6}'"), "0");
});
