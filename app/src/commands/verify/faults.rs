//! What can be broken, and the seeded schedule of when. Pure.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use millrace::crash::{self, Point};
use millrace::local::proxy::Fault;
use simulators::control::Behaviour;

use super::Backend;
use super::sabotage::Safety;
use crate::stack::Role;

/// Whether `--faults all` rolls the store of NATS back.
const POWER_LOSS_IN_ALL: bool = true;

/// The services that are broken. The simulators never are: they are the outside world, and their ledgers are evidence.
pub const VICTIMS: [Role; 4] = [Role::Order, Role::Payment, Role::Inventory, Role::Notification];

/// Kinds of faults, as they are named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Kill,
    KillNats,
    KillPostgres,
    Pause,
    PauseNats,
    Network,
    Gateway,
    Mail,
    PowerLoss,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Kill,
        Self::KillNats,
        Self::KillPostgres,
        Self::Pause,
        Self::PauseNats,
        Self::Network,
        Self::Gateway,
        Self::Mail,
        Self::PowerLoss,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillNats => "kill-nats",
            Self::KillPostgres => "kill-postgres",
            Self::Pause => "pause",
            Self::PauseNats => "pause-nats",
            Self::Network => "network",
            Self::Gateway => "gateway",
            Self::Mail => "mail",
            Self::PowerLoss => "power-loss",
        }
    }
}

/// Which kinds of faults a run has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kinds(pub Vec<Kind>);

/// As they are given on the command line.
impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("none"),
            kinds => f.write_str(&kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",")),
        }
    }
}

impl FromStr for Kinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Kind::ALL.map(Kind::name).join(", ");
        match text.trim() {
            "none" => Ok(Self(Vec::new())),
            "all" => {
                Ok(Self(Kind::ALL.into_iter().filter(|kind| POWER_LOSS_IN_ALL || *kind != Kind::PowerLoss).collect()))
            }
            list => {
                let find = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name.trim());
                let kinds = list.split(',').map(|name| {
                    find(name)
                        .ok_or_else(|| format!("{name:?} is no kind of fault; use all, none, or some of {}", known()))
                });
                kinds.collect::<Result<_, _>>().map(Self)
            }
        }
    }
}

/// A wire with a proxy on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    Nats(Role),
    Database(Role),
    /// payment to its gateway
    Gateway,
    /// notification to its mail server
    Smtp,
    /// notification to its SMS provider
    Sms,
    /// customers to the order API
    Customers,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats(role) => write!(f, "{} to NATS", role.name()),
            Self::Database(role) => write!(f, "{} to its database", role.name()),
            Self::Gateway => f.write_str("payment to the gateway"),
            Self::Smtp => f.write_str("notification to the mail server"),
            Self::Sms => f.write_str("notification to the SMS provider"),
            Self::Customers => f.write_str("customers to the order API"),
        }
    }
}

/// One thing to break.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Injection {
    /// SIGKILL, and start again after `down`.
    Kill {
        service: Role,
        manner: Manner,
        down: Duration,
    },
    KillNats {
        down: Duration,
    },
    KillPostgres {
        down: Duration,
    },
    /// SIGSTOP, and SIGCONT after `during`.
    Pause {
        service: Role,
        during: Duration,
    },
    PauseNats {
        during: Duration,
    },
    Network {
        link: Link,
        fault: Fault,
        during: Duration,
    },
    Gateway {
        mode: Behaviour,
        during: Duration,
    },
    Mail {
        mode: Behaviour,
        during: Duration,
    },
    /// What NATS stored in the last `rewind` before it was killed is gone.
    PowerLoss {
        rewind: Duration,
    },
}

/// How a service is killed. One that is killed at an idle moment loses nothing; these make sure that it has something to
/// lose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// Out of the blue.
    Plain,
    /// After it stood still for so long: what the broker gave it meanwhile comes again late, behind newer messages.
    Frozen(Duration),
    /// After one of its wires was bad for so long: it is full of work that it cannot finish.
    CutOff { link: Link, fault: Fault, since: Duration },
    /// So many times, each so long after its start: while it catches up with what it has missed.
    Again { times: u32, after: Duration },
    /// By itself, when it comes to this crash point for the `nth` time after a restart; after [`REACH_LIMIT`] anyway.
    At { point: &'static str, nth: u32 },
}

