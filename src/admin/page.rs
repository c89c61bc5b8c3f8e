//! placeholder
use super::backend::Backend;
use super::routes::Api;
use axum::extract::State;
use axum::response::Response;
pub(super) async fn page<B: Backend>(State(_api): State<Api<B>>) -> Response {
    todo!()
}
