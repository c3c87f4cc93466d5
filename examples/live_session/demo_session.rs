//! The session that the demo plays at the moment, which every visitor of the page can watch and join.

use std::time::Duration;

use sparc::entity::session_players::Model as Seat;
use sparc::service::{Error, IdentityConnection, Operations, Sparc};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use crate::{demo, log_position::RequestConnections};

/// The session that the demo plays at the moment. When it has ended, the demo plays another. Unlike other sessions, it
/// can be watched by everyone, and players can take a seat after it has started.
#[derive(Clone)]
pub struct CurrentDemoSession {
    sparc: Sparc,
    current_session_id: watch::Receiver<Option<Uuid>>,
}

impl CurrentDemoSession {
    /// Starts the demo, and returns once the first session exists, or after 20 seconds if there is none by then.
    pub async fn start(sparc: &Sparc, action_interval: Duration) -> Self {
        let (sender, mut current_session_id) = watch::channel(None);
        tokio::spawn(demo::play(sparc.clone(), sender, action_interval));
        let _ = timeout(Duration::from_secs(20), current_session_id.wait_for(Option::is_some)).await;
        Self { sparc: sparc.clone(), current_session_id }
    }

    /// Returns a value without a session, for a program without the demo.
    pub fn none(sparc: &Sparc) -> Self {
        Self { sparc: sparc.clone(), current_session_id: watch::channel(None).1 }
    }

    /// Returns the id of the session. `None` if there is no session.
    pub fn id(&self) -> Option<Uuid> {
        *self.current_session_id.borrow()
    }

    fn is_current(&self, session_id: Uuid) -> bool {
        self.id() == Some(session_id)
    }

    /// Returns the connection with which to read a session for the caller. Row-level security hides events and rolls
    /// from everyone who does not take part, so for them the demo's current session is read as the service.
    pub async fn connection_for_watching(
        &self,
        caller: IdentityConnection,
        session_id: Uuid,
        request_connections: &RequestConnections,
    ) -> Result<IdentityConnection, Error> {
        if !self.is_current(session_id) || takes_part(&caller, session_id).await? {
            return Ok(caller);
        }
        // The service must not read anything older than what the caller has written or read.
        Ok(request_connections.add(self.sparc.as_service().with_min_position(caller.position())))
    }

    /// Seats a player in the demo's current session. This is done as the service, because players can only join
    /// sessions that have not started. Returns `None`, and does nothing, if `session_id` is not that of the demo's
    /// current session.
    pub async fn take_seat_in_demo_session(
        &self,
        user: &IdentityConnection,
        session_id: Uuid,
        character_id: Uuid,
        request_connections: &RequestConnections,
    ) -> Result<Option<Seat>, Error> {
        let Some(player_id) = user.user_id().filter(|_| self.is_current(session_id)) else { return Ok(None) };
        let service = request_connections.add(self.sparc.as_service());
        Ok(Some(service.sessions().seat_player(session_id, player_id, character_id).await?))
    }
}

/// Returns whether the caller may read the session's events and rolls as a participant.
async fn takes_part(caller: &IdentityConnection, session_id: Uuid) -> Result<bool, Error> {
    Ok(caller.user_id().is_some() && caller.sessions().participation(session_id).await?.may_read_events())
}
