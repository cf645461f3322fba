use tokio::sync::watch;

/// Which older versions are not published any more beside the newest. A version nobody reads is retired here, not in code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired(pub Vec<(String, u32)>);

impl Retired {
    pub fn contains(&self, event_type: &str, version: u32) -> bool {
        self.0.iter().any(|(t, v)| t == event_type && *v == version)
    }
}

/// What is retired at this moment; may change while a service runs. Whoever asks gets a set that was decided as one.
#[derive(Debug, Clone)]
pub struct RetiredNow(watch::Receiver<Retired>);

impl RetiredNow {
    pub fn get(&self) -> Retired {
        self.0.borrow().clone()
    }
}

impl From<watch::Receiver<Retired>> for RetiredNow {
    fn from(following: watch::Receiver<Retired>) -> Self {
        Self(following)
    }
}

impl From<Retired> for RetiredNow {
    fn from(fixed: Retired) -> Self {
        Self(watch::channel(fixed).1)
    }
}
