// The page of the example `live_session` in a real browser: what users see, and that no event is lost or delivered
// twice.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createToken, launchBrowser, sqlAsOwner, startProgram } from "./program.mjs";

let browser, program;
const contexts = [];
before(async () => {
  browser = await launchBrowser();
  program = await startProgram({ actionInterval: 3.5 });
});
after(async () => {
  await browser.close();
  await program.stop();
});
afterEach(() => Promise.all(contexts.splice(0).map((context) => context.close())));

/** Opens a page in its own browser context. Fails if the page sends a request to another server, or if a script fails. */
async function openPage(path = "/", options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  contexts.push(context);
  const page = await context.newPage();
  page.setDefaultTimeout(40000);
  page.on("request", (request) => assert.ok(request.url().startsWith(program.url) || request.url().startsWith("data:"), request.url()));
  page.on("pageerror", (error) => assert.fail(error));
  await page.goto(program.url + path);
  return page;
}
/** Waits until the page says that it receives live events. */
const waitForLive = (page) => page.locator("#connection-state", { hasText: "Live" }).waitFor();
const demoSessionId = async () => (await program.request("GET", "/api/demo-session")).body;
/** Opens a session as a user, and waits until its page is shown. */
async function openSessionAs({ token, profile }, { id }) {
  const page = await openPage("/#/lobby");
  await page.evaluate(([account, id]) => {
    setUser(account);
    location.hash = `#/session/${id}`;
  }, [{ token, profile }, id]);
  await page.locator("#scene").waitFor();
  return page;
}

/** Takes a seat with a new character of this name. */
async function openSeatDialog(page, name) {
  await waitForLive(page);
  await page.getByRole("button", { name: "Sit down and play" }).click();
  await page.getByLabel("Name").fill(name);
  await page.getByRole("button", { name: "Sit down", exact: true }).click();
  await page.getByRole("heading", { name, level: 2 }).first().waitFor();
  await waitForLive(page);
}
/** Leaves the session, so that the next test finds a free seat. */
async function leave(page) {
  await page.getByRole("button", { name: "Leave the session" }).click();
  await page.getByText("You are watching").waitFor();
}
/** Rolls by clicking, and returns the roll from the response. */
async function roll(page, attribute) {
  const [response] = await Promise.all([
    page.waitForResponse((response) => response.url().endsWith("/api/rolls") && response.request().method() === "POST"),
    page.getByRole("button", { name: `Roll ${attribute}` }).click(),
  ]);
  assert.equal(response.status(), 200);
  return response.json();
}
/** Waits until the page shows the roll, and returns its animation and label. */
const waitForRoll = async (page, id) => {
  const dice = page.locator(`#dice[data-roll="${id}"]`);
  await dice.waitFor();
  return { animation: await dice.getAttribute("data-animation"), label: await dice.getAttribute("aria-label") };
};

test("the page shows the game live within ten seconds", async () => {
  const page = await openPage();
  await page.locator("#feed .is-new").first().waitFor({ timeout: 10000 });
  await page.locator("#connection-state", { hasText: "Live" }).waitFor({ timeout: 1000 });
  assert.ok((await page.locator(".seat h3").allTextContents()).includes("Brunhild"));
  // The later tests use the default interval, with which the game lasts longer than the tests.
  await program.stop();
  program = await startProgram({ port: program.port });
});

test("a roll in one window appears in the other with the same dice and the same animation", async () => {
  const [player, watcher] = [await openPage(), await openPage()];
  await waitForLive(watcher);
  await openSeatDialog(player, "Elowen");
  await watcher.locator(".seat", { hasText: "Elowen" }).waitFor();
  const rolled = await roll(player, "might");
  const [playersDice, watchersDice] = await Promise.all([waitForRoll(player, rolled.id), waitForRoll(watcher, rolled.id)]);
  assert.deepEqual(watchersDice, playersDice);
  assert.equal(playersDice.label, `Dice: ${rolled.results.join(", ")}`);
  await watcher.locator("#feed li", { hasText: "Elowen" }).last().waitFor();
  await leave(player);
  await watcher.locator(".seat", { hasText: "Elowen" }).waitFor({ state: "detached" });
});

