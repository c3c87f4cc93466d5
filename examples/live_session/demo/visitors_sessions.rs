//! How players of the demo play in visitors' sessions.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use futures_util::TryStreamExt;
use sparc::entity::sea_orm_active_enums::Attribute;
use sparc::service::{
    Difficulty, Error, IdentityConnection, Operations,
    dice::{HistoryFilter, NewRoll, RollScope, Roller},
    sessions::LobbyFilter,
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use uuid::Uuid;

use super::{
    refusal::ignore_refusal,
    setup::{Demo, Player, lobby_session_ids},
};

/// The age of a visitor's session at which the players of the demo leave it. Many visitors leave without ending their
/// session.
const MAX_SESSION_AGE: TimeDelta = TimeDelta::hours(2);

/// The maximum number of visitors' sessions in which a player of the demo plays at a time. An account may have twenty
/// seats: up to three are in the demo's sessions in the lobby, and one stays free for the session that the demo plays.
const MAX_JOINED_SESSIONS: usize = 16;

impl Demo {
    /// A player joins the recent sessions of visitors on the first page of the lobby (up to [`MAX_JOINED_SESSIONS`],
    /// unless refused), rolls once in each of their scenes, and leaves a session when it is older than
    /// [`MAX_SESSION_AGE`]. `delay` is the time before each roll, and between two looks at the lobby. Returns only with
    /// an error.
    pub(super) async fn play_in_visitors_sessions(&self, player_key: &str, delay: Duration) -> Result<(), Error> {
        let player = &self.party[player_key];
        // The set ends its tasks when it is dropped, so that none goes on when the demo restarts.
        let mut tasks = JoinSet::new();
        let mut tasks_by_session = HashMap::<Uuid, AbortHandle>::new();
        loop {
            sleep(delay).await;
            let mut kept_session_ids = self.leave_old_visitors_sessions(player).await?;
            for session in self.sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await?.items {
                if self.is_visitors_session(session.seer_id, session.id)
                    && is_recent(session.created_at)
                    && !kept_session_ids.contains(&session.id)
                    && kept_session_ids.len() < MAX_JOINED_SESSIONS
                    // The player may be refused, for example because the session has started, is full, or has ended.
                    && ignore_refusal(player.user.sessions().join_by_id(session.id, player.hero_id).await)?.is_some()
                {
                    kept_session_ids.push(session.id);
                }
            }
            // A task that has failed is started again. If the player has left a session, the task of this session must
            // end; otherwise its stream of events would stay open.
            tasks_by_session.retain(|session_id, task| {
                if !kept_session_ids.contains(session_id) {
                    task.abort();
                }
                !task.is_finished() && kept_session_ids.contains(session_id)
            });
            while tasks.try_join_next().is_some() {}
            for session_id in kept_session_ids {
                let Player { user, hero_id, primary_attribute } = player;
                tasks_by_session.entry(session_id).or_insert_with(|| {
                    tasks.spawn(roll_in_each_scene(user.clone(), session_id, *hero_id, *primary_attribute, delay))
                });
            }
        }
    }

    /// A player leaves the visitors' sessions that are older than [`MAX_SESSION_AGE`] and, if more than
    /// [`MAX_JOINED_SESSIONS`] remain, the oldest of these. Returns the ids of those in which the player has kept the
    /// seat.
    pub(super) async fn leave_old_visitors_sessions(&self, player: &Player) -> Result<Vec<Uuid>, Error> {
        let mut session_ids = Vec::new();
        // The newest sessions come first.
        for session in player.user.sessions().my_live(None).await?.items {
            if !self.is_visitors_session(session.seer_id, session.id) {
                continue;
            }
            if is_recent(session.created_at) && session_ids.len() < MAX_JOINED_SESSIONS {
                session_ids.push(session.id);
            } else {
                ignore_refusal(player.user.sessions().leave(session.id).await)?;
            }
        }
        Ok(session_ids)
    }

    /// Returns whether a session is a visitor's, and not one that the demo itself has created.
    fn is_visitors_session(&self, seer_id: Uuid, session_id: Uuid) -> bool {
        Some(seer_id) != self.seer.user_id() && !lobby_session_ids().contains(&session_id)
    }
}

/// Returns whether a session that was created at that time is younger than [`MAX_SESSION_AGE`].
fn is_recent(created_at: DateTime<FixedOffset>) -> bool {
    Utc::now() - created_at.to_utc() < MAX_SESSION_AGE
}

/// Rolls once in each scene, when `delay` has passed since the scene was opened or, if the session was not active then,
/// since it became active. Ends when the session ends, or when a roll or the stream of events fails.
async fn roll_in_each_scene(
    user: IdentityConnection,
    session_id: Uuid,
    hero_id: Uuid,
    attribute: Attribute,
    delay: Duration,
) -> Result<(), Error> {
    let mut scene_opened_at = None;
    // `Some(0)` subscribes from the oldest event on, so that no scene is missed.
    let mut events = user.events().subscribe(session_id, Some(0)).await?;
    while let Some(event) = events.try_next().await? {
        match (event.event_type.as_str(), event.payload["to"].as_str()) {
            ("scene_changed", scene_id) => scene_opened_at = scene_id.map(|_| event.created_at.to_utc()),
            ("session_status", Some("active")) => {}
            ("session_status", Some("completed" | "cancelled")) => break,
            _ => continue,
        }
        if scene_opened_at.is_none() {
            continue;
        }
        // The roll may have been made before a restart of the demo or a pause of the session.
        let filter = HistoryFilter { character_id: Some(hero_id), from: scene_opened_at, ..Default::default() };
        if !user.dice().history(RollScope::Session(session_id), &filter, None).await?.items.is_empty() {
            continue;
        }
        sleep(delay).await;
        let roller = Roller::Character(hero_id);
        let roll = NewRoll::attribute_check(session_id, roller, attribute, Difficulty::new(12)?);
        match user.dice().roll(roll).await {
            // If the session is not active, an event follows when it becomes active again or ends.
            Ok(_) | Err(Error::SessionNotActive) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
