//! A real Chromium.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The browser, where there is one; without, tests skip aloud, and `REQUIRE_CHROMIUM=1` makes that a failure.
pub fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|path| path.is_file());
    if found.is_none() {
        let required = std::env::var_os("REQUIRE_CHROMIUM").is_some_and(|value| value == "1");
        assert!(!required, "REQUIRE_CHROMIUM is set, but there is no chromium");
        eprintln!("skipped: there is no chromium");
    }
    found
}

/// Has the browser open an address, without any network but this machine's.
pub fn browse(chromium: &Path, address: &str, flags: &[&str], folder: &Path) -> Output {
    let profile = tempfile::tempdir().expect("a temporary folder");
    Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(flags)
        .arg(address)
        .current_dir(folder)
        .output()
        .expect("chromium starts")
}

/// What a page consists of once its scripts have run.
pub fn dump(chromium: &Path, address: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Time stands still for the page while an answer is under way.
    let flags = ["--virtual-time-budget=20000", "--dump-dom"];
    let output = browse(chromium, address, &flags, folder.path());
    String::from_utf8(output.stdout).expect("UTF-8")
}
