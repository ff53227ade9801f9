//! Files out of Debian packages, through the system's package client; nothing is installed.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A package of some dozen megabytes over a slow line.
const COMMAND_WAIT_MAX: Duration = Duration::from_secs(600);

/// Downloads and unpacks packages into a temporary folder, each once.
pub(crate) struct Packages {
    dir: TempDir,
    unpacked: HashMap<String, Result<PathBuf, String>>,
}

impl Packages {
    /// A temporary folder inside `dir`, so that files can be renamed out of it.
    pub fn new(dir: &Path) -> Result<Self, String> {
        let dir = TempDir::with_prefix_in(".package-", dir)
            .map_err(|e| format!("cannot make a temporary folder: {e}"))?;
        Ok(Self { dir, unpacked: HashMap::new() })
    }

    /// The unpacked file `inside` of `package`.
    pub fn file(&mut self, package: &str, inside: &str) -> Result<PathBuf, String> {
        if !self.unpacked.contains_key(package) {
            let unpacked = self.unpack(package);
            self.unpacked.insert(package.into(), unpacked);
        }
        let path = self.unpacked[package].clone()?.join(inside);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(path),
            _ => Err(format!("has no file {inside}")),
        }
    }

    fn unpack(&self, package: &str) -> Result<PathBuf, String> {
        let folder = self.dir.path().join(package);
        std::fs::create_dir(&folder).map_err(|e| e.to_string())?;
        if let Err(first) = self.apt(&folder, &[], &["download", package]) {
            // Perhaps the lists of packages are missing or old: private ones need no rights.
            let path = |name: &str| self.dir.path().join(name);
            let (lists, cache) = (path("lists"), path("cache"));
            let options = [
                format!("Dir::State::Lists={}", lists.display()),
                format!("Dir::Cache={}", cache.display()),
                "Debug::NoLocking=1".into(),
            ];
            let retried = [lists.join("partial"), cache.join("archives/partial")]
                .iter()
                .try_for_each(std::fs::create_dir_all)
                .map_err(|e| e.to_string())
                .and_then(|()| self.apt(&folder, &options, &["update"]))
                .and_then(|()| self.apt(&folder, &options, &["download", package]));
            retried.map_err(|_| first)?;
        }
        let archive = std::fs::read_dir(&folder)
            .map_err(|e| e.to_string())?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .find(|path| path.extension().is_some_and(|e| e == "deb"))
            .ok_or("apt-get brought no package")?;
        let target = folder.join("unpacked");
        self.run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&target))?;
        Ok(target)
    }

    fn apt(&self, folder: &Path, options: &[String], arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new("apt-get");
        command.arg("-q").args(["-o", "APT::Sandbox::User=root"]);
        for option in options {
            command.args(["-o", option]);
        }
        self.run(command.args(arguments).current_dir(folder))
    }

    /// Runs a command to its end, or kills it when it takes too long.
    fn run(&self, command: &mut Command) -> Result<(), String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let said = self.dir.path().join("stderr");
        let stderr = File::create(&said).map_err(|e| e.to_string())?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(|e| format!("cannot run {program}: {e}"))?;
        let start = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|e| e.to_string())? {
                Some(status) => break status,
                None if start.elapsed() > COMMAND_WAIT_MAX => {
                    // It may have ended by itself just now; then there is nothing to kill.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("{program} took more than {COMMAND_WAIT_MAX:?}"));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        if status.success() {
            return Ok(());
        }
        let text = std::fs::read_to_string(&said).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason");
        Err(format!("{program} failed: {}", last.trim()))
    }
}
