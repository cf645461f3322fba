//! Servers are found or installed once, whoever asks and however often.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex};
use std::thread;

use millrace::local::provision::{Provision, ProvisionError};

/// Searches nothing and installs into `cache`.
fn bare(cache: &Path) -> Provision {
    Provision { cache_dir: Some(cache.to_owned()), search_path: Some(OsString::new()), ..Provision::default() }
}

fn find(provision: &Provision) -> (Result<PathBuf, ProvisionError>, Vec<String>) {
    let mut told = Vec::new();
    let found = provision.nats_server(&mut |line| told.push(line.to_owned()));
    (found, told)
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| !name.ends_with(".lock")).collect()
}

#[test]
fn two_at_once_install_once_and_later_ones_use_the_cache() {
    let cache = tempfile::tempdir().expect("a folder");
    let provision = bare(cache.path());
    let (barrier, told) = (Barrier::new(2), Mutex::new(Vec::new()));
    let found = thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            let (found, lines) = find(&provision);
            told.lock().expect("unpoisoned").extend(lines);
            found.expect("installed")
        };
        let both = [scope.spawn(ask), scope.spawn(ask)];
        both.map(|thread| thread.join().expect("no panic"))
    });
    assert_eq!(found[0], found[1]);
    assert!(found[0].starts_with(cache.path()), "{found:?}");
    let told = told.into_inner().expect("unpoisoned");
    assert_eq!(told.iter().filter(|line| line.starts_with("installed ")).count(), 1, "{told:?}");

    let (again, told) = find(&provision);
    assert_eq!(again.expect("cached"), found[0]);
    assert_eq!(told, Vec::<String>::new(), "nothing to wait for the second time");
    assert_eq!(entries(cache.path()).len(), 1, "{:?}", entries(cache.path()));

    // What a power cut or a killed installation leaves behind is mended.
    fs::write(&found[0], "").expect("damaged");
    let folder = entries(cache.path()).remove(0);
    fs::create_dir(cache.path().join(format!(".{folder}.partial"))).expect("left behind");
    let (mended, told) = find(&provision);
    assert_eq!(mended.expect("installed again"), found[0]);
    assert!(told.iter().any(|line| line.starts_with("installed ")), "{told:?}");
    assert_eq!(entries(cache.path()), [folder]);
}

#[test]
fn a_new_enough_server_on_the_search_path_is_used_and_an_old_one_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    for (place, version) in [(&old, "v2.10.29"), (&new, "v2.11.0")] {
        fs::create_dir(place).expect("made");
        script(&place.join("nats-server"), &format!("echo nats-server: {version}"));
    }
    let mut provision = bare(&folder.path().join("cache"));
    provision.search_path = Some(std::env::join_paths([&old, &new]).expect("a path"));
    let (found, told) = find(&provision);
    assert_eq!(found.expect("found"), new.join("nats-server").canonicalize().expect("a file"));
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_named_server_that_cannot_be_used_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = folder.path().join("nats-server");
    let mut provision = bare(folder.path());
    provision.nats_server = Some(named.clone());
    let refused = |provision: &Provision, reason: &str| {
        let error = find(provision).0.expect_err("unusable");
        assert!(matches!(error, ProvisionError::Unusable { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(reason) && text.contains("2.11") && text.contains(&*named.to_string_lossy()), "{text}");
    };
    refused(&provision, "cannot be run");
    script(&named, "echo nats-server: v2.9.0");
    refused(&provision, "version 2.9");
    script(&named, "echo something else");
    refused(&provision, "names none");
    script(&named, "exit 1");
    refused(&provision, "exit status: 1");
}

#[test]
fn an_impossible_installation_says_why_lists_the_alternatives_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let python = folder.path().join("python");
    let mut provision = bare(&cache);
    provision.python = Some(python.clone());
    let failed = |reason: &str| {
        let text = find(&provision).0.expect_err("impossible").to_string();
        for part in [reason, "2.11", "PATH", "MILLRACE_NATS_SERVER", "MILLRACE_NATS_URL", "--nats-url", "python3-pip"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        assert_eq!(entries(&cache), Vec::<String>::new());
    };
    failed("cannot be run");
    script(&python, r#"[ "$1" = -c ] && echo "$0""#);
    failed("has no pip");
    script(&python, r#"[ "$1" = -c ] && echo "$0"; [ "$3" != install ] || { echo 'ERROR: no route' >&2; exit 1; }"#);
    failed("no route");
    script(&python, r#"[ "$1" = -c ] && echo "$0"; exit 0"#);
    failed("cannot be run");
}

#[test]
fn a_cache_folder_others_can_write_to_is_refused() {
    let cache = tempfile::tempdir().expect("a folder");
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o777)).expect("opened");
    let error = find(&bare(cache.path())).0.expect_err("untrusted");
    assert!(matches!(error, ProvisionError::CacheFolder { .. }), "{error}");
    assert!(error.to_string().contains("MILLRACE_CACHE_DIR"), "{error}");
}
