//! What requests say, and what is refused: the parameters of OpenAI's completions and chat completions, and top-k, min-p and
//! a repetition penalty besides.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Shared, since_1970};
use crate::generate::{Sampling, check_prompt};
use crate::graph::choice::ALTERNATIVES_MAX;

/// Texts of a request at most: prompts times choices.
const TEXTS_MAX: usize = 128;

/// Strings that end a text at most.
const STOPS_MAX: usize = 16;

/// Characters of a wrong value that are shown.
const FOUND_MAX: usize = 60;

/// Tokens of a completion that does not say how many, as OpenAI's.
const COMPLETION_TOKENS: usize = 16;

/// Alternatives to a token of a completion, and of a chat, at most; as OpenAI's.
const COMPLETION_ALTERNATIVES: usize = 5;
const CHAT_ALTERNATIVES: usize = ALTERNATIVES_MAX;

/// An answer that is no text.
#[derive(Debug)]
pub(super) struct ApiError {
    pub status: StatusCode,
    pub message: String,
    pub param: Option<Cow<'static, str>>,
    pub code: Option<&'static str>,
    pub retry_after_s: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after_s: None }
    }

    /// A parameter that is wrong.
    pub fn invalid(param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("{param}: {}", message.into());
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub fn coded(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// As OpenAI's clients expect it.
    pub fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if let Some(s) = self.retry_after_s {
            response.headers_mut().insert(axum::http::header::RETRY_AFTER, s.into());
        }
        response
    }
}

/// One of something, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

/// What texts begin with.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of tokens or a list of such lists"
)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// What both endpoints understand.
#[derive(Debug, Deserialize)]
struct Settings {
    model: Option<String>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    seed: Option<i64>,
    n: Option<usize>,
    stop: Option<OneOrMany<String>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<serde_json::Map<String, Value>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct CompletionRequest {
    prompt: Option<Prompt>,
    logprobs: Option<i64>,
    echo: Option<bool>,
    suffix: Option<String>,
    best_of: Option<usize>,
    #[serde(flatten)]
    settings: Settings,
}

#[derive(Debug, Deserialize)]
struct ChatRequest {
    #[serde(default)]
    messages: Vec<Message>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    #[serde(flatten)]
    settings: Settings,
}

/// A message of a chat.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    pub role: String,
    #[serde(default)]
    pub content: Content,
}

/// What a message says: a text, or parts of one.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected messages whose content is a text or a list of parts")]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
    Nothing(()),
}

impl Default for Content {
    fn default() -> Self {
        Content::Nothing(())
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Part {
    #[serde(default)]
    text: String,
}

impl Content {
    /// All of it.
    pub fn text(&self) -> String {
        match self {
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => parts.iter().map(|part| part.text.as_str()).collect(),
            Content::Nothing(()) => String::new(),
        }
    }
}

/// Which of the endpoints was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Completions,
    Chat,
}

/// A request that makes sense.
pub(super) struct Order {
    pub endpoint: Endpoint,
    /// The texts' beginnings as tokens, a prompt for each.
    pub prompts: Vec<Vec<u32>>,
    /// What is shown before each text.
    pub echoes: Vec<String>,
    /// Texts for each prompt.
    pub choices: usize,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    pub streams: bool,
    pub include_usage: bool,
    pub log_probabilities: bool,
}

impl Order {
    /// Reads and checks the body of a request.
    pub fn read(endpoint: Endpoint, body: &[u8], shared: &Shared) -> Result<Self, ApiError> {
        match endpoint {
            Endpoint::Completions => Self::completion(parse(body)?, shared),
            Endpoint::Chat => Self::chat(parse(body)?, shared),
        }
    }

