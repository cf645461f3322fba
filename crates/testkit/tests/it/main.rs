//! The promises of `millrace::local` and of this crate, kept against real servers.

#![expect(clippy::expect_used, reason = "what a helper expects fails the test it helps")]

mod guard;
mod nats;
mod postgres;
mod process;
mod provision;
mod proxy;
mod waiting;

use rustix::process::{Pid, test_kill_process};

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).expect("a process id")).expect("a process id")
}

/// Whether a process exists that is not merely waiting to be collected.
fn is_alive(number: u32) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{number}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')));
    test_kill_process(pid(number)).is_ok() && !zombie
}