test("a visitor sees no controls for players, and a player none for the Seer", async () => {
  const page = await openPage();
  await waitForLive(page);
  assert.equal(await page.getByRole("button", { name: /^Roll / }).count(), 0);
  assert.equal(await page.getByRole("button", { name: "Say" }).count(), 0);
  await openSeatDialog(page, "Merrin");
  assert.equal(await page.getByRole("button", { name: /^Roll / }).count(), 4);
  assert.equal(await page.getByRole("button", { name: /^(Wound|Pause|End)/ }).count(), 0);
  await leave(page);
});

test("after a restart of the program, no event is lost or duplicated", async () => {
  const [player, watcher] = [await openPage(), await openPage()];
  await openSeatDialog(player, "Hob");
  await waitForLive(watcher);
  const sessionId = await demoSessionId();
  for (const page of [player, watcher]) {
    // Records every event that arrives, before the page removes duplicates.
    await page.evaluate(() => {
      window.arrived = [];
      const receive = window.receiveEvent;
      window.receiveEvent = (event) => { window.arrived.push(event.seq); receive(event); };
    });
  }
  const seqBefore = Math.max(...await Promise.all([player, watcher].map((page) => page.evaluate("game.lastSeq"))));
  const rollBefore = await roll(player, "might");
  await waitForRoll(watcher, rollBefore.id);
  await program.stop();
  for (const page of [player, watcher]) await page.getByText("The connection is lost").waitFor();
  // Other clients write while the program is stopped.
  for (const text of ["one", "two", "three"]) {
    sqlAsOwner(`INSERT INTO session_events (session_id, event_type, payload) VALUES ('${sessionId}', 'client.say', '{"text": "while away, ${text}"}')`);
  }
  program = await startProgram({ port: program.port });
  for (const page of [player, watcher]) {
    await page.getByText("Nothing was missed").waitFor();
    for (const text of ["one", "two", "three"]) assert.equal(await page.locator("#feed li", { hasText: `while away, ${text}` }).count(), 1);
  }
  const rollAfter = await roll(player, "grace");
  await Promise.all([waitForRoll(player, rollAfter.id), waitForRoll(watcher, rollAfter.id)]);
  const lastSeq = Number(sqlAsOwner(`SELECT seq FROM session_events WHERE payload ->> 'roll_id' = '${rollAfter.id}'`));
  const written = sqlAsOwner(`SELECT coalesce(json_agg(seq ORDER BY seq), '[]') FROM session_events WHERE session_id = '${sessionId}' AND seq > ${seqBefore} AND seq <= ${lastSeq}`);
  for (const page of [player, watcher]) {
    const arrived = (await page.evaluate("arrived")).filter((seq) => seq > seqBefore && seq <= lastSeq);
    assert.deepEqual(arrived, JSON.parse(written));
  }
  await leave(player);
});

test("when events have been deleted, the page says to reload", async () => {
  const page = await openPage();
  await waitForLive(page);
  const sessionId = await demoSessionId();
  await page.locator("#feed li").first().waitFor();
  await program.stop();
  sqlAsOwner(`DELETE FROM session_events WHERE session_id = '${sessionId}'`);
  program = await startProgram({ port: program.port });
  await page.getByText("You were away for too long").waitFor();
  await page.getByRole("button", { name: "Reload the session" }).click();
  await waitForLive(page);
  await page.locator("#feed .is-new").first().waitFor();
});

test("a visitor whose token expires while watching gets another account with one click", async () => {
  const page = await openPage();
  await openSeatDialog(page, "Sable");
  await leave(page);
  const id = await page.evaluate("me.profile.id");
  const shortLivedToken = createToken(id, { exp: Math.floor(Date.now() / 1000) + 3 });
  await page.evaluate((token) => { setUser({ ...me, token }); showPageOfUrl(); }, shortLivedToken);
  await waitForLive(page);
  await page.getByText("Your sign-in has expired").waitFor();
  await page.getByRole("button", { name: "Get a new pass" }).click();
  await waitForLive(page);
  assert.notEqual(await page.evaluate("me.profile.id"), id);
});

