// Authentication, refusals and writes of the example `live_session`, over HTTP.

import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { after, before, test } from "node:test";
import { createToken, ecKeyPair, otherEcKeyPair, rsaKeyPair, sqlAsOwner, startProgram } from "./program.mjs";

let program, ada;
before(async () => {
  program = await startProgram();
  ada = await program.signUp("Ada");
});
after(() => program.stop());

/** Requests the profile of the token's user. Returns its name, or the status and code of the refusal. */
const nameOrRefusal = async (token) => {
  const { status, body } = await program.request("GET", "/api/me", { token });
  return status === 200 ? body.display_name : [status, body.code];
};

test("tokens signed with the shared secret or a published key are accepted", async () => {
  for (const options of [{}, { alg: "ES256" }, { alg: "ES256", kid: "ec-key" }, { alg: "RS256" }, { alg: "RS256", kid: "rsa-key" }]) {
    assert.equal(await nameOrRefusal(createToken(ada.profile.id, options)), "Ada", JSON.stringify(options));
  }
  assert.equal(await nameOrRefusal(ada.token), "Ada");
});

test("tokens that are wrongly signed, malformed, expired or not valid yet, or that lack a claim or have a wrong one, are refused", async () => {
  const now = Math.floor(Date.now() / 1000), id = ada.profile.id;
  const unpublishedKeyPair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const publicKeyPem = (pair) => pair.publicKey.export({ type: "spki", format: "pem" });
  const invalidTokens = {
    "another secret": createToken(id, { key: "x".repeat(32) }),
    "no signature": createToken(id, { alg: "none" }),
    "the RSA public key as a secret": createToken(id, { key: publicKeyPem(rsaKeyPair) }),
    "the elliptic-curve public key as a secret": createToken(id, { key: publicKeyPem(ecKeyPair) }),
    "a key that is not published": createToken(id, { alg: "ES256", key: unpublishedKeyPair.privateKey }),
    "a key id that is not published": createToken(id, { alg: "ES256", kid: "another" }),
    "another audience": createToken(id, { aud: "anon" }),
    "no audience": createToken(id, { aud: undefined }),
    "no expiry": createToken(id, { exp: undefined }),
    "no subject": createToken(undefined),
    "not valid yet": createToken(id, { nbf: now + 60 }),
    "a subject that is not a UUID": createToken("ada"),
    "not a token": "x",
  };
  for (const [name, token] of Object.entries(invalidTokens)) assert.deepEqual(await nameOrRefusal(token), [401, "token_invalid"], name);
  // An ES256 token without a key id is tried with both EC keys. The key that did not sign it must not hide that the
  // token has expired.
  for (const options of [{}, { alg: "ES256" }, { alg: "ES256", key: otherEcKeyPair.privateKey }]) {
    const expired = createToken(id, { ...options, exp: now - 1 });
    assert.deepEqual(await nameOrRefusal(expired), [401, "token_expired"], JSON.stringify(options));
  }
  assert.deepEqual(await nameOrRefusal(undefined), [401, "not_signed_in"]);
});

test("an invalid token is refused even where none is required", async () => {
  assert.equal((await program.request("GET", "/api/lobby", { token: "x" })).status, 401);
  assert.equal((await program.request("GET", "/api/lobby")).status, 200);
});

test("a closed account gets account_closed", async () => {
  const bea = (await program.request("POST", "/api/demo-users", { body: { display_name: "Bea" } })).body;
  sqlAsOwner(`UPDATE auth.users SET deleted_at = now() WHERE id = '${bea.profile.id}'`);
  const created = await program.request("POST", "/api/characters", { token: bea.token, body: { name: "Too Late" } });
  assert.deepEqual([created.status, created.body.code], [403, "account_closed"]);
});

test("a sign-up with the id of an existing account is refused and returns no token", async () => {
  const body = { id: ada.profile.id, display_name: "Ada" };
  const refusal = await program.request("POST", "/api/demo-users", { body });
  assert.deepEqual([refusal.status, refusal.body.code, refusal.body.token], [422, "invalid_input", undefined]);
});

test("the refusal of an unknown field names it, and a name that is too short is an invalid value", async () => {
  const { status, body } = await program.request("POST", "/api/characters", { token: ada.token, body: { name: "Hild", klass: "rogue" } });
  assert.deepEqual([status, body.code], [422, "invalid_input"]);
  assert.match(body.message, /klass/);
  const shortName = await program.request("POST", "/api/characters", { token: ada.token, body: { name: "H" } });
  assert.deepEqual([shortName.status, shortName.body.code], [422, "invalid_value"]);
});

test("every refusal has the format of an error", async () => {
  const withMalformedBody = { method: "POST", headers: { "content-type": "application/json" }, body: "[" };
  const refusals = [
    ["/api/sessions/x", {}, 400, "invalid_input"],
    ["/api/lobby?min_free_seats=x", {}, 400, "invalid_input"],
    ["/api/lobby?no_such_field=1", {}, 400, "invalid_input"],
    ["/api/demo-users", withMalformedBody, 400, "invalid_input"],
    ["/api/demo-users", { method: "POST", body: "{}" }, 415, "invalid_input"],
    ["/api/nothing", {}, 404, "not_found"],
    ["/api/lobby", { method: "DELETE" }, 405, "method_not_allowed"],
  ];
  for (const [path, options, status, code] of refusals) {
    const response = await fetch(program.url + path, options);
    const body = await response.json();
    assert.deepEqual([response.status, body.code], [status, code], path);
    assert.deepEqual(Object.keys(body).sort(), ["code", "details", "message", "retryable"], path);
  }
});

