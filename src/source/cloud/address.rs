//! URLs, and the stores behind them.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use crate::error::{Error, Result};

/// Long enough for a slow network.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Silence for this long ends an attempt.
const READ_WAIT_MAX: Duration = Duration::from_secs(30);

/// One request for one part ends after this long: 8 MiB in it are 0.5 Mbit/s.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(120);

/// Files that one URL may stand for.
const FILES_MAX: u64 = 100_000;

/// Where objects are.
pub(super) struct Address {
    /// The URL up to the path, without what may be secret: `s3://bucket`.
    pub base: String,
    pub store: Arc<dyn ObjectStore>,
    pub target: Target,
}

/// What is meant there.
pub(super) enum Target {
    /// An object of this path, or all below it.
    Path(Path),
    /// These objects.
    Files(Vec<Path>),
}

impl Address {
    /// A URL for people, without user, password and query.
    pub fn shown(url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host =
            if scheme.starts_with("http") { host.rsplit('@').next() } else { None }.unwrap_or(host);
        format!("{scheme}://{host}/{path}")
    }

    /// Understands a URL, with credentials from the environment, under the names that each provider's tools use.
    pub fn parse(url: &str) -> Result<Self> {
        let shown = Self::shown(url);
        let wrong = |message: &str| Error::config(&shown, message);
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(wrong("found no bucket or host, expected one").hint("s3://BUCKET/PREFIX"));
        }
        if path.contains(['?', '#']) {
            return Err(wrong("found a query, expected a path alone")
                .hint("credentials in the environment"));
        }
        let fail = |e: object_store::Error| {
            Error::config(&shown, "the store cannot be used")
                .hint("the environment variables that the provider's own tools use")
                .caused_by(e)
        };
        let wait = format!("{} seconds", REQUEST_WAIT_MAX.as_secs());
        let store: Arc<dyn ObjectStore> = match scheme {
            "s3" | "s3a" => {
                let s3 = AmazonS3Builder::from_env().with_url(url).with_retry(no_retry());
                let key = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
                Arc::new(s3.with_config(key, wait).build().map_err(fail)?)
            }
            "gs" => {
                let gcs = GoogleCloudStorageBuilder::from_env().with_url(url);
                let key = GoogleConfigKey::Client(ClientConfigKey::Timeout);
                Arc::new(gcs.with_retry(no_retry()).with_config(key, wait).build().map_err(fail)?)
            }
            "az" | "azure" | "abfs" | "abfss" => {
                let azure = MicrosoftAzureBuilder::from_env().with_url(url);
                let key = AzureConfigKey::Client(ClientConfigKey::Timeout);
                Arc::new(azure.with_retry(no_retry()).with_config(key, wait).build().map_err(fail)?)
            }
            "http" | "https" => {
                let http = HttpBuilder::new().with_url(format!("{scheme}://{host}"));
                let options = client().with_allow_http(scheme == "http");
                let http = http.with_client_options(options).with_retry(no_retry());
                Arc::new(http.build().map_err(fail)?)
            }
            _ => {
                return Err(wrong(
                    "found a scheme that is not known, expected s3, gs, az, https or redis",
                ));
            }
        };
        let object = |path: &str| {
            Path::from_url_path(path).map_err(|e| wrong("its path is not valid").caused_by(e))
        };
        let target = match expand(path).map_err(|message| wrong(&message))? {
            Some(paths) => {
                Target::Files(paths.iter().map(|path| object(path)).collect::<Result<_>>()?)
            }
            // Servers of files have no listing that is the same everywhere.
            None if scheme.starts_with("http") && (path.is_empty() || path.ends_with('/')) => {
                return Err(wrong("found a folder, expected files, since HTTP does not list any")
                    .hint("https://HOST/shard-{000000..000009}.tar"));
            }
            None if scheme.starts_with("http") => Target::Files(vec![object(path)?]),
            None => Target::Path(object(path)?),
        };
        let base = Self::shown(&format!("{scheme}://{host}"));
        Ok(Self { base: base.trim_end_matches('/').into(), store, target })
    }

    /// An object's URL for people.
    pub fn url(&self, path: &Path) -> String {
        format!("{}/{path}", self.base)
    }
}

fn client() -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_WAIT_MAX)
        .with_read_timeout(READ_WAIT_MAX)
        .with_timeout(REQUEST_WAIT_MAX)
}

/// Attempts are counted, and told of, in one place: here there is one.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..Default::default() }
}

/// The paths that `a-{000..012}.tar` stands for; none without braces.
fn expand(path: &str) -> Result<Option<Vec<String>>, String> {
    let Some((before, rest)) = path.split_once('{') else { return Ok(None) };
    let wrong = || format!("found {path}, expected one pair of braces, as {{000..012}}");
    let (range, after) = rest.split_once('}').ok_or_else(wrong)?;
    let (low, high) = range.split_once("..").ok_or_else(wrong)?;
    if after.contains('{') {
        return Err(wrong());
    }
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (from, to) = (number(low)?, number(high)?);
    if from > to || to - from >= FILES_MAX {
        return Err(format!("found {range}, expected 1 to {FILES_MAX} files, from low to high"));
    }
    let width = if low.starts_with('0') { low.len() } else { 0 };
    Ok(Some((from..=to).map(|i| format!("{before}{i:0width$}{after}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_numbered_files() {
        let expanded = |path| expand(path).expect("valid").expect("braces");
        assert_eq!(
            expanded("a/s-{008..011}.tar"),
            ["a/s-008.tar", "a/s-009.tar", "a/s-010.tar", "a/s-011.tar"]
        );
        assert_eq!(expanded("{9..10}"), ["9", "10"]);
        assert_eq!(expand("plain.tar"), Ok(None));
        for path in ["a{1..2", "a{1-2}", "a{2..1}", "a{1..2}{1..2}", "a{0..99999999}", "{a..b}"] {
            assert!(expand(path).is_err(), "{path}");
        }
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        assert_eq!(
            Address::shown("https://me:secret@host/a/b.tar?sig=secret"),
            "https://host/a/b.tar"
        );
        assert_eq!(Address::shown("s3://bucket/a"), "s3://bucket/a");
    }

    #[test]
    fn wrong_urls_are_told() {
        for (url, part) in [
            ("https://host/folder/", "found a folder, expected files"),
            ("https:///x", "found no bucket or host"),
            ("ftp://host/x", "found a scheme that is not known"),
            ("https://host/x?sig=secret", "found a query"),
            ("https://host/{1..}", "expected one pair of braces"),
        ] {
            let error = Address::parse(url).err().expect(url).to_string();
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
    }
}