test("a visitor can take a seat and roll with only the keyboard, and the focus is always visible", async () => {
  const page = await openPage();
  await waitForLive(page);
  const tabTo = async (name) => {
    for (let presses = 0; presses < 40; presses += 1) {
      await page.keyboard.press("Tab");
      const [label, outline] = await page.evaluate(() => {
        const focused = document.activeElement;
        const outlined = focused.matches("input[type=radio]") ? focused.closest("label") : focused;
        return [focused.getAttribute("aria-label") ?? focused.textContent, getComputedStyle(outlined).outlineStyle];
      });
      assert.notEqual(outline, "none", `the focus on ${label} must be visible`);
      if (label.trim().startsWith(name)) return;
    }
    assert.fail(`the Tab key must reach ${name}`);
  };
  await tabTo("Sit down and play");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Tab"); // from the dialog's name field, which has the focus, to the classes
  await page.keyboard.press("ArrowRight");
  await tabTo("Sit down");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await waitForLive(page);
  await tabTo("Roll might");
  const rolled = page.waitForResponse((response) => response.url().endsWith("/api/rolls"));
  await page.keyboard.press("Enter");
  await waitForRoll(page, (await (await rolled).json()).id);
  assert.match(await page.evaluate("document.activeElement.getAttribute('aria-label')"), /^Roll might/);
  await leave(page);
});

test("a visitor runs a game as its Seer: players join and roll", async () => {
  const page = await openPage("/#/lobby");
  await page.getByRole("button", { name: "Run a game" }).click();
  await page.getByLabel("The Lantern Road").check();
  await page.getByRole("button", { name: "Open the session" }).click();
  await page.locator(".seat", { hasText: "Brunhild" }).waitFor();
  await page.getByRole("button", { name: "Begin" }).click();
  await page.getByRole("button", { name: "The drowned bell" }).click();
  await page.getByRole("heading", { name: "The drowned bell", level: 1 }).waitFor();
  await page.locator("#dice").waitFor();
  await page.getByRole("button", { name: "Wound Brunhild" }).click();
  await page.locator("#feed li", { hasText: "hit point" }).first().waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("nobody rolls for the moment").waitFor();
  await page.getByRole("button", { name: "End the night" }).click();
  await page.getByText("The session has ended").first().waitFor();
});

test("the demo's players roll in a scene that was opened before its session began", async () => {
  const seer = await program.signUp("Maud");
  const session = await program.createSession(seer, { visibility: "public" });
  await seer.send("PUT", `/api/sessions/${session.id}/scene/bell`);
  const page = await openSessionAs(seer, session);
  await page.locator(".seat", { hasText: "Brunhild" }).waitFor();
  // Brunhild waits less than this before a roll. So she tries to roll before the session begins, and is refused.
  await sleep(8000);
  await page.getByRole("button", { name: "Begin" }).click();
  await page.locator("#feed li", { hasText: "Brunhild" }).filter({ hasText: "Might" }).waitFor();
  await seer.send("POST", `/api/sessions/${session.id}/complete`);
});

test("the story tells changes of hit points, also those from before the page was loaded", async () => {
  const [seer, player] = [await program.signUp("Petronel"), await program.signUp("Hew")];
  const session = await program.createSession(seer);
  const { id: heroId, max_hit_points: maximum } = await program.takeSeat(player, session, "Gunnhild");
  await seer.send("POST", `/api/sessions/${session.id}/start`);
  for (const damage of [3, -1]) {
    await seer.send("POST", `/api/sessions/${session.id}/hit-points`, { character_id: heroId, damage });
  }
  const page = await openSessionAs(seer, session);
  await waitForLive(page);
  const entries = page.locator("#feed li span", { hasText: "hit point" });
  await entries.nth(1).waitFor();
  await page.getByRole("button", { name: "Wound Gunnhild" }).click();
  await entries.nth(2).waitFor();
  // The hit points before the first change are unknown to the page, so the first entry says how many are left.
  assert.deepEqual(await entries.allTextContents(), [
    `Gunnhild has ${maximum - 3} of ${maximum} hit points.`, "Gunnhild gets back 1 hit point.",
    "Gunnhild loses 1 hit point.",
  ]);
});

