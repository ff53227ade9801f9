//! Answers: the texts of a request whole, or as server-sent events while they are made.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Json;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::api::{ApiError, Endpoint, Order, Usage};
use super::desk::{Failure, Made, Reply};
use super::probabilities::{Told, of_chat, of_completion};
use super::{Shared, since_1970};
use crate::generate::Finish;

/// What comes of the texts of a request.
pub(super) type Replies = UnboundedReceiver<Reply>;

/// Answers an order.
pub(super) async fn respond(order: Order, mut replies: Replies, shared: Arc<Shared>) -> Response {
    let mut answer = Answer::new(order, shared);
    if answer.order.streams {
        let first = answer.opening();
        let events = Events { answer, replies, ready: first.into(), is_over: false };
        return Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    }
    let texts = answer.order.prompts.len() * answer.order.choices;
    let mut whole: Vec<Whole> = answer.order.echoes().map(Whole::new).collect();
    debug_assert_eq!(whole.len(), texts);
    while answer.left > 0 {
        match replies.recv().await {
            Some(Reply::Token(made)) => {
                answer.count(&made);
                whole[made.choice].push(made);
            }
            Some(Reply::Failed(failure)) => return error_of(failure).into_response(),
            None => return error_of(Failure::Broken).into_response(),
        }
    }
    let choices = whole.into_iter().enumerate().map(|(i, whole)| answer.whole_choice(i, whole));
    let choices: Vec<Value> = choices.collect();
    Json(answer.body(false, choices, Some(answer.usage))).into_response()
}

fn error_of(failure: Failure) -> ApiError {
    match failure {
        Failure::TimedOut => ApiError {
            retry_after_s: Some(1),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the request took too long")
        },
        Failure::Broken => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the model has failed"),
    }
}

/// A text that is whole when it is answered.
struct Whole {
    text: String,
    tokens: Vec<Told>,
    finish: Option<Finish>,
}

impl Whole {
    fn new(echo: &str) -> Self {
        Self { text: echo.into(), tokens: Vec::new(), finish: None }
    }

    fn push(&mut self, made: Made) {
        self.text.push_str(&made.text);
        self.tokens.push(made.told);
        self.finish = made.finish;
    }
}

/// What is said about an order.
struct Answer {
    order: Order,
    shared: Arc<Shared>,
    id: String,
    created: u64,
    usage: Usage,
    /// Texts that have not ended.
    left: usize,
}

impl Answer {
    fn new(order: Order, shared: Arc<Shared>) -> Self {
        let number = shared.next_request();
        let kind = if order.endpoint == Endpoint::Chat { "chatcmpl" } else { "cmpl" };
        let prompt_tokens = order.prompts.iter().map(Vec::len).sum();
        Self {
            id: format!("{kind}-{:x}-{number}", shared.began),
            created: since_1970().as_secs(),
            usage: Usage { prompt_tokens, completion_tokens: 0, total_tokens: prompt_tokens },
            left: order.prompts.len() * order.choices,
            order,
            shared,
        }
    }

    fn count(&mut self, made: &Made) {
        self.usage.completion_tokens += 1;
        self.usage.total_tokens += 1;
        self.left -= usize::from(made.finish.is_some());
    }

    fn is_chat(&self) -> bool {
        self.order.endpoint == Endpoint::Chat
    }

    fn body(&self, is_chunk: bool, choices: Vec<Value>, usage: Option<Usage>) -> Value {
        let object = match (self.order.endpoint, is_chunk) {
            (Endpoint::Completions, _) => "text_completion",
            (Endpoint::Chat, false) => "chat.completion",
            (Endpoint::Chat, true) => "chat.completion.chunk",
        };
        let mut body = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.shared.config.model,
            "choices": choices,
        });
        if usage.is_some() || self.order.include_usage {
            body["usage"] = json!(usage);
        }
        body
    }

    /// Probabilities of tokens of a text, as the endpoint tells them.
    fn log_probabilities(&self, choice: usize, tokens: &[Told]) -> Value {
        if !self.order.log_probabilities {
            return Value::Null;
        }
        let tokenizer = &self.shared.tokenizer;
        match self.order.endpoint {
            Endpoint::Chat => of_chat(tokens, tokenizer),
            Endpoint::Completions => {
                let echoed = self.order.echoes().nth(choice).map_or(0, |echo| echo.chars().count());
                of_completion(tokens, echoed, tokenizer)
            }
        }
    }

    fn whole_choice(&self, index: usize, whole: Whole) -> Value {
        let logprobs = self.log_probabilities(index, &whole.tokens);
        let (text, finish_reason) = (whole.text, whole.finish);
        match self.is_chat() {
            true => json!({
                "index": index,
                "message": { "role": "assistant", "content": text },
                "logprobs": logprobs,
                "finish_reason": finish_reason,
            }),
            false => json!({
                "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason,
            }),
        }
    }

    fn chunk(&self, index: usize, delta: Value, logprobs: Value, finish: Option<Finish>) -> Event {
        let choice = match self.is_chat() {
            true => json!({
                "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish,
            }),
            false => json!({
                "index": index, "text": delta, "logprobs": logprobs, "finish_reason": finish,
            }),
        };
        Event::default().data(self.body(true, vec![choice], None).to_string())
    }

    /// What is said before the first token.
    fn opening(&self) -> Vec<Event> {
        if self.is_chat() {
            let role = json!({ "role": "assistant", "content": "" });
            let choice = |i| self.chunk(i, role.clone(), Value::Null, None);
            return (0..self.order.choices).map(choice).collect();
        }
        let echoes = self.order.echoes().enumerate().filter(|(_, echo)| !echo.is_empty());
        echoes.map(|(i, echo)| self.chunk(i, json!(echo), Value::Null, None)).collect()
    }

    /// What a token says, and what follows the last one.
    fn events(&mut self, made: Made) -> Vec<Event> {
        self.count(&made);
        let logprobs = self.log_probabilities(made.choice, &[made.told]);
        let delta = match (self.is_chat(), made.text.is_empty()) {
            (false, _) => json!(made.text),
            (true, true) => json!({}),
            (true, false) => json!({ "content": made.text }),
        };
        let mut events = vec![self.chunk(made.choice, delta, logprobs, made.finish)];
        if self.left == 0 {
            if self.order.include_usage {
                let usage = self.body(true, Vec::new(), Some(self.usage));
                events.push(Event::default().data(usage.to_string()));
            }
            events.push(Event::default().data("[DONE]"));
        }
        events
    }
}

/// Server-sent events of an order. Dropping them, as when the client is gone, ends its texts.
struct Events {
    answer: Answer,
    replies: Replies,
    ready: VecDeque<Event>,
    is_over: bool,
}

impl Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if this.is_over || this.answer.left == 0 {
                return Poll::Ready(None);
            }
            match ready!(this.replies.poll_recv(context)) {
                Some(Reply::Token(made)) => this.ready.extend(this.answer.events(made)),
                Some(Reply::Failed(failure)) => this.fail(failure),
                None => this.fail(Failure::Broken),
            }
        }
    }
}

impl Events {
    /// The status is long sent: an event tells what happened.
    fn fail(&mut self, failure: Failure) {
        self.is_over = true;
        let error = error_of(failure).body().to_string();
        self.ready.push_back(Event::default().data(error));
    }
}
