//! The responses to requests that fail.

use axum::{
    Json,
    body::to_bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sparc::service::Error;

/// The response to a request that failed: an error of the data layer, or an error of this program in the same format.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct ApiError {
    #[serde(skip)]
    status: u16,
    code: String,
    message: String,
    /// Whether the same request may succeed if it is sent again.
    retryable: bool,
    details: Value,
}

impl ApiError {
    pub fn new(status: u16, code: &str, message: impl ToString) -> Self {
        Self { status, code: code.into(), message: message.to_string(), retryable: false, details: json!({}) }
    }

    /// A failure of this program itself.
    pub fn internal() -> Self {
        Self::new(500, "internal", "the server failed")
    }

    pub fn invalid_token(error: &jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            jsonwebtoken::errors::ErrorKind::ExpiredSignature => Self::new(401, "token_expired", "sign in again"),
            _ => Self::new(401, "token_invalid", "the token is invalid; sign in again"),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = error.http_status();
        // Logs failures for the operator, except retryable ones, which pass by themselves, and `PoolClosed`, which only
        // means that this program is stopping.
        if status >= 500 && !error.is_retryable() && !matches!(error, Error::PoolClosed) {
            eprintln!("{}: {error:?}", error.code());
        }
        // An error of the data layer serializes to the fields of this type, except the status.
        Self { status, ..serde_json::from_value(json!(error)).unwrap_or_else(|_| Self::internal()) }
    }
}

/// Middleware that converts the error responses of axum itself to the JSON of an [`ApiError`]. axum answers a malformed
/// body, for example, with plain text, and an unknown path or method with an empty body.
pub async fn errors_as_json(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = to_bytes(response.into_body(), 10_000).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let (code, message) = match status {
        _ if status.is_server_error() => return ApiError::internal().into_response(),
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this address"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this address has no such method"),
        _ => ("invalid_input", &*text),
    };
    ApiError::new(status.as_u16(), code, message).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Without this header, a browser may cache a 410 (`events_expired`) forever.
        (status, [("cache-control", "no-store")], Json(self)).into_response()
    }
}