test("a Seer can begin as long as a player is seated", async () => {
  const [seer, player] = [await program.signUp("Rowan"), await program.signUp("Ilse")];
  const session = await program.createSession(seer);
  const page = await openSessionAs(seer, session);
  await waitForLive(page);
  const begin = page.getByRole("button", { name: "Begin" });
  assert.equal(await begin.count(), 0);
  await program.takeSeat(player, session, "Wulf");
  await begin.waitFor();
  await player.send("DELETE", `/api/sessions/${session.id}/seat`);
  await begin.waitFor({ state: "detached" });
});

test("an ended session whose adventure is no longer published is still shown", async () => {
  const seer = await program.signUp("Sunniva");
  const session = await program.createSession(seer, { adventure: "Nine Doors Down" });
  await seer.send("POST", `/api/sessions/${session.id}/cancel`);
  const setStatus = (status) =>
    sqlAsOwner(`UPDATE adventures SET status = '${status}' WHERE id = '${session.adventure_id}'`);
  setStatus("draft");
  try {
    const page = await openSessionAs(seer, session);
    await page.getByRole("heading", { name: "The session has ended" }).waitFor();
    await page.locator("#scene", { hasText: "A secret" }).waitFor();
  } finally {
    setStatus("published");
  }
});

test("somebody who does not take part is told why there is no story", async () => {
  const session = await program.createSession(await program.signUp("Alban"), { visibility: "public" });
  const page = await openPage(`/#/session/${session.id}`);
  await page.getByText("Only participants can see what happens here.").waitFor();
});

test("after a reload, the page requests the characters twice, however many game state events it replays", async () => {
  const page = await openPage();
  await openSeatDialog(page, "Oswy");
  const sessionId = await demoSessionId();
  for (const count of [1, 2, 3]) {
    sqlAsOwner(`UPDATE sessions SET game_state = game_state || '{"count": ${count}}' WHERE id = '${sessionId}'`);
  }
  // The page also loads the characters after these changes, shortly after their events have arrived.
  await sleep(1500);
  let requests = 0;
  page.on("request", (request) => { if (request.url().endsWith("/api/characters")) requests += 1; });
  await page.reload();
  await waitForLive(page);
  await page.locator("#feed li").first().waitFor();
  await sleep(1500);
  assert.equal(requests, 2);
  await leave(page);
});

test("in whichever order two responses arrive, the page keeps the later log position", async () => {
  const page = await openPage("/#/lobby");
  for (const [earlier, later] of [["1-0/FF", "1-0/100"], ["1-0/FFFFFFFF", "1-1/0"], ["9-9/9", "10-0/0"]]) {
    const kept = await page.evaluate((pair) => [pair, pair.toReversed()].map((texts) => {
      position = null;
      for (const text of texts) rememberPosition({ headers: new Headers({ "sparc-position": text }) });
      return position;
    }), [earlier, later]);
    assert.deepEqual(kept, [later, later]);
  }
});

test("a roll for initiative is spoken without a difficulty", async () => {
  const page = await openPage();
  await waitForLive(page);
  await page.evaluate(() => {
    const payload = {
      roll_type: "initiative", character_name: "Wren", character_id: "none", roll_id: "none", attribute: "grace",
      results: [4], total: 4, modified_total: 4, modifiers: [], difficulty: 3, margin: 1, success: true,
      animation_seed: "1",
    };
    receiveEvent({ event_type: "dice_rolled", seq: game.lastSeq + 1, created_at: new Date().toISOString(), payload });
    render();
  });
  await page.locator("#spoken", { hasText: "Wren rolls 4: 4 for initiative" }).waitFor({ state: "attached" });
  assert.equal(await page.locator("#spoken").textContent(), "Wren rolls 4: 4 for initiative");
});