    fn completion(request: CompletionRequest, shared: &Shared) -> Result<Self, ApiError> {
        let CompletionRequest { prompt, logprobs, echo, suffix, best_of, settings } = request;
        if suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::invalid("suffix", "this model only writes at the end of a text"));
        }
        let choices = settings.n.unwrap_or(1);
        if best_of.is_some_and(|best| best != choices) {
            return Err(ApiError::invalid("best_of", "found another number than n"));
        }
        let asked = logprobs.unwrap_or(0);
        let alternatives = alternatives("logprobs", asked, COMPLETION_ALTERNATIVES)?;
        let encode = |text: &String| encode("prompt", text, shared);
        let (prompts, texts) = match prompt {
            None => (vec![encode(&"\n".to_string())?], vec!["\n".to_string()]),
            Some(Prompt::Text(text)) => (vec![encode(&text)?], vec![text]),
            Some(Prompt::Texts(texts)) => {
                (texts.iter().map(encode).collect::<Result<_, _>>()?, texts)
            }
            Some(Prompt::Tokens(tokens)) => (vec![tokens.clone()], vec![decode(&tokens, shared)]),
            Some(Prompt::TokenLists(lists)) => {
                let texts = lists.iter().map(|tokens| decode(tokens, shared)).collect();
                (lists, texts)
            }
        };
        let echoes = if echo.unwrap_or(false) { texts } else { vec![String::new(); prompts.len()] };
        let order = settings.order(Endpoint::Completions, prompts, COMPLETION_TOKENS, shared)?;
        let sampling = Sampling { alternatives, ..order.sampling };
        Ok(Self { echoes, sampling, log_probabilities: logprobs.is_some(), ..order })
    }

    fn chat(request: ChatRequest, shared: &Shared) -> Result<Self, ApiError> {
        let ChatRequest { messages, logprobs, top_logprobs, settings } = request;
        if messages.is_empty() {
            return Err(ApiError::invalid("messages", "found none, expected at least one"));
        }
        let log_probabilities = logprobs.unwrap_or(false);
        let asked = top_logprobs.unwrap_or(0);
        let alternatives = alternatives("top_logprobs", asked, CHAT_ALTERNATIVES)?;
        if alternatives > 0 && !log_probabilities {
            let message = format!("found {asked} without logprobs, expected logprobs: true");
            return Err(ApiError::invalid("top_logprobs", message));
        }
        let (prompt, ends) = shared.template.prompt(&messages)?;
        let prompts = vec![encode("messages", &prompt, shared)?];
        let most = shared.config.tokens_max;
        let mut order = settings.order(Endpoint::Chat, prompts, most, shared)?;
        order.stops.extend(ends);
        order.sampling.alternatives = alternatives;
        Ok(Self { echoes: vec![String::new()], log_probabilities, ..order })
    }
}

impl Settings {
    fn order(
        self,
        endpoint: Endpoint,
        prompts: Vec<Vec<u32>>,
        tokens: usize,
        shared: &Shared,
    ) -> Result<Order, ApiError> {
        let config = &shared.config;
        if let Some(model) = self.model.filter(|model| *model != config.model) {
            let message = format!("found {model:?}, expected {:?}", config.model);
            let error = ApiError::invalid("model", message).coded("model_not_found");
            return Err(ApiError { status: StatusCode::NOT_FOUND, ..error });
        }
        if self.logit_bias.is_some_and(|bias| !bias.is_empty()) {
            return Err(ApiError::invalid("logit_bias", "is not supported here"));
        }
        let choices = self.n.unwrap_or(1);
        let texts = prompts.len().saturating_mul(choices);
        if !(1..=TEXTS_MAX).contains(&texts) {
            let message = format!("found {texts} texts in all, expected 1 to {TEXTS_MAX}");
            return Err(ApiError::invalid("n", message));
        }
        let stops = self.stop.map(OneOrMany::into_vec).unwrap_or_default();
        if stops.len() > STOPS_MAX || stops.iter().any(String::is_empty) {
            let message = format!("expected at most {STOPS_MAX} strings, none of them empty");
            return Err(ApiError::invalid("stop", message));
        }
        let asked = self.max_completion_tokens.or(self.max_tokens);
        let tokens = asked.unwrap_or(tokens.min(config.tokens_max));
        if !(1..=config.tokens_max).contains(&tokens) {
            let message = format!("found {tokens}, expected 1 to {}", config.tokens_max);
            return Err(ApiError::invalid("max_tokens", message));
        }
        let sampling = Sampling {
            tokens,
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            alternatives: 0,
            // Without a seed each request draws anew.
            seed: self.seed.map_or_else(|| fresh_seed(shared), |seed| seed as u64),
            end: shared.tokenizer.end(),
        };
        check_sampling(&sampling)?;
        for prompt in &prompts {
            check_prompt(prompt, shared.positions, shared.vocabulary).map_err(|error| {
                let param = if endpoint == Endpoint::Chat { "messages" } else { "prompt" };
                let refused = ApiError::invalid(param, error.message());
                if prompt.len() > shared.positions {
                    refused.coded("context_length_exceeded")
                } else {
                    refused
                }
            })?;
        }
        Ok(Order {
            endpoint,
            echoes: Vec::new(),
            prompts,
            choices,
            sampling,
            stops,
            streams: self.stream.unwrap_or(false),
            include_usage: self.stream_options.unwrap_or_default().include_usage,
            log_probabilities: false,
        })
    }
}

