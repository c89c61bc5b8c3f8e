//! How a route is served and how it is described, in one value: `routes` lists them, and both the router and
//! `GET /v1/openapi.json` are made of that list. Schemas are those of the types that are served.

use axum::handler::Handler;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref, RefOr, Required,
    Response, Schema,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::routes::Api;
use super::wire::Refusal;
use super::{auth, events};

const JSON: &str = "application/json";
/// One JSON object a line.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// The same for a client that asks for text: generated ones seldom know lines.
pub(super) const TEXT: &str = "text/plain";
/// How the document names the bearer token of TCP.
const TOKEN: &str = "token";

/// One method of one path.
pub(super) struct Route<H> {
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<Api<H>>,
    method: HttpMethod,
    operation: Operation,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl<H: Send + Sync + 'static> Route<H> {
    fn new<T: 'static>(
        (method, filter): (HttpMethod, MethodFilter),
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: impl Handler<T, Api<H>>,
    ) -> Self {
        let mut route =
            Self { path, handler: on(filter, handler), method, operation: Operation::new(), schemas: Vec::new() };
        route.operation.operation_id = Some(id.to_owned());
        route.operation.summary = Some(summary.to_owned());
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        route.operation.parameters = Some(names.map(in_path).collect());
        let failure = route.content::<Refusal>();
        route.response("default", "What went wrong, and what to do", JSON, failure)
    }

    pub(super) fn get<T: 'static>(
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: impl Handler<T, Api<H>>,
    ) -> Self {
        Self::new((HttpMethod::Get, MethodFilter::GET), path, id, summary, handler)
    }

    pub(super) fn post<T: 'static>(
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: impl Handler<T, Api<H>>,
    ) -> Self {
        Self::new((HttpMethod::Post, MethodFilter::POST), path, id, summary, handler)
    }

    pub(super) fn delete<T: 'static>(
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: impl Handler<T, Api<H>>,
    ) -> Self {
        Self::new((HttpMethod::Delete, MethodFilter::DELETE), path, id, summary, handler)
    }

    /// Takes this JSON.
    pub(super) fn body<B: ToSchema>(mut self) -> Self {
        let body = RequestBodyBuilder::new().content(JSON, self.content::<B>()).required(Some(Required::True)).build();
        self.operation.request_body = Some(body);
        self
    }

    pub(super) fn query<Q: IntoParams>(mut self) -> Self {
        let query = Q::into_params(|| Some(ParameterIn::Query));
        self.operation.parameters.get_or_insert_default().extend(query);
        self
    }

    /// Answers this JSON.
    pub(super) fn answers<A: ToSchema>(mut self) -> Self {
        let content = self.content::<A>();
        self.ok(JSON, content)
    }

    /// Answers lines, each of them this JSON; the same as text where that is asked for.
    pub(super) fn lines<A: ToSchema>(mut self) -> Self {
        let content = self.content::<A>();
        self.handler = self.handler.route_layer(middleware::from_fn(events::as_text));
        self.ok(NDJSON, content).sends(TEXT)
    }

    /// Answers what no JSON schema describes.
    pub(super) fn sends(self, content_type: &'static str) -> Self {
        let schema = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
        self.ok(content_type, Content::new(Some(schema)))
    }

    /// Is refused on TCP.
    pub(super) fn local_only(mut self) -> Self {
        self.handler = self.handler.route_layer(middleware::from_fn(auth::only_local));
        self
    }

    fn ok(self, content_type: &'static str, content: Content) -> Self {
        self.response("200", "Done", content_type, content)
    }

    /// One more content of the answer with this status.
    fn response(mut self, status: &str, description: &str, content_type: &'static str, content: Content) -> Self {
        let responses = &mut self.operation.responses.responses;
        let described = || RefOr::T(Response::new(description));
        if let RefOr::T(response) = responses.entry(status.to_owned()).or_insert_with(described) {
            response.content.insert(content_type.to_owned(), content);
        }
        self
    }

    /// A reference to the schema of a type, which is noted together with all that it is made of.
    fn content<T: ToSchema>(&mut self) -> Content {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        Content::new(Some(Ref::from_schema_name(T::name())))
    }
}

fn in_path(name: &str) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
    match name {
        "session" => parameter.schema(Some(String::schema())),
        "id" => parameter.schema(Some(i64::schema())),
        "controller" => parameter.schema(Some(String::schema())).description(Some("A controller's node id or name")),
        "network" => parameter.schema(Some(String::schema())).description(Some("A network's name")),
        "invite" => parameter.schema(Some(String::schema())).description(Some("The first part of its code")),
        _ => parameter.schema(Some(String::schema())).description(Some("A node's id, decimal or 0x hex, or its name")),
    }
    .build()
}

/// The document about these routes.
pub(super) fn document<H>(routes: &[Route<H>]) -> Value {
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let mut components = ComponentsBuilder::new().security_scheme(TOKEN, SecurityScheme::Http(token));
    let mut paths = PathsBuilder::new();
    for route in routes {
        components = components.schemas_from_iter(route.schemas.iter().cloned());
        paths = paths.path(route.path, PathItem::new(route.method.clone(), route.operation.clone()));
    }
    let info = InfoBuilder::new().title("matterbind admin API").version(env!("CARGO_PKG_VERSION")).description(Some(
        "On the Unix socket for root, the service user and the group matterbind; on TCP with a bearer token.",
    ));
    let document: OpenApi = OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .security(Some([SecurityRequirement::default(), SecurityRequirement::new::<_, _, String>(TOKEN, [])]))
        .build();
    let mut document = serde_json::to_value(document).expect("the document has only string keys");
    let schemas = document["components"]["schemas"].clone();
    write_out(&mut document, &schemas);
    for schema in document["components"]["schemas"].as_object_mut().into_iter().flatten().map(|(_, schema)| schema) {
        any_of(schema);
    }
    document
}

/// Alternatives without a tag (bare references) may overlap: what fits one may fit another too.
fn any_of(schema: &mut Value) {
    let untagged =
        |choices: &Value| choices.as_array().is_some_and(|all| all.iter().any(|one| one.get("$ref").is_some()));
    if schema.get("oneOf").is_some_and(untagged)
        && let Some(choices) = schema.as_object_mut().and_then(|object| object.remove("oneOf"))
    {
        schema["anyOf"] = choices;
    }
}

/// A variant that is another schema and a tag (`allOf`) becomes one object: generators of clients do not put the two together.
fn write_out(value: &mut Value, schemas: &Value) {
    if let Some(Value::Array(parts)) = value.as_object_mut().and_then(|object| object.remove("allOf")) {
        value["type"] = "object".into();
        for part in parts {
            let named = part["$ref"].as_str().and_then(|name| schemas.get(name.rsplit('/').next()?));
            // It may be put together of others in turn.
            let mut part = named.unwrap_or(&part).clone();
            write_out(&mut part, schemas);
            // An object of which nothing is said may have anything in it.
            if part["properties"].is_null() || !part["additionalProperties"].is_null() {
                value["additionalProperties"] = true.into();
            }
            for (name, property) in part["properties"].as_object().into_iter().flatten() {
                value["properties"][name] = property.clone();
            }
            let required = part["required"].as_array().into_iter().flatten().cloned();
            let known = value["required"].as_array().into_iter().flatten().cloned();
            value["required"] = known.chain(required).collect();
        }
    }
    match value {
        Value::Object(object) => object.values_mut().for_each(|inner| write_out(inner, schemas)),
        Value::Array(items) => items.iter_mut().for_each(|inner| write_out(inner, schemas)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
