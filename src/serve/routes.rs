//! Which address answers what.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_core::Stream;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::api::{ApiError, Endpoint, Order};
use super::desk::Job;
use super::{Shared, events};

/// Bytes of a request at most.
const BODY_BYTES_MAX: usize = 4 << 20;

/// How long the body of a request may take.
const BODY: Duration = Duration::from_secs(30);

/// All addresses.
pub(super) fn app(shared: Arc<Shared>) -> Router {
    let guarded = Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{name}", get(model))
        .route_layer(middleware::from_fn_with_state(shared.clone(), authorize));
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this address is asked in another way")
        })
        .layer(middleware::from_fn_with_state(shared.clone(), count))
        .with_state(shared)
}

/// Counts answers by their status.
async fn count(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    shared.measures.answered(response.status().as_u16());
    response
}

/// Lets those pass who know the key.
async fn authorize(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    match &shared.config.api_key {
        Some(key) if !is_key(request.headers(), key) => {
            let message = "found no API key, or a wrong one; expected Authorization: Bearer KEY";
            let error = ApiError::new(StatusCode::UNAUTHORIZED, message).coded("invalid_api_key");
            let mut response = error.into_response();
            let how = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, how);
            response
        }
        _ => next.run(request).await,
    }
}

/// Compares digests, so that the time tells nothing about the key.
fn is_key(headers: &HeaderMap, key: &str) -> bool {
    let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
    sent.is_some_and(|sent| Sha256::digest(sent.trim()) == Sha256::digest(key))
}

async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    let headers = [(CONTENT_SECURITY_POLICY, policy)];
    (headers, Html(include_str!("page.html"))).into_response()
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    match shared.is_open.load(Ordering::Relaxed) {
        true => Json(json!({ "status": "ok" })).into_response(),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stopping" }))).into_response()
        }
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, shared.measures.render()).into_response()
}

fn about(shared: &Shared) -> serde_json::Value {
    json!({
        "id": shared.config.model,
        "object": "model",
        "created": shared.began,
        "owned_by": "inflight",
        "context_length": shared.positions,
    })
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    Json(json!({ "object": "list", "data": [about(&shared)] })).into_response()
}

async fn model(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    if name == shared.config.model {
        return Json(about(&shared)).into_response();
    }
    let message = format!("found {name:?}, expected {:?}", shared.config.model);
    ApiError::new(StatusCode::NOT_FOUND, message).coded("model_not_found").into_response()
}

async fn completions(shared: State<Arc<Shared>>, request: Request) -> Response {
    answer(Endpoint::Completions, shared.0, request.into_body()).await
}

async fn chat(shared: State<Arc<Shared>>, request: Request) -> Response {
    answer(Endpoint::Chat, shared.0, request.into_body()).await
}

async fn answer(endpoint: Endpoint, shared: Arc<Shared>, body: Body) -> Response {
    match accept(endpoint, shared, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// Reads a request, puts its texts into the queue, and answers with what is made of them.
async fn accept(endpoint: Endpoint, shared: Arc<Shared>, body: Body) -> Result<Response, ApiError> {
    let body = timeout(BODY, read(body)).await.map_err(|_| {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body of the request took too long")
    })??;
    if !shared.is_open.load(Ordering::Relaxed) {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"));
    }
    // Long texts take their time to become tokens, in which others shall be heard.
    let reader = shared.clone();
    let order = tokio::task::spawn_blocking(move || Order::read(endpoint, &body, &reader)).await;
    let order = order.map_err(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be read")
    })??;
    let replies = enqueue(&order, &shared)?;
    Ok(events::respond(order, replies, shared).await)
}

/// The body of a request. Of one that is too large the rest is read and forgotten, so that the client comes to hear the
/// answer; one that is far too large is cut off.
async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut len) = (Vec::new(), 0);
    while let Some(chunk) = poll_fn(|context| Pin::new(&mut chunks).poll_next(context)).await {
        let chunk = chunk.map_err(|_| {
            ApiError::new(StatusCode::BAD_REQUEST, "the body of the request was cut off")
        })?;
        len += chunk.len();
        if len <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&chunk);
        } else if len > 16 * BODY_BYTES_MAX {
            break;
        }
    }
    if len <= BODY_BYTES_MAX {
        return Ok(bytes);
    }
    let message = format!("found a body of {len} bytes or more, expected at most {BODY_BYTES_MAX}");
    Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message))
}

/// Puts all texts of an order into the queue, or none.
fn enqueue(order: &Order, shared: &Arc<Shared>) -> Result<events::Replies, ApiError> {
    let texts = order.prompts.len() * order.choices;
    let full = || ApiError {
        retry_after_s: Some(shared.retry_after_s()),
        ..ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("found the queue of {} texts full", shared.config.queue),
        )
    };
    let mut permits =
        shared.waiting.clone().try_acquire_many_owned(texts as u32).map_err(|_| full())?;
    let (reply, replies) = unbounded_channel();
    let asked = Instant::now();
    let deadline = asked + shared.config.timeout;
    for (i, prompt) in order.prompts.iter().enumerate() {
        for j in 0..order.choices {
            shared.measures.prompt(prompt.len());
            let choice = i * order.choices + j;
            // There are as many permits as texts.
            let permit = permits.split(1).ok_or_else(full)?;
            let job = Job {
                prompt: prompt.clone(),
                sampling: order.sampling,
                key: choice as u64,
                stops: order.stops.clone(),
                choice,
                reply: reply.clone(),
                permit,
                asked,
                deadline,
            };
            shared.jobs.send(job).map_err(|_| {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
            })?;
        }
    }
    Ok(replies)
}
