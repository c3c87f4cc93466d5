//! The extractor of request bodies.

use axum::{
    Json,
    extract::{FromRequest, Request},
};
use serde::de::DeserializeOwned;

use crate::{App, api_error::ApiError};

/// The body of a request, deserialized from JSON.
pub struct Input<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let Json(input) = Json::from_request(request, app)
            .await
            .map_err(|rejection| ApiError::new(rejection.status().as_u16(), "invalid_input", rejection.body_text()))?;
        Ok(Self(input))
    }
}