/// A service that does not come to a crash point within this time has nothing to do.
pub const REACH_LIMIT: Duration = Duration::from_secs(4);

/// What is broken by an injection; two at once would undo each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Service(Role),
    Nats,
    Postgres,
    Link(Link),
    Gateway,
    Mail,
}

/// An injection and its time after the first order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    pub at: Duration,
    pub what: Injection,
}

impl Injection {
    /// For counting: `kill payment`, `lose_answers on payment to the gateway`.
    pub fn name(&self) -> String {
        match self {
            Self::Kill { service, manner, .. } => {
                let service = service.name();
                match manner {
                    Manner::Plain => format!("SIGKILL {service}"),
                    Manner::Frozen(_) => format!("SIGSTOP, then SIGKILL {service}"),
                    Manner::CutOff { link, fault, .. } => {
                        format!("network {}: {link}, then SIGKILL {service}", fault_name(*fault))
                    }
                    Manner::Again { .. } => format!("SIGKILL {service} again and again"),
                    Manner::At { point, .. } => format!("SIGKILL {service} at {point}"),
                }
            }
            Self::KillNats { .. } => "SIGKILL nats-server".into(),
            Self::KillPostgres { .. } => "SIGKILL PostgreSQL".into(),
            Self::Pause { service, .. } => format!("SIGSTOP {}", service.name()),
            Self::PauseNats { .. } => "SIGSTOP nats-server".into(),
            Self::Network { link, fault, .. } => format!("network {}: {link}", fault_name(*fault)),
            Self::Gateway { mode, .. } => format!("gateway: {}", mode_name(*mode)),
            Self::Mail { mode, .. } => format!("mail server: {}", mode_name(*mode)),
            Self::PowerLoss { .. } => "power loss of NATS".into(),
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::Kill { service, manner: Manner::CutOff { link, .. }, .. } => {
                vec![Target::Service(*service), Target::Link(*link)]
            }
            other => vec![other.target()],
        }
    }

    fn target(&self) -> Target {
        match self {
            Self::Kill { service, .. } | Self::Pause { service, .. } => Target::Service(*service),
            Self::KillNats { .. } | Self::PauseNats { .. } | Self::PowerLoss { .. } => Target::Nats,
            Self::KillPostgres { .. } => Target::Postgres,
            Self::Network { link, .. } => Target::Link(*link),
            Self::Gateway { .. } => Target::Gateway,
            Self::Mail { .. } => Target::Mail,
        }
    }

    /// How long its target is left alone: the fault, and time for something to go on before the next.
    fn occupies(&self) -> Duration {
        let recovers = Duration::from_millis(match self.target() {
            Target::Service(_) | Target::Nats | Target::Postgres => 3_000,
            Target::Link(_) | Target::Gateway | Target::Mail => 1_000,
        });
        recovers
            + match self {
                Self::Kill { manner, down, .. } => {
                    *down
                        + match manner {
                            Manner::Plain => Duration::ZERO,
                            Manner::Frozen(during) => *during,
                            Manner::CutOff { since, .. } => *since,
                            Manner::Again { times, after } => (*after + *down) * *times,
                            Manner::At { .. } => REACH_LIMIT,
                        }
                }
                Self::KillNats { down } | Self::KillPostgres { down } => *down,
                Self::Pause { during, .. }
                | Self::PauseNats { during }
                | Self::Network { during, .. }
                | Self::Gateway { during, .. }
                | Self::Mail { during, .. } => *during,
                // Copying and starting take their time, too.
                Self::PowerLoss { rewind } => *rewind * 2,
            }
    }
}

fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Pass => "passes",
        Fault::Delay { .. } => "delays",
        Fault::Cut => "cut",
        Fault::BlackHole => "swallows",
        Fault::LoseAnswers { .. } => "loses answers",
    }
}

/// As the control plane of the simulators writes it.
pub fn mode_name(mode: Behaviour) -> &'static str {
    match mode {
        Behaviour::Ok => "ok",
        Behaviour::Down => "down",
        Behaviour::Errors => "errors",
        Behaviour::Timeout => "timeout",
        Behaviour::LoseAnswers => "lose_answers",
    }
}

