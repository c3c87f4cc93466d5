// Authentication and refusals of the example `live_session`, over HTTP.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createToken, ecKeyPair, rsaKeyPair, sqlAsOwner, startProgram } from "./program.mjs";

/** `ada` is what a sign-up returns: a profile and a token. */
let program, ada;
before(async () => {
  program = await startProgram();
  ada = (await program.request("POST", "/api/demo-users", { body: { display_name: "Ada" } })).body;
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

test("all other tokens are refused", async () => {
  const now = Math.floor(Date.now() / 1000), id = ada.profile.id;
  const publicKeyPem = (pair) => pair.publicKey.export({ type: "spki", format: "pem" });
  const invalidTokens = {
    "another secret": createToken(id, { key: "x".repeat(32) }),
    "no signature": createToken(id, { alg: "none" }),
    "the public key as a secret": createToken(id, { key: publicKeyPem(rsaKeyPair) }),
    "the other public key as a secret": createToken(id, { key: publicKeyPem(ecKeyPair) }),
    "a key that is not published": createToken(id, { alg: "ES256", kid: "another" }),
    "another audience": createToken(id, { aud: "anon" }),
    "no audience": createToken(id, { aud: undefined }),
    "no expiry": createToken(id, { exp: undefined }),
    "no subject": createToken(undefined),
    "not valid yet": createToken(id, { nbf: now + 60 }),
    "a subject that is not a UUID": createToken("ada"),
    "not a token": "x",
  };
  for (const [name, token] of Object.entries(invalidTokens)) assert.deepEqual(await nameOrRefusal(token), [401, "token_invalid"], name);
  assert.deepEqual(await nameOrRefusal(createToken(id, { exp: now - 1 })), [401, "token_expired"]);
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
  assert.equal(created.body.code, "account_closed");
  assert.ok([401, 403].includes(created.status));
});

test("a sign-up that names an account returns no token for it", async () => {
  const body = { id: ada.profile.id, display_name: "Ada" };
  const refusal = await program.request("POST", "/api/demo-users", { body });
  assert.deepEqual([refusal.status, refusal.body.code, refusal.body.token], [422, "invalid_input", undefined]);
});

test("an invalid input is refused with the name of the wrong field", async () => {
  const { status, body } = await program.request("POST", "/api/characters", { token: ada.token, body: { name: "Hild", klass: "rogue" } });
  assert.deepEqual([status, body.code], [422, "invalid_input"]);
  assert.match(body.message, /klass/);
  const shortName = await program.request("POST", "/api/characters", { token: ada.token, body: { name: "H" } });
  assert.deepEqual([shortName.status, shortName.body.code], [422, "invalid_value"]);
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

test("the OpenAPI document describes rolls with the service's types, and every type that it refers to", async () => {
  const { body } = await program.request("GET", "/openapi.json");
  const roll = body.paths["/api/rolls"].post;
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