/// The parameter that a flag of the command line is called here.
fn check_sampling(sampling: &Sampling) -> Result<(), ApiError> {
    sampling.validate().map_err(|error| {
        let params = [
            "temperature",
            "top_p",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "max_tokens",
        ];
        let flag = error.item().trim_start_matches("--").replace('-', "_");
        let param = params.into_iter().find(|param| **param == flag).unwrap_or("max_tokens");
        ApiError::invalid(param, error.message())
    })
}

/// How many alternatives to each token a parameter asks for.
fn alternatives(param: &'static str, asked: i64, most: usize) -> Result<usize, ApiError> {
    let alternatives = usize::try_from(asked).ok().filter(|&asked| asked <= most);
    alternatives
        .ok_or_else(|| ApiError::invalid(param, format!("found {asked}, expected 0 to {most}")))
}

fn fresh_seed(shared: &Shared) -> u64 {
    since_1970().as_nanos() as u64 ^ shared.requests.load(Ordering::Relaxed) << 40
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| {
        wrong_parameter::<T>(body).unwrap_or_else(|| {
            ApiError::new(StatusCode::BAD_REQUEST, format!("the body is no such request: {e}"))
        })
    })
}

/// The parameter that makes no request even alone, if there is one: none is required.
fn wrong_parameter<T: DeserializeOwned>(body: &[u8]) -> Option<ApiError> {
    let Value::Object(parameters) = serde_json::from_slice(body).ok()? else { return None };
    parameters.into_iter().find_map(|(name, value)| {
        let found = kind(&value);
        let alone = Value::Object([(name.clone(), value)].into_iter().collect());
        let error = serde_json::from_value::<T>(alone).err()?.to_string();
        Some(ApiError::invalid(name, mismatch(found, &error)))
    })
}

/// What a value is.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What was found and what is expected, from serde's words for it.
fn mismatch(found: &str, error: &str) -> String {
    let told = ["invalid type: ", "invalid value: "];
    let told = told.iter().find_map(|kind| error.strip_prefix(kind));
    let (found, expected) = match told.and_then(|told| told.rsplit_once(", expected ")) {
        Some(both) => both,
        None => match error.strip_prefix("expected ") {
            Some(expected) => (found, expected),
            None => return error.into(),
        },
    };
    let expected = match expected {
        "usize" | "u32" => "a whole number, not below 0",
        "i64" => "a whole number",
        "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        other => other.strip_prefix("struct ").map_or(other, |_| "an object"),
    };
    let mut shown: String = found.chars().take(FOUND_MAX).collect();
    if shown.len() < found.len() {
        shown.push('…');
    }
    format!("found {shown}, expected {expected}")
}

fn encode(param: &'static str, text: &str, shared: &Shared) -> Result<Vec<u32>, ApiError> {
    let tokens = shared.tokenizer.encode_long(text);
    tokens.map_err(|error| ApiError::invalid(param, error.to_string()))
}

fn decode(tokens: &[u32], shared: &Shared) -> String {
    let bytes: Vec<u8> =
        tokens.iter().flat_map(|&id| shared.tokenizer.bytes(id)).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How many tokens a request read and made.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
}

impl Order {
    /// What is shown before each text, in their order.
    pub fn echoes(&self) -> impl Iterator<Item = &str> {
        self.echoes.iter().flat_map(|echo| std::iter::repeat_n(echo.as_str(), self.choices))
    }
}
