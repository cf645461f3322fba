//! The folder servers are installed into.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::ProvisionError;
use super::package::{self, Package};

/// Where PostgreSQL goes when root installs it: root's home is closed to the account PostgreSQL runs as, and `/var/tmp`
/// is open to others, who could put their own programs there first.
const ROOT_POSTGRES: &str = "/var/cache/millrace";

/// The cache folder for a package; it exists when this returns.
pub(super) fn folder(package: &Package, setting: Option<&Path>) -> Result<PathBuf, ProvisionError> {
    let folder = match setting {
        Some(folder) => folder.to_owned(),
        None if package.name == package::POSTGRES.name && rustix::process::geteuid().is_root() => ROOT_POSTGRES.into(),
        None => home_cache().ok_or(ProvisionError::NoCacheFolder { title: package.title })?,
    };
    let folder = std::path::absolute(&folder).map_err(failure(package, "resolve", &folder))?;
    if !folder.is_dir() {
        fs::create_dir_all(&folder).map_err(failure(package, "create", &folder))?;
        // A strict umask must not keep the unprivileged account out of what root installs.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(failure(package, "open", &folder))?;
    }
    refuse_foreign(package, &folder)?;
    Ok(folder)
}

fn home_cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("millrace"))
}

/// Programs are run from here, so nobody else may be able to put any here.
fn refuse_foreign(package: &Package, folder: &Path) -> Result<(), ProvisionError> {
    let meta = fs::metadata(folder).map_err(failure(package, "read", folder))?;
    let mine = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
    if mine && meta.mode() & 0o002 == 0 {
        return Ok(());
    }
    let why = if mine { "everybody may write to it" } else { "it belongs to another user" };
    Err(failure(package, "trust", folder)(std::io::Error::other(why)))
}

pub(super) fn failure(
    package: &Package,
    action: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> ProvisionError + use<> {
    let (title, path) = (package.title, path.to_owned());
    move |source| ProvisionError::CacheFolder { title, action, path, source }
}