test("while the program is stopped, the page says what fails, and afterwards it recovers", async () => {
  const seer = await program.signUp("Edda");
  const session = await program.createSession(seer);
  await seer.send("POST", `/api/sessions/${session.id}/cancel`);
  const [watcher, navigating, ended] = [await openPage(), await openPage(), await openSessionAs(seer, session)];
  for (const page of [watcher, navigating, ended]) await waitForLive(page);
  await program.stop();
  for (const page of [watcher, navigating]) await page.getByText("The connection is lost").waitFor();
  await watcher.getByRole("button", { name: "Sit down and play" }).click();
  await watcher.getByText("The server cannot be reached right now.").waitFor();
  // No more events come in the session that has ended, so this page gives up after one failed attempt to reconnect.
  await ended.locator("#connection-state", { hasText: "Not live" }).waitFor();
  assert.equal(await ended.locator("#banner").isVisible(), false);
  // This page has shown a session. Now its URL changes, and the page cannot load what the new URL stands for.
  const sessionId = await navigating.evaluate("game.id");
  await navigating.evaluate((id) => { location.hash = `#/session/${id}`; }, sessionId);
  await navigating.getByText("Nothing here").waitFor();

  program = await startProgram({ port: program.port });
  // A browser fires this event when it is online again. So the pages need not wait for their own next attempt.
  for (const page of [watcher, navigating]) await page.evaluate(() => { dispatchEvent(new Event("online")); });
  for (const page of [watcher, navigating]) await waitForLive(page);
  await navigating.locator("#scene").waitFor();
  await watcher.locator("#banner").waitFor({ state: "hidden" });
});

test("the demo starts even if earlier runs and visitors have left many live sessions behind", async () => {
  const visitor = await program.signUp("Visitor");
  await program.stop();
  const demoId = (number) => `5ba2c000-0000-4000-8000-${number.toString(16).padStart(12, "0")}`;
  const [morgan, ada, brunhild, adventure] = [1, 2, 102, 10].map(demoId);
  const isLive = "status NOT IN ('completed', 'cancelled')";
  const createSessions = (seer, count) =>
    sqlAsOwner(`INSERT INTO sessions (seer_id, adventure_id, is_public)
      SELECT '${seer}', '${adventure}', true FROM generate_series(1, ${count})`);
  sqlAsOwner(`UPDATE sessions SET status = 'cancelled' WHERE seer_id = '${morgan}' AND ${isLive}`);
  // Both accounts reach their limits: twenty live sessions of the Seer, and twenty seats of the player in live
  // sessions.
  createSessions(morgan, 20);
  const seatCount = Number(sqlAsOwner(`SELECT count(*) FROM session_players JOIN sessions ON id = session_id
    WHERE user_id = '${ada}' AND is_active AND ${isLive}`));
  createSessions(visitor.profile.id, 20 - seatCount);
  sqlAsOwner(`INSERT INTO session_players (session_id, user_id, character_id)
    SELECT id, '${ada}', '${brunhild}' FROM sessions WHERE seer_id = '${visitor.profile.id}'`);
  program = await startProgram({ port: program.port });
  const sessionId = await demoSessionId();
  assert.ok(sessionId, "the demo must have a session");
  assert.equal(sqlAsOwner(`SELECT count(*) FROM sessions WHERE seer_id = '${morgan}' AND ${isLive}`), "1");
  assert.equal(sqlAsOwner(`SELECT status FROM sessions WHERE id = '${sessionId}'`), "active");
  sqlAsOwner(`UPDATE sessions SET status = 'cancelled' WHERE seer_id = '${visitor.profile.id}'`);
});