test("a refusal has a header that keeps the browser from caching it", async () => {
  const sessionId = (await program.request("GET", "/api/demo-session")).body;
  // No event has this number.
  const response = await fetch(`${program.url}/api/sessions/${sessionId}/events`, { headers: { "last-event-id": "1000000" } });
  assert.deepEqual([response.status, (await response.json()).code, response.headers.get("cache-control")], [410, "events_expired", "no-store"]);
});

test("the lobby lists sessions and refuses an invalid cursor", async () => {
  const firstPage = await program.request("GET", "/api/lobby?min_free_seats=1");
  assert.ok(firstPage.body.items.length >= 3, "the demo opens three sessions in the lobby");
  const refusal = await program.request("GET", "/api/lobby?min_free_seats=1&after=7");
  assert.deepEqual([refusal.status, refusal.body.code], [400, "bad_cursor"]);
});

test("the OpenAPI document describes rolls with the service's types, and has every type that it refers to", async () => {
  const { body } = await program.request("GET", "/openapi.json");
  const roll = body.paths["/api/rolls"].post;
  assert.equal(roll.requestBody.required, true);
  assert.equal(roll.requestBody.content["application/json"].schema.$ref, "#/components/schemas/NewRoll");
  assert.equal(roll.responses[200].content["application/json"].schema.$ref, "#/components/schemas/dice_rolls");
  const { NewRoll, Difficulty, dice_rolls } = body.components.schemas;
  assert.deepEqual(NewRoll.required.sort(), ["attribute", "difficulty", "kind", "roller", "session_id"]);
  assert.equal(NewRoll.additionalProperties, false);
  assert.deepEqual([Difficulty.minimum, Difficulty.maximum], [3, 18]);
  assert.match(dice_rolls.properties.animation_seed.description, /same animation/);
  const references = JSON.stringify(body).match(/#\/components\/schemas\/\w+/g);
  for (const name of new Set(references)) assert.ok(body.components.schemas[name.split("/").pop()], name);
});

test("hit points and game state change together, and only for a character with a seat in the session", async () => {
  const [seer, player] = [await program.signUp("Morwen"), await program.signUp("Bo")];
  const [session, sessionWithoutPlayers] = [await program.createSession(seer), await program.createSession(seer)];
  const { id: heroId, max_hit_points: maximum } = await program.takeSeat(player, session, "Hild");
  await seer.send("POST", `/api/sessions/${session.id}/start`);
  const change = (user, { id }, damage) =>
    user.send("POST", `/api/sessions/${id}/hit-points`, { character_id: heroId, damage });
  const hitPointsNow = async () => {
    const { game_state } = (await seer.send("GET", `/api/sessions/${session.id}`)).body.session;
    return [(await player.send("GET", "/api/characters")).body[0].hit_points, game_state.hit_points?.[heroId]];
  };

  const refusals = [await change(player, session, 1), await change(seer, sessionWithoutPlayers, 1)];
  assert.deepEqual(refusals.map(({ status, body }) => [status, body.code]), [[403, "not_a_seer"], [404, "not_found"]]);
  assert.deepEqual(await hitPointsNow(), [maximum, undefined], "a refused request must change nothing");

  const clicks = await Promise.all([1, 1, 1].map((damage) => change(seer, session, damage)));
  assert.deepEqual(clicks.map(({ status }) => status), [200, 200, 200]);
  assert.deepEqual(await hitPointsNow(), [maximum - 3, [maximum - 3, maximum]]);
  assert.equal((await change(seer, session, -1)).body.hit_points, maximum - 2);
  assert.deepEqual(await hitPointsNow(), [maximum - 2, [maximum - 2, maximum]]);
});

test("everybody can read the rolls of the demo's session, as everybody can watch it", async () => {
  const sessionId = (await program.request("GET", "/api/demo-session")).body;
  for (const token of [undefined, ada.token]) {
    const { status, body } = await program.request("GET", `/api/sessions/${sessionId}/rolls`, { token });
    assert.deepEqual([status, Array.isArray(body.items)], [200, true]);
  }
});

test("with replicas, a response has a log position even if the program acted as the service", async (t) => {
  // Any server counts as a replica here, because only the header matters.
  const withReplica = await startProgram({ args: ["--replicas", process.env.DATABASE_URL] });
  t.after(() => withReplica.stop());
  const signUp = await withReplica.request("POST", "/api/demo-users", { body: { display_name: "Cora" } });
  const position = signUp.headers.get("sparc-position");
  assert.match(position ?? "", /^\d+-[0-9A-F]+\/[0-9A-F]+$/);
  // After another write, the response to a read has a later position than the one that its request sends.
  sqlAsOwner(`UPDATE users SET bio = 'Sings.' WHERE id = '${signUp.body.profile.id}'`);
  const sessionId = (await withReplica.request("GET", "/api/demo-session")).body;
  const headers = { "sparc-position": position };
  const details = await withReplica.request("GET", `/api/sessions/${sessionId}`, { headers });
  const readPosition = details.headers.get("sparc-position");
  // TIMELINE-HIGH/LOW, the last two in hexadecimal.
  const offset = (text) => text.split("-")[1].split("/").reduce((high, low) => (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`));
  assert.ok(offset(readPosition) > offset(position), "the response must have a later position, although the program reads the session as the service");
});

test("without the demo, nobody gets a token by signing up", async (t) => {
  const withoutDemo = await startProgram({ args: ["--no-demo"] });
  t.after(() => withoutDemo.stop());
  const { status, body } = await withoutDemo.request("POST", "/api/demo-users", { body: { display_name: "Dora" } });
  assert.deepEqual([status, body.token], [404, undefined]);
  assert.equal((await withoutDemo.request("GET", "/openapi.json")).body.paths["/api/demo-users"], undefined);
  assert.equal((await withoutDemo.request("GET", "/api/me", { token: ada.token })).body.display_name, "Ada");
});
