//! From the messages of a chat to the prompt of a text.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};

use super::api::{ApiError, Message};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// What makes prompts of chats. Without a template each message becomes a line `role: content`, and the model goes on after
/// `assistant:` until it would speak for somebody else.
pub(super) struct ChatTemplate {
    environment: Option<Environment<'static>>,
    end: String,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// A Jinja template as Hugging Face's `chat_template` is.
    pub fn new(template: Option<&str>, tokenizer: &Tokenizer) -> Result<Self> {
        let end =
            tokenizer.end().map(|id| String::from_utf8_lossy(tokenizer.bytes(id)).into_owned());
        let environment = template.map(|template| {
            let mut environment = Environment::new();
            let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
            if let Ok(syntax) = syntax {
                environment.set_syntax(syntax);
            }
            environment
                .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
            environment.add_function("raise_exception", |message: String| {
                Err::<String, _>(minijinja::Error::new(
                    minijinja::ErrorKind::InvalidOperation,
                    message,
                ))
            });
            // What a request may make it do is bounded.
            environment.set_fuel(Some(FUEL));
            environment.add_template_owned(NAME, template.to_string()).map(|()| environment)
        });
        let environment = environment.transpose().map_err(|e| {
            Error::config("--chat-template", "found no Jinja template").caused_by(e)
        })?;
        Ok(Self { environment, end: end.unwrap_or_default() })
    }

    /// The prompt, and what ends the answer besides the tokenizer's end.
    pub fn prompt(&self, messages: &[Message]) -> Result<(String, Vec<String>), ApiError> {
        let Some(environment) = &self.environment else {
            let mut prompt: String =
                messages.iter().map(|m| format!("{}: {}\n", m.role, m.content.text())).collect();
            prompt.push_str("assistant:");
            return Ok((prompt, ["user", "system"].map(|role| format!("\n{role}:")).to_vec()));
        };
        let messages: Vec<_> = messages
            .iter()
            .map(|m| context! { role => m.role.as_str(), content => m.content.text() })
            .collect();
        let values = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.end.as_str(),
            eos_token => self.end.as_str(),
        };
        let made = environment.get_template(NAME).and_then(|template| template.render(values));
        let made = made.map_err(|e| {
            ApiError::invalid("messages", format!("the chat template refuses them: {e}"))
        })?;
        Ok((made, Vec::new()))
    }
}

/// Instructions of a template at most.
const FUEL: u64 = 1_000_000;
