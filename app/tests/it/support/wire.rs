use std::net::SocketAddr;

use testkit::eventually;
use testkit::proxy::{Fault, Proxy};

use super::PATIENCE;

/// The wire between the services and a server, which can be cut, silenced, or taken away.
pub(crate) struct Wire {
    /// `None` while connections are refused.
    proxy: Option<Proxy>,
    address: SocketAddr,
    server: SocketAddr,
}

impl Wire {
    pub(super) async fn to(server: SocketAddr) -> Self {
        let proxy = Proxy::start(server).await.unwrap();
        Self { address: proxy.address(), proxy: Some(proxy), server }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nobody listens any more.
    pub(crate) fn refuse(&mut self) {
        self.proxy = None;
    }

    /// See [`Fault`].
    pub(crate) fn set(&self, fault: Fault) {
        self.proxy.as_ref().unwrap().set(fault);
    }

    /// Everything passes again.
    pub(crate) async fn mend(&mut self) {
        if self.proxy.is_none() {
            let again = || Proxy::start_at(self.address, self.server);
            self.proxy = Some(eventually(PATIENCE, again, "the address to be free again").await);
        }
        self.set(Fault::Pass);
    }
}
