//! What is going on, for whoever watches: a bar on a terminal, a line for each part elsewhere, nothing for programs.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Progress {
    pub fn new(parts: usize, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| ProgressBar::new(parts as u64));
        if let (Some(bar), Ok(style)) =
            (&bar, ProgressStyle::with_template("{spinner} [{bar:20}] {pos}/{len} {elapsed} {prefix} {msg}"))
        {
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, quiet }
    }

    pub fn part(&self, name: &str) {
        match &self.bar {
            Some(bar) => {
                if !bar.prefix().is_empty() {
                    bar.inc(1);
                }
                bar.set_prefix(name.to_owned());
            }
            None if !self.quiet => output::note(&format!("measuring {name}")),
            None => {}
        }
    }

    pub fn step(&self, what: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.into());
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
