//! Processor time and memory of processes, as Linux shows them in /proc. Elsewhere there is nothing to show.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

/// Units of the times in /proc/PID/stat: `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);
/// Fields of /proc/PID/stat behind the name, counted from 0: utime, stime, and the same of children that have ended.
const TIMES: usize = 11;
const PARENT: usize = 1;

/// One part of an installation: its processes under one name.
#[derive(Debug, Clone)]
pub struct Component {
    pub name: String,
    pub pids: Vec<u32>,
    /// Whether children count too, as for a server that starts one process for each connection.
    pub with_children: bool,
}

/// What a component took while something was measured.
#[derive(Debug, Clone)]
pub struct Spent {
    pub name: String,
    pub cpu: Duration,
    /// As much of it as the kernel took on behalf of the process: network and disk, mostly.
    pub in_kernel: Duration,
    /// Microseconds of processor time for each order; `None` where there were none.
    pub per_order_us: Option<f64>,
    pub rss_mb: f64,
    /// The most it ever had.
    pub peak_mb: f64,
}

/// Processor time since it was started.
pub struct Meter(Vec<(Component, Times)>);

/// In the process itself, and in the kernel on its behalf.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    user: Duration,
    kernel: Duration,
}

impl Meter {
    pub fn start(components: Vec<Component>) -> Self {
        Self(components.into_iter().map(|component| (component.clone(), times(&component))).collect())
    }

    pub fn stop(&self, orders: u64) -> Vec<Spent> {
        let spent = |(component, before): &(Component, Times)| {
            let now = times(component);
            let in_kernel = now.kernel.saturating_sub(before.kernel);
            let cpu = now.user.saturating_sub(before.user) + in_kernel;
            let (rss_kb, peak_kb) = memory(component);
            Spent {
                name: component.name.clone(),
                cpu,
                in_kernel,
                per_order_us: (orders > 0).then(|| cpu.as_secs_f64() * 1e6 / orders as f64),
                rss_mb: rss_kb as f64 / 1_024.0,
                peak_mb: peak_kb as f64 / 1_024.0,
            }
        };
        self.0.iter().map(spent).collect()
    }
}

impl Spent {
    pub fn to_json(&self) -> Value {
        json!({
            "process": self.name,
            "cpu": { "value": self.cpu.as_secs_f64(), "unit": "s" },
            "cpu_in_kernel": { "value": self.in_kernel.as_secs_f64(), "unit": "s" },
            "cpu_per_order": { "value": self.per_order_us, "unit": "us" },
            "rss": { "value": self.rss_mb, "unit": "MB" },
            "rss_peak": { "value": self.peak_mb, "unit": "MB" },
        })
    }
}

/// What all of them took for an order.
pub fn per_order_us(spent: &[Spent]) -> f64 {
    spent.iter().filter_map(|spent| spent.per_order_us).sum()
}

fn times(component: &Component) -> Times {
    let all = processes(component).into_iter().filter_map(stat).map(|fields| {
        let field = |at: usize| {
            let ticks = fields.get(TIMES + at).and_then(|field| field.parse::<u32>().ok());
            TICK * ticks.unwrap_or(0)
        };
        let ended = if component.with_children { (field(2), field(3)) } else { Default::default() };
        Times { user: field(0) + ended.0, kernel: field(1) + ended.1 }
    });
    all.fold(Times::default(), |sum, one| Times { user: sum.user + one.user, kernel: sum.kernel + one.kernel })
}

/// Resident kilobytes now and at most.
fn memory(component: &Component) -> (u64, u64) {
    let of = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        (field("VmRSS:"), field("VmHWM:"))
    };
    processes(component).iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn processes(component: &Component) -> Vec<u32> {
    let mut pids = component.pids.clone();
    if component.with_children {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_child = |pid: &u32| {
            let parent = stat(*pid).and_then(|fields| fields.get(PARENT)?.parse().ok());
            parent.is_some_and(|parent| component.pids.contains(&parent))
        };
        pids.extend(all.filter(is_child).collect::<Vec<_>>());
    }
    pids
}

/// The fields behind the name, which is in parentheses and may contain anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_processor_time_and_memory() {
        let this = Component { name: "this".into(), pids: vec![std::process::id()], with_children: false };
        let meter = Meter::start(vec![this]);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let mut spent = meter.stop(1);
        while spent[0].cpu < Duration::from_millis(50) && std::time::Instant::now() < deadline {
            std::hint::black_box((0..100_000_u64).map(|n| n.wrapping_mul(n)).sum::<u64>());
            spent = meter.stop(1);
        }
        assert!(spent[0].cpu >= Duration::from_millis(50), "{spent:?}");
        assert!(spent[0].rss_mb > 1.0 && spent[0].peak_mb >= spent[0].rss_mb, "{spent:?}");
        assert_eq!(spent[0].per_order_us, Some(spent[0].cpu.as_secs_f64() * 1e6));
    }
}
