//! `millrace demo`: the story of this system, told by real orders on real servers in a temporary world of its own.
//!
//! | where | what |
//! | --- | --- |
//! | `story/` | the scenarios, one file each |
//! | `scenario` | what a scenario is, and how one that does not hold says so |
//! | `world/` | what a scenario acts on and looks at: the API, and behind its back the gateway's ledger, mail, stock, dead letters |
//! | `trial` | one telling of a scenario: what it placed, saw and checked |
//! | `stage` | tells them, side by side where they do not disturb each other |
//! | `report` | what it comes to |
//! | `setup` | the temporary folder, settings and database |

mod report;
mod scenario;
mod setup;
mod stage;
mod story;
mod trial;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use millrace::config::{HumanDuration, Origin, reference};
use millrace::telemetry;
use tokio_util::sync::CancellationToken;

use self::report::Report;
use self::setup::{Backend, Folder};
use self::trial::Told;
use self::world::World;
use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::output;
use crate::settings::{self, Settings};
use crate::stack::{LocalOptions, LocalStack};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the services keep their data
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    backend: Backend,
    /// How long each scenario may take
    #[arg(long, default_value = "15s", value_name = "DURATION")]
    patience: HumanDuration,
    /// Keep the folder with databases, streams and logs. It is kept anyway when a scenario fails
    #[arg(long)]
    keep: bool,
    /// Show the services' log on standard error, too
    #[arg(long)]
    verbose: bool,
}

/// What a shell reports for a process ended by Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;

pub async fn run(context: Context, args: Args) -> CommandResult {
    let started = Instant::now();
    let folder = Folder::create()?;
    let log = folder.path().join("millrace.log");
    let settings = setup::settings(folder.path(), context.settings.telemetry.clone(), &log, args.verbose)?;
    let guard = telemetry::init(&settings.telemetry).map_err(|e| Failure::new(e.to_string()).usage())?;
    let shutdown = millrace::shutdown::on_signal().map_err(|e| Failure::new(e.to_string()))?;
    if !context.json {
        mention_unused_settings(&context);
    }
    let performed = perform(&context, &args, &folder, settings, shutdown).await;
    guard.shutdown().await;
    let Performed { told, problem } = match performed {
        Ok(performed) => performed,
        Err(failure) if failure.exit == EXIT_INTERRUPTED && !args.keep => return Err(failure),
        Err(failure) => {
            folder.keep();
            return Err(with_log(failure, &log));
        }
    };
    let mut report = Report { backend: args.backend, took: started.elapsed(), folder: None, problem, told };
    if args.keep || !report.passed() {
        report.folder = Some(folder.keep());
    }
    if context.json {
        output::json(&report.to_json());
    } else {
        report.print();
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of the story.
struct Performed {
    told: Vec<Told>,
    /// What went wrong beside the scenarios.
    problem: Option<String>,
}

/// Sets the world up, tells the story, and takes the world down again whatever came of it.
async fn perform(
    context: &Context,
    args: &Args,
    folder: &Folder,
    mut settings: Settings,
    shutdown: CancellationToken,
) -> Result<Performed, Failure> {
    let as_json = context.json;
    let progress = move |text: &str| {
        if !as_json {
            output::note(text);
        }
    };
    let postgres = setup::database(args.backend, folder, &mut settings, progress).await?;
    let options =
        LocalOptions { data_dir: folder.path().to_owned(), external_nats: false, nats_port: 0, nats_monitor_port: 0 };
    let mut stack = LocalStack::start(settings, options, shutdown.clone(), progress).await?;
    let told = match World::open(&mut stack, &story::all()).await {
        Ok(world) => {
            if !as_json {
                introduce(&world, args, folder.path());
            }
            let told = tokio::select! {
                told = stage::tell(&world, args.patience, as_json) => Ok(told),
                () = shutdown.cancelled() => Err(Failure { exit: EXIT_INTERRUPTED, ..Failure::new("interrupted") }),
            };
            // Before the services stop: what they have begun needs the broker to end.
            stack.nats = world.close().await;
            told
        }
        Err(failure) => Err(failure),
    };
    let stopped = stack.stop().await;
    if let Some(mut postgres) = postgres {
        postgres.stop().await;
    }
    Ok(Performed { told: told?, problem: stopped.err().map(|failure| failure.message) })
}

fn introduce(world: &World, args: &Args, folder: &Path) {
    let shortened: Vec<_> = setup::SHORTENED.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let lines = [
        format!("{} scenarios on real servers, in a world of their own:", story::all().len()),
        format!("  order API {}, nats-server {}, {}", world.api_url, world.settings.nats.url, args.backend),
        "  payment gateway and mail server are simulated, and asked what they saw".to_owned(),
        format!("  log and data in {}", folder.display()),
        "  made shorter than usual, so that nobody has to wait:".to_owned(),
    ];
    lines.iter().for_each(|line| output::line(line));
    shortened.chunks(4).for_each(|some| output::line(&format!("    {}", some.join("   "))));
    output::line("");
}

/// A user who set something should not think that the demo showed its effect.
fn mention_unused_settings(context: &Context) {
    let known = reference(settings::DEFAULTS, "MILLRACE").unwrap_or_default();
    for name in known.iter().map(|setting| setting.name.as_str()).filter(|name| !name.starts_with("telemetry.")) {
        if let Some(origin) = context.effective.origin(name).filter(|origin| **origin != Origin::BuiltIn) {
            output::note(&format!("The demo has settings of its own: {name} of {origin} is not used."));
        }
    }
}

fn with_log(failure: Failure, log: &Path) -> Failure {
    let remedy = failure.remedy.iter().cloned().chain([format!("read {}", log.display())]);
    let remedy = remedy.collect::<Vec<_>>().join("; ");
    failure.remedy(remedy)
}
