// Starts the example program, gives access to its database, and creates tokens as the platform signs them.

import { execFileSync, spawn } from "node:child_process";
import { createHmac, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

/**
 * The keys with which tokens are signed: one shared with the program, and three whose public halves it reads from a
 * file.
 */
export const sharedSecret = randomUUID() + randomUUID();
export const ecKeyPair = generateKeyPairSync("ec", { namedCurve: "P-256" });
export const otherEcKeyPair = generateKeyPairSync("ec", { namedCurve: "P-256" });
export const rsaKeyPair = generateKeyPairSync("rsa", { modulusLength: 2048 });

/** Starts Chromium. */
export const launchBrowser = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** Runs SQL as the owner of the database. */
export function sqlAsOwner(sql) {
  return execFileSync("psql", [process.env.DATABASE_URL, "-XAtqc", sql], { encoding: "utf8" }).trim();
}

const jwk = (keyPair, kid) => ({ ...keyPair.publicKey.export({ format: "jwk" }), kid, use: "sig" });
const jwksFolder = mkdtempSync(join(tmpdir(), "sparc-jwks-"));
process.on("exit", () => rmSync(jwksFolder, { recursive: true, force: true }));
const jwksPath = join(jwksFolder, "jwks.json");
const jwks = [jwk(ecKeyPair, "ec-key"), jwk(otherEcKeyPair, "other-ec-key"), jwk(rsaKeyPair, "rsa-key")];
writeFileSync(jwksPath, JSON.stringify({ keys: jwks }));

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** Creates a token for the user `sub`. The options replace parts of a valid token: its header, claims or key. */
export function createToken(sub, { alg = "HS256", kid, key, ...claims } = {}) {
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const signingInput = `${base64url({ alg, typ: "JWT", kid })}.${base64url({ sub, exp, aud: "authenticated", role: "authenticated", ...claims })}`;
  const signature = {
    HS256: () => createHmac("sha256", key ?? sharedSecret).update(signingInput).digest(),
    ES256: () => sign("sha256", Buffer.from(signingInput), { key: key ?? ecKeyPair.privateKey, dsaEncoding: "ieee-p1363" }),
    RS256: () => sign("sha256", Buffer.from(signingInput), key ?? rsaKeyPair.privateKey),
    none: () => Buffer.alloc(0),
  }[alg]();
  return `${signingInput}.${signature.toString("base64url")}`;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/**
 * Starts the program, on a free port if none is given. `actionInterval` is the number of seconds between two actions of
 * the demo game; with the default, the game lasts longer than the tests. `args` are further arguments.
 */
export async function startProgram({ port, actionInterval = 12, args = [] } = {}) {
  port ??= await freePort();
  const program = spawn(process.env.LIVE_SESSION, ["--port", port, "--action-interval", actionInterval, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, JWT_SECRET: sharedSecret, JWKS: jwksPath },
  });
  const exit = once(program, "exit");
  await Promise.race([once(program.stdout, "data"), exit.then(([code]) => { throw new Error(`the program exited with ${code}`); })]);
  const url = `http://127.0.0.1:${port}`;
  return {
    port, url,
    async stop() {
      program.kill("SIGINT");
      const [code] = await exit;
      if (code !== 0) throw new Error(`after SIGINT, the program exited with ${code}`);
    },
    /**
     * Sends a request, with a token and a JSON body if they are given, and returns the status, the headers and the JSON
     * of the answer.
     */
    async request(method, path, { token, body, headers } = {}) {
      const response = await fetch(url + path, {
        method, signal: AbortSignal.timeout(10000), body: body && JSON.stringify(body),
        headers: { ...(token && { authorization: `Bearer ${token}` }), ...(body && { "content-type": "application/json" }), ...headers },
      });
      return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) };
    },
    /** Signs a user up, and returns their profile and token, and a function that sends requests with this token. */
    async signUp(name) {
      const account = (await this.request("POST", "/api/demo-users", { body: { display_name: name } })).body;
      return { ...account, send: (method, path, body) => this.request(method, path, { token: account.token, body }) };
    },
    /** Creates a session of a user, private by default. */
    async createSession(seer, { adventure = "The Lantern Road", visibility = "private" } = {}) {
      const adventures = (await this.request("GET", "/api/adventures")).body.items;
      const { id } = adventures.find(({ name }) => name === adventure);
      return (await seer.send("POST", "/api/sessions", { adventure_id: id, visibility })).body;
    },
    /** Seats a player with a new character, and returns the character. */
    async takeSeat(player, session, name) {
      const hero = (await player.send("POST", "/api/characters", { name, class: "warrior" })).body;
      await player.send("POST", "/api/join", { code: session.code, character_id: hero.id });
      return hero;
    },
  };
}
