//! What requests get: texts as the library makes them, whole and in pieces, and clear words where something is wrong.

use inflight::generate::Sampling;
use inflight::serve::ServeConfig;
use serde_json::{Value, json};

use super::client::{ask, get, joined, post};
use super::{POSITIONS, Serving, alone, generator};

#[test]
fn a_completion_is_what_the_library_makes() {
    let serving = Serving::plain(2);
    let sampling = Sampling { tokens: 40, temperature: 0.9, seed: 5, ..Sampling::default() };
    let expected = alone(&mut generator(1), "To be", sampling);
    let request = json!({
        "model": "small", "prompt": "To be", "max_tokens": 40, "temperature": 0.9, "seed": 5,
    });
    let answer = post(serving.address, "/v1/completions", &request);
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["choices"][0]["text"], expected);
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["object"], "text_completion");
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45 });
    assert_eq!(body["usage"], usage);
    assert!(body["choices"][0]["logprobs"].is_null());

    let mut streamed = request.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({ "include_usage": true });
    let events = post(serving.address, "/v1/completions", &streamed).events();
    assert_eq!(joined(&events), expected);
    // A token each, and the usage.
    assert_eq!(events.len(), 41);
    assert_eq!(events[40]["usage"], usage);
    assert_eq!(events[40]["choices"], json!([]));
    let finish = |i: usize| &events[i]["choices"][0]["finish_reason"];
    assert!((0..39).all(|i| finish(i).is_null()) && finish(39) == "length");
}

#[test]
fn several_prompts_and_choices_come_in_their_order() {
    let serving = Serving::plain(3);
    let request = json!({
        "prompt": ["ab", [99, 100]], "n": 2, "max_tokens": 6, "temperature": 0, "echo": true, "logprobs": 0,
    });
    // Lists of tokens and texts are not mixed.
    assert_eq!(post(serving.address, "/v1/completions", &request).status, 400);
    let request = json!({
        "prompt": ["ab", "cd"], "n": 2, "max_tokens": 6, "temperature": 0, "echo": true, "logprobs": 0,
    });
    let body = post(serving.address, "/v1/completions", &request).json();
    let choices = body["choices"].as_array().expect("choices");
    let greedy = Sampling::greedy(6);
    let expected = ["ab", "cd"].map(|p| p.to_string() + &alone(&mut generator(1), p, greedy));
    for (i, choice) in choices.iter().enumerate() {
        assert_eq!(
            (choice["index"].as_u64(), &choice["text"]),
            (Some(i as u64), &json!(expected[i / 2]))
        );
        let probabilities = choice["logprobs"]["token_logprobs"].as_array().expect("each token's");
        assert!(probabilities.len() == 6 && probabilities.iter().all(|p| p.as_f64() < Some(0.0)));
    }
    assert_eq!(choices.len(), 4);
    // Without a seed every request draws anew, and so does each choice.
    let request = json!({ "prompt": [97, 98], "n": 2, "max_tokens": 30 });
    let texts =
        |body: Value| [0, 1].map(|i| body["choices"][i]["text"].as_str().unwrap().to_string());
    let drawn = [0, 1].map(|_| texts(post(serving.address, "/v1/completions", &request).json()));
    assert!(drawn[0][0] != drawn[0][1] && drawn[0] != drawn[1]);
}

#[test]
fn a_stop_ends_a_text_before_it() {
    let serving = Serving::plain(1);
    let whole = alone(&mut generator(1), "To be", Sampling::greedy(30));
    let stop: String = whole.chars().skip(9).take(2).collect();
    let request = json!({ "prompt": "To be", "max_tokens": 30, "temperature": 0, "stop": stop });
    let body = post(serving.address, "/v1/completions", &request).json();
    let found = body["choices"][0]["text"].as_str().expect("a text");
    assert_eq!(found, &whole[..whole.find(&stop).expect("it is there")]);
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
}

#[test]
fn chats_become_prompts_by_the_template() {
    let chat = json!({
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": "Hi" }] }],
        "max_completion_tokens": 8, "temperature": 0, "logprobs": true,
    });
    let greedy = Sampling::greedy(8);
    let template = "{% for m in messages %}<{{ m.role }}>{{ m['content'].strip() }}{% endfor %}{% if add_generation_prompt %}<go>{% endif %}";
    let templates = [(None, "user: Hi\nassistant:"), (Some(template), "<user>Hi<go>")];
    for (template, prompt) in templates {
        let config =
            ServeConfig { chat_template: template.map(Into::into), ..ServeConfig::default() };
        let serving = Serving::start(config, generator(1));
        let expected = alone(&mut generator(1), prompt, greedy);
        let body = post(serving.address, "/v1/chat/completions", &chat).json();
        assert_eq!(body["choices"][0]["message"]["content"], expected);
        assert_eq!(body["object"], "chat.completion");
        let probabilities = &body["choices"][0]["logprobs"]["content"];
        assert_eq!(probabilities.as_array().map(Vec::len), Some(8));
        let mut streamed = chat.clone();
        streamed["stream"] = true.into();
        let events = post(serving.address, "/v1/chat/completions", &streamed).events();
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        let deltas = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str());
        assert_eq!(deltas.collect::<String>(), expected);
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    }
}

