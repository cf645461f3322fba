//! Readiness and liveness: what a service needs, and whether it has it. (Draft by the lead to unblock; H3 may replace.)

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// State of all components of a process.
#[derive(Clone, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<String, Status>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Ready,
    NotReady(String),
    Dead(String),
}

/// One component's own view.
#[derive(Clone)]
pub struct Component {
    name: String,
    health: Health,
}

impl Health {
    pub fn component(&self, name: &str) -> Component {
        Component { name: name.to_owned(), health: self.clone() }
    }
}

impl Component {
    fn set(&self, status: Status) {
        self.health.components.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name.clone(), status);
    }
    pub fn ready(&self) {
        self.set(Status::Ready);
    }
    pub fn not_ready(&self, why: &str) {
        self.set(Status::NotReady(why.to_owned()));
    }
    pub fn dead(&self, why: &str) {
        self.set(Status::Dead(why.to_owned()));
    }
}
