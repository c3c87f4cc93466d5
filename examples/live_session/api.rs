//! What is the same for every route: inputs, refusals, and the OpenAPI document, made from the service's own types.

use axum::{
    Json, Router,
    extract::{FromRequest, Request},
    handler::Handler,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sparc::service::Error;

use crate::App;

/// Why a request is refused.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failure {
    status: u16,
    code: String,
    message: String,
}

impl Failure {
    fn new(status: u16, code: &str, message: impl ToString) -> Self {
        Self { status, code: code.to_owned(), message: message.to_string() }
    }

    pub fn internal() -> Self {
        Self::new(500, "internal", "the server failed")
    }

    pub fn token(error: &jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            jsonwebtoken::errors::ErrorKind::ExpiredSignature => Self::new(401, "token_expired", "sign in again"),
            _ => Self::new(401, "token_invalid", "the token is not one of this service's"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.http_status() >= 500 && !error.is_retryable() && !matches!(error, Error::PoolClosed) {
            eprintln!("{}: {error:?}", error.code());
        }
        Self::new(error.http_status(), error.code(), error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(self)).into_response()
    }
}

/// A JSON document that has the shape of an input of the service.
pub struct Input<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Input<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let Json(input) = Json::from_request(request, app)
            .await
            .map_err(|refused| Failure::new(refused.status().as_u16(), "invalid_input", refused.body_text()))?;
        Ok(Self(input))
    }
}

/// Routes, and their description.
pub struct Api {
    router: Router<App>,
    schemas: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Api {
    pub fn new() -> Self {
        Self { router: Router::new(), schemas: SchemaSettings::openapi3().into_generator(), paths: Map::new() }
    }

    /// A route that takes `I` (`()`: nothing) and answers `O`.
    pub fn at<I: JsonSchema, O: JsonSchema, T: 'static>(
        mut self,
        method: Method,
        path: &str,
        summary: &str,
        handler: impl Handler<T, App>,
    ) -> Self {
        let takes = self.schemas.subschema_for::<I>();
        let answers = self.schemas.subschema_for::<O>();
        let refused = self.schemas.subschema_for::<Failure>();
        let json = |schema: Schema| json!({ "application/json": { "schema": schema } });
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters =
            in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
        let mut operation = json!({
            "summary": summary,
            "parameters": parameters.collect::<Vec<_>>(),
            "responses": {
                "200": { "description": "Done", "content": json(answers) },
                "default": { "description": "Refused", "content": json(refused) },
            },
        });
        if I::schema_name() != <()>::schema_name() {
            operation["requestBody"] = json!({ "content": json(takes) });
        }
        let described = self.paths.entry(path).or_insert_with(|| json!({}));
        described[method.as_str().to_lowercase()] = operation;
        let filter = MethodFilter::try_from(method).unwrap_or(MethodFilter::GET);
        self.router = self.router.route(path, on(filter, handler));
        self
    }

    /// All of them, and `/openapi.json`.
    pub fn router(mut self) -> Router<App> {
        let document = json!({
            "openapi": "3.0.3",
            "info": { "title": "A live session of SPARC", "version": env!("CARGO_PKG_VERSION") },
            "components": {
                "schemas": self.schemas.take_definitions(true),
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            },
            "security": [{ "token": [] }, {}],
            "paths": self.paths,
        });
        self.router.route("/openapi.json", get(|| async { Json(document) }))
    }
}
