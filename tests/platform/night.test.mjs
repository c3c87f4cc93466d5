// A whole game night through the API alone, as a client that does not use the Rust service would play it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  checkViolation, heroicSaveSpent, illegalTransition, newCharacter, outcome, rows, sessionFull, startApi, uniqueViolation,
} from "./api.mjs";

let server;
before(async () => (server = await startApi()));
after(() => server.stop());

test("a game night through the API alone", async () => {
  const [seer, ada, ben] = [server.createAccount(), server.createAccount(), server.createAccount()];
  const [{ email, ...profile }] = await rows(server.service().from("users").select().eq("id", ada.id));
  assert.ok(email && profile.display_name);
  await rows(ada.api.from("users").update({ bio: "Plays a warrior." }).eq("id", ada.id));

  const [adventure] = await rows(seer.api.from("adventures").insert({ creator_id: seer.id, name: "The Drowned Ford" }).select());
  const publish = () => seer.api.from("adventures").update({ status: "published" }).eq("id", adventure.id).select("status");
  assert.equal(await outcome(publish()), checkViolation, "only a valid adventure can be published");
  await rows(server.service().from("adventures").update({ is_valid: true }).eq("id", adventure.id));
  assert.deepEqual(await rows(publish()), [{ status: "published" }]);
  await rows(seer.api.from("creatures").insert({ adventure_id: adventure.id, name: "Reed Horror" }));

  const newSession = { seer_id: seer.id, adventure_id: adventure.id, is_public: true, max_players: 2 };
  const [session] = await rows(seer.api.from("sessions").insert(newSession).select());
  assert.match(session.code, /^[A-HJ-NP-Z2-9]{6}$/);
  const lobby = server.visitor().from("sessions").select("id, adventures(name), users!sessions_seer_id_fkey(display_name)");
  const lobbyPage = await rows(lobby.eq("is_public", true).in("status", ["waiting", "starting_soon"])
    .order("scheduled_start", { nullsFirst: false }).order("created_at", { ascending: false }).limit(20));
  assert.equal(lobbyPage[0].adventures.name, "The Drowned Ford");

  const [warrior] = await rows(ada.api.from("characters").insert(newCharacter(ada.id)).select());
  const [secondWarrior] = await rows(ben.api.from("characters").insert(newCharacter(ben.id)).select());
  for (const [player, character] of [[ada, warrior], [ben, secondWarrior]]) {
    const seat = { session_id: session.id, user_id: player.id, character_id: character.id };
    await rows(player.api.from("session_players").insert(seat).select());
  }
  const latecomer = server.createAccount();
  const [thirdWarrior] = await rows(latecomer.api.from("characters").insert(newCharacter(latecomer.id)).select());
  const seat = { session_id: session.id, user_id: latecomer.id, character_id: thirdWarrior.id };
  assert.equal(await outcome(latecomer.api.from("session_players").insert(seat)), sessionFull, "the session has two seats");

  await rows(seer.api.from("sessions").update({ status: "active", current_encounter_id: "ford" }).eq("id", session.id));
  const roll = { session_id: session.id, character_id: warrior.id, attribute: "might", difficulty: 18, roll_type: "attack" };
  // Rolls until a roll fails.
  let rolled;
  do {
    [rolled] = await rows(ada.api.from("dice_rolls").insert(roll).select());
    assert.equal(rolled.results.length, 5, "as many dice as the character has might");
    assert.equal(rolled.total, rolled.results.reduce((sum, die) => sum + die));
  } while (rolled.success);
  const save = { ...roll, roll_type: "heroic_save", original_roll_id: rolled.id };
  await rows(ada.api.from("dice_rolls").insert(save).select());
  const refusals = [heroicSaveSpent, uniqueViolation];
  assert.ok(refusals.includes(await outcome(ada.api.from("dice_rolls").insert(save))), "one heroic save per encounter, and one per roll");
  await rows(ben.api.from("session_events").insert({ session_id: session.id, event_type: "client.cheer", payload: { to: "ada" } }));

  const [details] = await rows(ben.api.rpc("get_session_details", { p_session_id: session.id }));
  assert.equal(details.players.length, 2);
  assert.equal(details.adventure_data.name, "The Drowned Ford");
  const events = await rows(ben.api.from("session_events").select("seq, event_type").eq("session_id", session.id).order("seq"));
  const seenTypes = new Set(events.map((event) => event.event_type));
  for (const type of ["player_joined", "session_status", "encounter_changed", "dice_rolled", "client.cheer"]) {
    assert.ok(seenTypes.has(type), type);
  }
  const laterEvents = await rows(ben.api.from("session_events").select("seq").eq("session_id", session.id).gt("seq", events.at(-2).seq));
  assert.equal(laterEvents.length, 1, "a reader must be able to continue after the last event that it has seen");

  await rows(seer.api.from("sessions").update({ status: "completed" }).eq("id", session.id));
  assert.equal(await outcome(seer.api.from("sessions").update({ status: "active" }).eq("id", session.id)), illegalTransition, "an ended session must not become active");
  const profiles = await rows(server.visitor().from("users").select("id, games_played, games_run").in("id", [seer.id, ada.id]));
  assert.equal(profiles.find((user) => user.id === seer.id).games_run, 1);
  assert.equal(profiles.find((user) => user.id === ada.id).games_played, 1);
});
