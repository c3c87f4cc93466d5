// Runs the two JavaScript blocks of docs/operations.md, "Realtime". They run as they are printed, except that the first
// one reads the events under /api, where the example `live_session` serves them.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { launchBrowser, sqlAsOwner, startProgram } from "./program.mjs";

const [codeWithService, codeOnPlatform] = [...readFileSync(process.env.OPERATIONS, "utf8").matchAll(/```js\n([^]*?)```/g)].map((match) => match[1]);

let browser, program;
before(async () => {
  browser = await launchBrowser();
  program = await startProgram({ actionInterval: 1 });
});
after(async () => {
  await browser.close();
  await program.stop();
});

test("with a service, each event is applied once and in order, also across a restart", async () => {
  const page = await browser.newPage();
  await page.goto(program.url);
  const sessionId = (await program.request("GET", "/api/demo-session")).body;
  const code = codeWithService.replace("`/sessions/", "`/api/sessions/");
  assert.notEqual(code, codeWithService);
  await page.evaluate(([code, sessionId]) => {
    window.seen = { applied: [], connected: [], loads: 0 };
    const functions = {
      apply: (event) => seen.applied.push(event.seq),
      // The first attempt fails, and is repeated.
      loadSession: async () => { if ((seen.loads += 1) === 1) throw new Error("not loaded"); },
      showConnected: (isConnected) => seen.connected.push(isConnected),
      showError: (error) => { seen.error = error; },
    };
    new Function(...Object.keys(functions), "session", `${code}; follow(session)`)(...Object.values(functions), sessionId);
  }, [code, sessionId]);
  const waitForApplied = (count) => page.waitForFunction((count) => seen.applied.length >= count, count, { timeout: 30000 });
  await waitForApplied(3);
  await program.stop();
  await page.waitForFunction(() => seen.connected.at(-1) === false, null, { timeout: 30000 });
  program = await startProgram({ port: program.port, actionInterval: 1 });
  await page.waitForFunction(() => seen.connected.at(-1), null, { timeout: 30000 });
  const appliedBefore = await page.evaluate(() => seen.applied.length);
  sqlAsOwner(`INSERT INTO session_events (session_id, event_type, payload) VALUES ('${sessionId}', 'client.note', '{}')`);
  await waitForApplied(appliedBefore + 1);
  const seen = await page.evaluate(() => window.seen);
  const stored = sqlAsOwner(`SELECT seq FROM session_events WHERE session_id = '${sessionId}' ORDER BY seq`).split("\n").map(Number);
  // The demo game may have written further events after `window.seen` was read.
  assert.deepEqual(seen.applied, stored.slice(0, seen.applied.length));
  assert.equal(seen.loads, 2, "the session is loaded once after the attempt that failed, and not after the reconnect");
  assert.equal(seen.error, undefined);
});

test("on the platform, each event is applied once and in order, however broadcasts arrive", async () => {
  // Stands in for Supabase's client: `receive` delivers a broadcast, and `changeStatus` reports a status of the
  // channel.
  const stored = [], applied = [];
  let receive, changeStatus;
  const channel = {
    on: (_kind, _filter, handler) => { receive = (seq) => handler({ payload: { seq } }); },
    subscribe: (handler) => { changeStatus = handler; },
  };
  // A request returns at most two rows. The first request fails.
  let requests = 0;
  const rowsAfter = async (lastSeq) => {
    await sleep(5);
    if ((requests += 1) === 1) return { data: null, error: { message: "no connection" } };
    return { data: stored.filter((seq) => seq > lastSeq).slice(0, 2).map((seq) => ({ seq })), error: null };
  };
  const query = { select: () => query, eq: () => query, gt: (_column, lastSeq) => ({ order: () => rowsAfter(lastSeq) }) };
  const supabase = { channel: () => channel, from: () => query };
  new Function("supabase", "sessionId", "apply", codeOnPlatform)(supabase, "a session", (event) => applied.push(event.seq));

  stored.push(1, 2, 3);
  changeStatus("SUBSCRIBED");
  receive(4);
  receive(3);
  // The request that failed is repeated after a second.
  for (const startedAt = Date.now(); applied.length < 4 && Date.now() < startedAt + 10000;) await sleep(20);
  assert.deepEqual(applied, [1, 2, 3, 4], "events from before the subscription, and broadcasts that arrived while these were read");
  // The numbers of a session may have gaps, so 7 may follow 4. A broadcast that arrives twice is applied once.
  receive(7);
  receive(7);
  assert.deepEqual(applied, [1, 2, 3, 4, 7]);
  await changeStatus("CHANNEL_ERROR");
  stored.push(4, 7, 8, 9);
  const resubscribed = changeStatus("SUBSCRIBED");
  receive(10);
  receive(9);
  await resubscribed;
  assert.deepEqual(applied, [1, 2, 3, 4, 7, 8, 9, 10], "events that were missed while the connection was lost");
});