#[test]
fn what_is_wrong_is_told() {
    let serving = Serving::plain(1);
    let long = "x".repeat(POSITIONS + 1);
    let cases = [
        (json!({ "prompt": "" }), 400, "prompt", "found no tokens"),
        (json!({ "prompt": long }), 400, "prompt", "found 33 tokens, expected at most the 32"),
        (
            json!({ "prompt": [97, 256] }),
            400,
            "prompt",
            "found token 256, expected tokens below 256",
        ),
        (
            json!({ "prompt": "a", "max_tokens": 0 }),
            400,
            "max_tokens",
            "found 0, expected 1 to 2048",
        ),
        (json!({ "prompt": "a", "max_tokens": 4096 }), 400, "max_tokens", "found 4096"),
        (json!({ "prompt": "a", "temperature": -1 }), 400, "temperature", "found -1"),
        (json!({ "prompt": "a", "top_p": 1.5 }), 400, "top_p", "found 1.5"),
        (json!({ "prompt": "a", "n": 0 }), 400, "n", "found 0 texts"),
        (json!({ "prompt": "a", "n": 1000 }), 400, "n", "found 1000 texts"),
        (json!({ "prompt": "a", "stop": ["a", ""] }), 400, "stop", "none of them empty"),
        (json!({ "prompt": "a", "suffix": "b" }), 400, "suffix", "only writes at the end"),
        (json!({ "prompt": "a", "best_of": 3 }), 400, "best_of", "another number than n"),
        (json!({ "prompt": "a", "logit_bias": { "5": 1 } }), 400, "logit_bias", "not supported"),
        (
            json!({ "prompt": "a", "max_tokens": "ten" }),
            400,
            "max_tokens",
            "max_tokens: found string \"ten\", expected a whole number, not below 0",
        ),
        (json!({ "max_tokens": -1 }), 400, "max_tokens", "found integer `-1`, expected a whole"),
        (json!({ "top_k": 1.5 }), 400, "top_k", "found floating point `1.5`, expected a whole"),
        (json!({ "seed": [1] }), 400, "seed", "found sequence, expected a whole number"),
        (json!({ "min_p": "low" }), 400, "min_p", "found string \"low\", expected a number"),
        (json!({ "stream": 1 }), 400, "stream", "found integer `1`, expected a boolean"),
        (json!({ "suffix": 1 }), 400, "suffix", "found integer `1`, expected a string"),
        (
            json!({ "stop": { "a": 1 } }),
            400,
            "stop",
            "found an object, expected a string or a list of strings",
        ),
        (json!({ "prompt": true }), 400, "prompt", "found a boolean, expected a string, a list"),
        (json!({ "prompt": ["a", 1] }), 400, "prompt", "found a list, expected a string, a list"),
        (json!({ "stream_options": 1 }), 400, "stream_options", "`1`, expected an object"),
        (
            json!({ "max_tokens": "x".repeat(1000) }),
            400,
            "max_tokens",
            "xxx…, expected a whole number",
        ),
        (
            json!({ "prompt": "a", "model": "large" }),
            404,
            "model",
            "found \"large\", expected \"small\"",
        ),
    ];
    for (request, status, param, words) in cases {
        let answer = post(serving.address, "/v1/completions", &request);
        assert_eq!(answer.status, status, "{request}");
        let body = answer.json();
        assert_eq!(body["error"]["param"], param, "{request}: {body}");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(words), "{request}: {message}");
    }
    let too_long = post(serving.address, "/v1/completions", &json!({ "prompt": long })).json();
    assert_eq!(too_long["error"]["code"], "context_length_exceeded");
    let chat = |body: Value| post(serving.address, "/v1/chat/completions", &body);
    assert_eq!(chat(json!({ "messages": [] })).status, 400);
    for (body, words) in [
        (json!({}), "messages: found none, expected at least one"),
        (json!({ "messages": [{ "content": "no role" }] }), "messages: missing field `role`"),
        (json!({ "messages": "Hello" }), "messages: found string \"Hello\", expected a list"),
        (
            json!({ "messages": [{ "role": "user", "content": 1 }] }),
            "messages: found a list, expected messages whose content is a text",
        ),
    ] {
        let answer = chat(body);
        assert_eq!(answer.status, 400);
        let error = &answer.json()["error"];
        assert_eq!(error["param"], "messages");
        assert!(error["message"].as_str().is_some_and(|found| found.contains(words)), "{error}");
    }
    let answer = ask(serving.address, "POST", "/v1/completions", "", "{ no JSON");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("key must be a string at line 1 column 3"));
    assert_eq!(get(serving.address, "/v1/completions").status, 405);
    assert_eq!(get(serving.address, "/v2").status, 404);
    let large = format!("{{\"prompt\": \"{}\"}}", "x".repeat(5 << 20));
    assert_eq!(ask(serving.address, "POST", "/v1/completions", "", &large).status, 413);
}

#[test]
fn the_server_tells_about_itself() {
    let serving = Serving::plain(1);
    assert_eq!(get(serving.address, "/health").json(), json!({ "status": "ok" }));
    let models = get(serving.address, "/v1/models").json();
    assert_eq!(models["data"][0]["id"], "small");
    assert_eq!(models["data"][0]["context_length"], POSITIONS);
    assert_eq!(get(serving.address, "/v1/models/small").json()["object"], "model");
    assert_eq!(get(serving.address, "/v1/models/large").status, 404);
    let request = json!({ "prompt": "abc", "max_tokens": 7 });
    assert_eq!(post(serving.address, "/v1/completions", &request).status, 200);
    let metrics = get(serving.address, "/metrics").text();
    for line in [
        "inflight_tokens_total 7",
        "inflight_prompt_tokens_total 3",
        "inflight_requests_total{status=\"200\"} 4",
        "inflight_requests_total{status=\"404\"} 1",
        "inflight_first_token_seconds_count 1",
        "inflight_next_token_seconds_count 6",
        "# TYPE inflight_step_seconds histogram",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    let page = get(serving.address, "/");
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("default-src 'none'") && page.text().contains("<title>inflight"));
}
