//! `millrace bench`: how fast this system is on this machine, each figure beside the limit it is held against.
//!
//! | where | what |
//! | --- | --- |
//! | `parts/` | what is measured, one file each |
//! | `limits/` | what the machine allows: the least that an accepted order can mean, and bare clients that do nothing |
//! | `world`, `setup` | one installation, made for one part: servers, one process for each service, a folder |
//! | `shoppers`, `http`, `orders` | the load: closed and open loops over a client that costs next to nothing |
//! | `tracker`, `broker` | sees orders being confirmed and captured; sees what is still to be done |
//! | `usage` | processor time and memory of every process |
//! | `count` | afterwards: every order that was accepted is confirmed at the API and captured at the gateway |
//! | `past` | a million orders of the past |
//! | `figures`, `latency`, `report`, `surroundings` | what it comes to, and on what it was measured |

mod broker;
mod count;
mod figures;
mod http;
mod latency;
mod limits;
mod orders;
mod parts;
mod past;
mod progress;
mod report;
mod setup;
mod shoppers;
mod sizes;
mod surroundings;
mod tracker;
mod usage;
mod world;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use millrace::telemetry;

use self::figures::Part;
use self::parts::Name;
use self::progress::Progress;
use self::report::Report;
use self::setup::Folder;
use self::sizes::Sizes;
use self::surroundings::Surroundings;
use self::world::Layout;
use super::Context;
use super::verify::Backend;
use crate::failure::{CommandResult, Failure};
use crate::output;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Everything, but small: under two minutes on two quiet cores
    #[arg(long)]
    quick: bool,
    /// Where the services keep their data
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    backend: Backend,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Name>,
    /// Repetitions of each measurement [default: 5, and 3 at fixed rates; with --quick 3 and 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// What customers order is drawn from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The four services as processes of their own, or together in one
    #[arg(long, value_enum, default_value_t = Layout::Apart)]
    layout: Layout,
    /// Keep the folder with databases, streams and logs. It is kept anyway when something fails
    #[arg(long)]
    keep: bool,
    /// The smallest run that touches everything, for tests
    #[arg(long, hide = true)]
    tiny: bool,
    /// This process is the limit of `accept`: serves it here
    #[arg(long, hide = true, requires = "limit_nats", value_name = "ADDRESS")]
    serve_limit: Option<SocketAddr>,
    #[arg(long, hide = true, value_name = "URL")]
    limit_nats: Option<String>,
}

/// What a shell reports for a process ended by Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;

/// A run: what every part is given.
pub struct Bench {
    backend: Backend,
    layout: Layout,
    seed: u64,
    sizes: Sizes,
    folder: Folder,
    progress: Progress,
    /// Settings given with `--set`, for trying one out.
    tuned: Vec<(String, String)>,
    /// What `pipeline` came to; others are held against it.
    pipeline_rate: Option<f64>,
}

pub async fn run(context: Context, args: Args) -> CommandResult {
    if let (Some(listen), Some(nats)) = (args.serve_limit, &args.limit_nats) {
        return limits::handler::serve(listen, nats).await;
    }
    let started = Instant::now();
    let mut sizes = match (args.tiny, args.quick) {
        (true, _) => Sizes::tiny(),
        (false, true) => Sizes::quick(),
        (false, false) => Sizes::full(),
    };
    if let Some(rounds) = args.rounds {
        (sizes.rounds, sizes.latency_rounds) = (rounds, rounds);
    }
    let settings = setup::settings(&[])?;
    let guard = telemetry::init(&settings.telemetry).map_err(|e| Failure::new(e.to_string()).usage())?;
    let shutdown = millrace::shutdown::on_signal().map_err(|e| Failure::new(e.to_string()))?;
    let names = if args.only.is_empty() { Name::all(args.backend) } else { args.only.clone() };
    if let Some(name) = names.iter().find(|name| !name.works_with(args.backend)) {
        let reason =
            format!("--only {}: several instances of a service can share a PostgreSQL database alone", name.as_str());
        return Err(Failure::new(reason).remedy("add --backend postgres").usage());
    }
    let progress = Progress::new(names.len(), context.json);
    let mut bench = Bench {
        backend: args.backend,
        layout: args.layout,
        seed: args.seed,
        sizes,
        folder: Folder::create()?,
        progress,
        tuned: setup::tuned(&context.effective),
        pipeline_rate: None,
    };
    // Refused now, and not by a process that ends while it starts.
    setup::settings(&bench.tuned)?;
    if cfg!(debug_assertions) && !context.json {
        output::note(report::DEBUG_BUILD);
    }
    let measured = tokio::select! {
        measured = measure(&mut bench, &names) => measured,
        () = shutdown.cancelled() => {
            Err(Failure { exit: EXIT_INTERRUPTED, ..Failure::new("interrupted") })
        }
    };
    bench.progress.end();
    guard.shutdown().await;
    let with_logs = |failure: Failure, bench: &mut Bench| {
        failure.remedy(format!("read the logs in {}", bench.folder.keep().display()))
    };
    let (surroundings, parts, failed) = match measured {
        Ok(Measured { surroundings, parts, failed }) => (surroundings, parts, failed),
        Err(failure) if failure.exit == EXIT_INTERRUPTED && !args.keep => return Err(failure),
        Err(failure) => return Err(with_logs(failure, &mut bench)),
    };
    let failed = failed.map(|failure| with_logs(failure, &mut bench));
    let report = Report {
        surroundings,
        parts,
        size: if args.tiny {
            "tiny"
        } else if args.quick {
            "quick"
        } else {
            "full"
        },
        rounds: bench.sizes.rounds,
        seed: args.seed,
        took: started.elapsed(),
        folder: args.keep.then(|| bench.folder.keep()),
    };
    if context.json {
        output::json(&report.to_json());
    } else {
        report.print();
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    Ok(if report.is_consistent() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of a run.
struct Measured {
    surroundings: Surroundings,
    parts: Vec<Part>,
    /// Why the next part could not be measured. What was measured before took long, and is shown.
    failed: Option<Failure>,
}

async fn measure(bench: &mut Bench, names: &[Name]) -> Result<Measured, Failure> {
    let surroundings = Surroundings::look(bench).await?;
    let (mut parts, mut failed) = (Vec::with_capacity(names.len()), None);
    for name in names {
        bench.progress.part(name.as_str());
        match parts::measure(bench, *name).await {
            Ok(part) => parts.push(part),
            Err(failure) if parts.is_empty() => return Err(failure),
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    Ok(Measured { surroundings, parts, failed })
}
