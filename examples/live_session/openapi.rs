//! A builder that collects the routes (see `routes.rs`). From the types of their inputs and outputs, it generates the
//! OpenAPI document that describes the routes.

use axum::{
    Json, Router,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, get, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{api_error::ApiError, app::App};

/// Collects the routes and their descriptions.
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
    /// Adds a route with a request body of type `I` (`()` for none) and a response of type `O`. For a GET, the fields
    /// of `I` are the query parameters, all optional. The compiler infers `T`, the types of the handler's arguments.
    pub fn route<I: JsonSchema, O: JsonSchema, T: 'static>(
        mut self,
        method: Method,
        path: &str,
        summary: &str,
        handler: impl Handler<T, App>,
    ) -> Self {
        let output = self.schemas.subschema_for::<O>();
        let error = self.schemas.subschema_for::<ApiError>();
        let json_content = |schema: Schema| json!({ "application/json": { "schema": schema } });
        let path_parameters = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = path_parameters
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let has_input = I::schema_name() != <()>::schema_name();
        if has_input && method == Method::GET {
            let input = self.schemas.root_schema_for::<I>();
            let fields = input.get("properties").and_then(Value::as_object).into_iter().flatten();
            parameters.extend(fields.map(|(name, schema)| json!({ "name": name, "in": "query", "schema": schema })));
        }
        let mut operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": {
                "200": { "description": "Done", "content": json_content(output) },
                "default": { "description": "Refused", "content": json_content(error) },
            },
        });
        if has_input && method != Method::GET {
            let content = json_content(self.schemas.subschema_for::<I>());
            operation["requestBody"] = json!({ "required": true, "content": content });
        }
        let path_item = self.paths.entry(path).or_insert_with(|| json!({}));
        path_item[method.as_str().to_lowercase()] = operation;
        let method_filter = MethodFilter::try_from(method).unwrap_or(MethodFilter::GET);
        self.router = self.router.route(path, on(method_filter, handler));
        self
    }

    /// Adds a GET route that streams events, whose data is JSON of type `O`. If the stream fails, its last event is
    /// `failed`, whose data is an [`ApiError`]. A client that reconnects sends the id of the last event that it has
    /// received.
    pub fn event_stream<O: JsonSchema, T: 'static>(
        self,
        path: &str,
        summary: &str,
        handler: impl Handler<T, App>,
    ) -> Self {
        let mut api = self.route::<(), O, T>(Method::GET, path, summary, handler);
        let operation = &mut api.paths[path]["get"];
        if let Some(parameters) = operation["parameters"].as_array_mut() {
            parameters.push(json!({ "name": "Last-Event-ID", "in": "header", "schema": { "type": "integer" } }));
        }
        let data = operation["responses"]["200"]["content"]["application/json"].take();
        operation["responses"]["200"] = json!({
            "description": "A stream of events. Their data has this schema, but the data of `failed` is an error.",
            "content": { "text/event-stream": data },
        });
        api
    }

    /// Returns the routes, and `/openapi.json` with their description.
    pub fn router(mut self) -> Router<App> {
        let document = json!({
            "openapi": "3.0.3",
            "info": { "title": "A live session of SPARC", "version": env!("CARGO_PKG_VERSION") },
            "components": {
                "schemas": self.schemas.take_definitions(true),
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            },
            // A token or none, because visitors may call some of the routes.
            "security": [{ "token": [] }, {}],
            "paths": self.paths,
        });
        self.router.route("/openapi.json", get(|| async { Json(document) }))
    }
}
