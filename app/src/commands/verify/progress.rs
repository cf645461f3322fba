//! What is going on, for whoever watches: one line on a terminal, a line now and then elsewhere, nothing for programs.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::customers::Customers;
use super::gather::Gatherer;
use super::inject::Injector;
use crate::output;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// What the line is made of.
pub struct Watched {
    pub orders: u32,
    pub customers: Arc<Customers>,
    pub injector: Arc<Injector>,
    pub gatherer: Arc<Gatherer>,
}

/// Tells until `stop`.
pub async fn tell(watched: Watched, phase: watch::Receiver<&'static str>, quiet: bool, stop: CancellationToken) {
    if quiet {
        return;
    }
    let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
    if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{spinner} {msg}")) {
        bar.set_style(style);
    }
    let begun = Instant::now();
    let every = if bar.is_some() { REFRESH_EVERY } else { LINE_EVERY };
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => break,
        }
        let Watched { orders, customers, injector, gatherer } = &watched;
        let accepted = customers.counts.accepted.load(Ordering::Relaxed);
        let faults: u64 = injector.counts().values().sum();
        // A database that is being killed says nothing.
        let ended = gatherer.progress().await.map_or("?".to_owned(), |(ended, _)| ended.to_string());
        let line = format!(
            "{:<8} {:>4.0} s   accepted {accepted}/{orders}   ended {ended}   faults {faults}",
            *phase.borrow(),
            begun.elapsed().as_secs_f64()
        );
        match &bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => output::note(&line),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}