/// Faults begin this far apart: often enough that they overlap, seldom enough that work goes on in between.
const GAP_MS: std::ops::Range<u64> = 200..1_000;
/// So long nothing is broken at the beginning, to have something to break.
const CALM: Duration = Duration::from_secs(1);

/// When to break what while orders are placed, for `length`: what one safety is there for, or everything of these kinds.
/// The same seed gives the same schedule.
pub fn schedule(seed: u64, length: Duration, kinds: &Kinds, backend: Backend, focus: Option<Safety>) -> Vec<Planned> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x6661_756c_7473);
    let mut busy: HashMap<Target, Duration> = HashMap::new();
    let mut deck = Vec::new();
    let mut planned = Vec::new();
    let mut at = CALM;
    while at < length {
        if deck.is_empty() {
            deck = match focus {
                None => new_deck(&mut rng, kinds, backend),
                Some(safety) => safety.deck(&mut rng),
            };
        }
        // The next card whose target is whole again; every card is played before the deck is shuffled anew.
        let free = |what: &Injection| what.targets().iter().all(|one| busy.get(one).is_none_or(|until| *until <= at));
        if let Some(found) = deck.iter().position(free) {
            let what = deck.remove(found);
            busy.extend(what.targets().into_iter().map(|one| (one, at + what.occupies())));
            planned.push(Planned { at, what });
        } else if deck.is_empty() {
            return planned;
        }
        at += millis(rng.u64(GAP_MS));
    }
    planned
}

/// One of everything.
fn new_deck(rng: &mut fastrand::Rng, kinds: &Kinds, backend: Backend) -> Vec<Injection> {
    let mut deck = Vec::new();
    for kind in &kinds.0 {
        let mut between = |from: u64, to: u64| millis(rng.u64(from..=to));
        match kind {
            Kind::Kill => {
                for service in VICTIMS.into_iter().chain(VICTIMS) {
                    let manner = match between(0, 5).as_millis() {
                        0 => Manner::Plain,
                        1 => Manner::Frozen(between(300, 2_500)),
                        2 => Manner::Again { times: 3, after: between(250, 1_200) },
                        3 => at_a_point(service, &mut between),
                        _ => cut_off(service, backend, &mut between),
                    };
                    deck.push(Injection::Kill { service, manner, down: between(50, 1_500) });
                }
            }
            Kind::KillNats => deck.push(Injection::KillNats { down: between(100, 2_000) }),
            Kind::KillPostgres if backend == Backend::Postgres => {
                deck.push(Injection::KillPostgres { down: between(100, 2_000) });
            }
            Kind::KillPostgres => {}
            Kind::Pause => {
                deck.extend(VICTIMS.map(|service| Injection::Pause { service, during: between(500, 5_000) }));
            }
            Kind::PauseNats => deck.push(Injection::PauseNats { during: between(500, 4_000) }),
            Kind::Network => {
                deck.extend(links(backend).into_iter().map(|link| {
                    let fault = match between(0, 3).as_millis() {
                        0 => Fault::Delay { by: between(20, 200), jitter: between(10, 200) },
                        1 => Fault::Cut,
                        2 => Fault::BlackHole,
                        _ => Fault::LoseAnswers { cut_after: between(200, 1_500) },
                    };
                    Injection::Network { link, fault, during: between(300, 3_000) }
                }));
            }
            Kind::Gateway => {
                let modes = [Behaviour::Errors, Behaviour::Timeout, Behaviour::LoseAnswers, Behaviour::Down];
                deck.extend(modes.map(|mode| Injection::Gateway { mode, during: between(300, 3_000) }));
            }
            Kind::Mail => {
                let modes = [Behaviour::Errors, Behaviour::LoseAnswers, Behaviour::Down];
                deck.extend(modes.map(|mode| Injection::Mail { mode, during: between(300, 3_000) }));
            }
            Kind::PowerLoss => deck.push(Injection::PowerLoss { rewind: between(1_000, 4_000) }),
        }
    }
    rng.shuffle(&mut deck);
    deck
}

/// Crash points that every service comes to all the time.
static ON_EVERY_WAY: [&Point; 6] = [
    &crash::BEFORE_EFFECT,
    &crash::BEFORE_COMMIT,
    &crash::AFTER_COMMIT,
    &crash::AFTER_PUBLISH,
    &crash::AFTER_MARKED,
    &crash::AFTER_EFFECT_BEFORE_ACK,
];

