//! The clients' own libraries, installed once per machine beside the servers that tests run.
//!
//! Versions and contents are pinned in `clients/`; where packages come from is the choice of this machine's pip and npm.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Mutex;

/// A slow line needs a minute; pip's and npm's own retries on a dead one end within this.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// One installation at a time; a second test finds what the first one left.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// An interpreter, and the folder of what was installed for it.
pub(super) struct Language {
    pub(super) program: PathBuf,
    pub(super) libraries: PathBuf,
}

pub(super) fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients").canonicalize().unwrap()
}

pub(super) async fn python() -> Result<Language, String> {
    let named = std::env::var_os("MILLRACE_PYTHON").unwrap_or_else(|| "python3".into());
    // Compiled libraries fit one version of one interpreter. What version managers put in front is not the interpreter.
    let asked = "import sys; print(sys.executable); print(sys.implementation.cache_tag)";
    let said = output(Command::new(named).args(["-c", asked])).await?;
    let (program, tag) = said.split_once('\n').ok_or("it does not say what it is")?;
    let requirements = clients().join("python/requirements.txt");
    let install = |target: &Path| {
        let mut pip = Command::new(program);
        pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"])
            .args(["--require-hashes", "--only-binary", ":all:", "--target"])
            .arg(target)
            .arg("-r")
            .arg(&requirements)
            .envs([("PIP_USER", "0"), ("PIP_REQUIRE_VIRTUALENV", "0"), ("PIP_ROOT_USER_ACTION", "ignore")]);
        pip
    };
    let libraries = once(&format!("clients-{}", tag.trim()), &requirements, install).await?;
    Ok(Language { program: program.into(), libraries })
}

pub(super) async fn node() -> Result<Language, String> {
    let program = PathBuf::from(output(Command::new("node").args(["-p", "process.execPath"])).await?.trim());
    let from = clients().join("node");
    let install = |target: &Path| {
        for name in ["package.json", "package-lock.json", ".npmrc"] {
            std::fs::copy(from.join(name), target.join(name)).unwrap();
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-progress", "--loglevel", "error"]).current_dir(target);
        npm
    };
    let libraries = once("clients-node", &from.join("package-lock.json"), install).await?;
    Ok(Language { program, libraries: libraries.join("node_modules") })
}

/// A folder in the cache that is whole whenever it exists, named after what `pinned` says.
async fn once(name: &str, pinned: &Path, install: impl Fn(&Path) -> Command) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(pinned).unwrap().hash(&mut hasher);
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let cache = cache()?;
    let folder = cache.join(format!("{name}-{:016x}-{os}-{arch}", hasher.finish()));
    let _one_at_a_time = INSTALLING.lock().await;
    if folder.is_dir() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let partial = tempfile::Builder::new().prefix(".clients-").tempdir_in(&cache).map_err(|e| e.to_string())?;
    output(&mut install(partial.path())).await?;
    match std::fs::rename(partial.path(), &folder) {
        // Another process of this machine was quicker.
        Err(_) if folder.is_dir() => Ok(folder),
        moved => moved.map(|()| folder).map_err(|e| e.to_string()),
    }
}

/// Where servers are installed too.
fn cache() -> Result<PathBuf, String> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    let cache = folder("MILLRACE_CACHE_DIR").or_else(|| home().map(|base| base.join("millrace")));
    cache.ok_or_else(|| "no folder to install into: set HOME or MILLRACE_CACHE_DIR".to_owned())
}

/// What a command prints; in words why it did not end well.
async fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{:?}", command.as_std().get_program());
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ran = tokio::time::timeout(INSTALL_LIMIT, running).await;
    let output = ran.map_err(|_| format!("{shown} was not done after {INSTALL_LIMIT:?}"))?;
    let output = output.map_err(|e| format!("{shown} cannot be run: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
