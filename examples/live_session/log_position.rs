//! The log positions that let a client read its own writes: which positions a request asks for and a response has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use sparc::service::{IdentityConnection, LogPosition};

/// The header with a *log position*: a position in PostgreSQL's write-ahead log, as text (`1-0/16B3748`: timeline and
/// LSN). A response has the position of what its [`RequestConnections`] last wrote or read, if there is one. A client
/// that sends the position with its next request reads its own writes, even through another process of this program or
/// from a replica. An invalid value is ignored.
const POSITION_HEADER: &str = "sparc-position";

/// The connections with which a request was handled: that of its caller, and that of the service if the program did
/// something on the caller's behalf. It is an extension of each request.
#[derive(Clone, Default)]
pub struct RequestConnections(Arc<Mutex<Vec<IdentityConnection>>>);

impl RequestConnections {
    /// Adds a connection, and returns it.
    pub fn add(&self, connection: IdentityConnection) -> IdentityConnection {
        self.lock().push(connection.clone());
        connection
    }

    fn latest_position(&self) -> Option<LogPosition> {
        self.lock().iter().filter_map(IdentityConnection::position).max()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<IdentityConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the connection, which reads only from a server that has replayed the position of the header
/// [`POSITION_HEADER`], if the request has it.
pub fn with_position_of_request(connection: IdentityConnection, headers: &HeaderMap) -> IdentityConnection {
    match headers.get(POSITION_HEADER) {
        Some(position) => {
            connection.with_min_position(position.to_str().ok().and_then(|text| text.parse::<LogPosition>().ok()))
        }
        None => connection,
    }
}

/// Middleware that adds the log position of the [`RequestConnections`] to the response, in the header
/// [`POSITION_HEADER`].
pub async fn add_log_position_header(mut request: Request, next: Next) -> Response {
    let request_connections = RequestConnections::default();
    request.extensions_mut().insert(request_connections.clone());
    let mut response = next.run(request).await;
    let position = request_connections.latest_position();
    let position = position.and_then(|position| HeaderValue::try_from(position.to_string()).ok());
    response.headers_mut().extend(position.map(|position| (HeaderName::from_static(POSITION_HEADER), position)));
    response
}