/// The service is killed at the very moment when something is half done.
fn at_a_point(service: Role, between: &mut impl FnMut(u64, u64) -> Duration) -> Manner {
    let own = match service {
        Role::Payment => payment::under_test::ALL,
        Role::Notification => notification::under_test::ALL,
        Role::Order | Role::Inventory | Role::Simulators => &[],
    };
    let points: Vec<_> = ON_EVERY_WAY.iter().chain(own).map(|point| point.name()).collect();
    let drawn = between(0, points.len() as u64 - 1).as_millis() as usize;
    let point = points.get(drawn).copied().unwrap_or(crash::BEFORE_COMMIT.name());
    Manner::At { point, nth: between(1, 6).as_millis() as u32 }
}

/// One of the wires of a service goes bad, and then the service is killed.
fn cut_off(service: Role, backend: Backend, between: &mut impl FnMut(u64, u64) -> Duration) -> Manner {
    let mut wires = vec![Link::Nats(service)];
    wires.extend((backend == Backend::Postgres).then_some(Link::Database(service)));
    match service {
        Role::Order => wires.push(Link::Customers),
        Role::Payment => wires.push(Link::Gateway),
        Role::Notification => wires.push(Link::Smtp),
        Role::Inventory | Role::Simulators => {}
    }
    let drawn = between(0, wires.len() as u64 - 1).as_millis() as usize;
    let fault = match between(0, 2).as_millis() {
        0 => Fault::Cut,
        1 => Fault::BlackHole,
        // Never over before the service is killed.
        _ => Fault::LoseAnswers { cut_after: Duration::from_secs(60) },
    };
    let link = wires.get(drawn).copied().unwrap_or(Link::Nats(service));
    Manner::CutOff { link, fault, since: between(200, 2_000) }
}

/// Every wire there is. SQLite has none.
pub fn links(backend: Backend) -> Vec<Link> {
    let databases = VICTIMS.map(Link::Database).into_iter().filter(|_| backend == Backend::Postgres);
    let others = [Link::Gateway, Link::Smtp, Link::Sms, Link::Customers];
    VICTIMS.map(Link::Nats).into_iter().chain(databases).chain(others).collect()
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(seed: u64, seconds: u64, kinds: &str) -> Vec<Planned> {
        schedule(seed, Duration::from_secs(seconds), &kinds.parse().unwrap(), Backend::Postgres, None)
    }

    #[test]
    fn the_same_seed_breaks_the_same_things_at_the_same_times_and_another_does_not() {
        assert_eq!(plan(1, 60, "all"), plan(1, 60, "all"));
        assert_ne!(plan(1, 60, "all"), plan(2, 60, "all"));
        assert!(plan(1, 60, "none").is_empty());
    }

    #[test]
    fn within_a_minute_every_service_is_killed_and_stopped_and_every_wire_is_bad() {
        let planned = plan(7, 60, "all");
        let names: BTreeSet<_> = planned.iter().map(|planned| format!("{:?}", planned.what.target())).collect();
        assert_eq!(names.len(), VICTIMS.len() + links(Backend::Postgres).len() + 4, "{names:?}");
        for service in VICTIMS {
            let killed =
                |one: &&Planned| matches!(one.what, Injection::Kill { service: victim, .. } if victim == service);
            assert!(planned.iter().filter(killed).count() >= 2, "{}", service.name());
        }
    }

    #[test]
    fn nothing_is_broken_while_it_is_broken() {
        for seed in 0..20 {
            let planned = plan(seed, 120, "kill,pause,kill-nats,pause-nats,network,power-loss");
            for (n, one) in planned.iter().enumerate() {
                for other in &planned[n + 1..] {
                    let apart = other.at >= one.at + one.what.occupies();
                    let other_targets = other.what.targets();
                    let shared = one.what.targets().iter().any(|target| other_targets.contains(target));
                    assert!(apart || !shared, "{one:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones() {
        for list in ["none", "kill", "kill,network,power-loss"] {
            assert_eq!(list.parse::<Kinds>().unwrap().to_string(), list);
        }
        let error = "kill,earthquake".parse::<Kinds>().unwrap_err();
        assert!(error.contains("earthquake") && error.contains("kill-nats"), "{error}");
    }
}
