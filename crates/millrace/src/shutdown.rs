//! The end of a process: a signal asks for it, work in hand is finished, and one hard deadline bounds it all.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process ended by Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;

/// Work was still not finished at the hard deadline and was dropped. Nothing is lost by that: what was not acknowledged is
/// delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work in hand was not finished within {} s of the request to stop", .0.as_secs_f64())]
pub struct DrainTimedOut(pub Duration);

/// A token that is cancelled by the first SIGTERM or SIGINT. The second one ends the process at once with code 130, for a
/// person who does not want to wait.
///
/// Must be called within a tokio runtime. Fails when the handlers cannot be installed.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let first = either(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = first, "Stopping: finishing the work in hand. A second signal stops at once.");
        cancelled.cancel();
        let second = either(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = second, "Stopped at once on a second signal.");
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(token)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Runs `work`. Once `shutdown` is cancelled, `work` (which is expected to watch it too) has `hard_deadline` to end; after
/// that it is dropped.
pub async fn drain<T>(
    shutdown: &CancellationToken,
    hard_deadline: Duration,
    work: impl Future<Output = T>,
) -> Result<T, DrainTimedOut> {
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return Ok(done),
        () = shutdown.cancelled() => {}
    }
    tokio::time::timeout(hard_deadline, work).await.map_err(|_| DrainTimedOut(hard_deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_signal_cancels_the_token() {
        let token = on_signal().unwrap();
        let sent =
            std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
        assert!(sent.success());
        tokio::time::timeout(Duration::from_secs(5), token.cancelled()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_is_not_cut_short() {
        let shutdown = CancellationToken::new();
        let long = tokio::time::sleep(Duration::from_secs(3600));
        assert_eq!(drain(&shutdown, DEADLINE, long).await, Ok(()));
        shutdown.cancel();
        assert_eq!(drain(&shutdown, DEADLINE, async { 7 }).await, Ok(7));
        let in_time = tokio::time::sleep(Duration::from_secs(9));
        assert_eq!(drain(&shutdown, DEADLINE, in_time).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_end_is_dropped_at_the_deadline() {
        let shutdown = CancellationToken::new();
        let started = tokio::time::Instant::now();
        let canceller = shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            canceller.cancel();
        });
        let outcome = drain(&shutdown, DEADLINE, std::future::pending::<()>()).await;
        assert_eq!(outcome, Err(DrainTimedOut(DEADLINE)));
        assert_eq!(started.elapsed(), Duration::from_secs(15));
    }
}
