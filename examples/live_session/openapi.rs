//! The routes with their description: an OpenAPI document, made from the types that the service takes and gives.

use axum::{
    Json, Router,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, get, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{App, Failure};

/// Routes, and their description.
pub struct Api {
    router: Router<App>,
    schemas: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Default for Api {
    fn default() -> Self {
        Self { router: Router::new(), schemas: SchemaSettings::openapi3().into_generator(), paths: Map::new() }
    }
}

impl Api {
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