test("no page scrolls sideways on a phone, in dark or light mode", async () => {
  for (const colorScheme of ["dark", "light"]) {
    const page = await openPage("/", { viewport: { width: 360, height: 740 }, colorScheme, hasTouch: true, isMobile: true });
    await waitForLive(page);
    // Returns the width of the page, followed by the elements that are cut off at its right edge. An element may be up
    // to one pixel too wide, because browsers round.
    const widthAndCutElements = () => page.evaluate(() => {
      const isCut = (element) => !element.closest("svg, .dice, .seats") && element.getBoundingClientRect().right > 361;
      const cut = [...document.querySelectorAll("header *, main *, dialog *")].filter(isCut);
      return [document.documentElement.scrollWidth, ...cut.map((element) => element.outerHTML.slice(0, 80))];
    });
    assert.deepEqual(await widthAndCutElements(), [360], "watching");
    // A long name must not make the page wider.
    await openSeatDialog(page, "Little Rook of the Long Meadow by the River");
    assert.deepEqual(await widthAndCutElements(), [360], "playing");
    await leave(page);
    for (const path of ["lobby", "characters"]) {
      await page.evaluate((path) => { location.hash = `#/${path}`; }, path);
      await page.getByRole("heading", { level: 1, name: path === "lobby" ? "Find a session" : "Characters" }).waitFor();
      assert.deepEqual(await widthAndCutElements(), [360], path);
    }
    await page.getByRole("button", { name: "New character" }).click();
    assert.deepEqual(await widthAndCutElements(), [360], "the dialog");
  }
});

test("dark and light mode differ, and texts have enough contrast in both", async () => {
  const backgrounds = [];
  for (const colorScheme of ["dark", "light"]) {
    const page = await openPage("/", { colorScheme });
    await waitForLive(page);
    backgrounds.push(await page.evaluate("getComputedStyle(document.body).backgroundColor"));
    const lowContrast = await page.evaluate(() => {
      const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      const blend = (colours) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
      };
      // Luminance and contrast are those of WCAG, which requires a contrast of at least 4.5.
      const luminance = (colour) => {
        const [red, green, blue] = colour.map((part) => (part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4));
        return .2126 * red + .7152 * green + .0722 * blue;
      };
      const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      const texts = [...document.querySelectorAll("header *, main *")].filter(
        (element) => !element.closest(".scene, .tray, [disabled]") && hasText(element) && element.checkVisibility());
      return texts.flatMap((element) => {
        const layers = [];
        for (let parent = element; parent; parent = parent.parentElement) layers.unshift(getComputedStyle(parent).backgroundColor);
        const [background, foreground] = [blend(layers), blend([...layers, getComputedStyle(element).color])].map(luminance);
        const contrast = (Math.max(background, foreground) + .05) / (Math.min(background, foreground) + .05);
        return contrast < 4.5 ? [`${element.className || element.tagName} "${element.textContent.slice(0, 30)}" ${contrast.toFixed(2)}`] : [];
      });
    });
    assert.deepEqual(lowContrast, [], colorScheme);
  }
  assert.notEqual(backgrounds[0], backgrounds[1]);
});

test("with reduced motion, nothing is animated", async () => {
  const page = await openPage("/", { reducedMotion: "reduce" });
  await openSeatDialog(page, "Aldith");
  await waitForRoll(page, (await roll(page, "heart")).id);
  assert.equal(await page.evaluate("document.getAnimations().length"), 0);
  await leave(page);
});

test("every control has an accessible name", async () => {
  const page = await openPage();
  await openSeatDialog(page, "Corvin");
  const client = await page.context().newCDPSession(page);
  const rolesWithoutName = async () => {
    const { nodes } = await client.send("Accessibility.getFullAXTree");
    const roles = ["button", "link", "textbox", "radio", "img", "image", "region", "dialog", "log", "navigation", "group"];
    return nodes.filter((node) => !node.ignored && roles.includes(node.role?.value) && !node.name?.value?.trim()).map((node) => node.role.value);
  };
  assert.deepEqual(await rolesWithoutName(), []);
  await leave(page);
  await page.goto(`${program.url}/#/characters`);
  await page.getByRole("button", { name: "New character" }).click();
  assert.deepEqual(await rolesWithoutName(), []);
});
