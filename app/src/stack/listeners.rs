//! Every port is bound before any work starts: a taken one is found at once, and named.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::Role;
use crate::failure::Failure;
use crate::settings::Settings;

/// The ports of this process.
#[derive(Debug)]
pub struct Listeners {
    /// The order API, where that role runs.
    pub http: Option<TcpListener>,
    /// Taken by whoever serves it.
    pub ops: Option<TcpListener>,
    pub simulators: Option<SimulatorListeners>,
}

#[derive(Debug)]
pub struct SimulatorListeners {
    pub gateway: TcpListener,
    pub smtp: TcpListener,
    /// Shows received mail over HTTP.
    pub mail: TcpListener,
    pub sms: TcpListener,
}

impl Listeners {
    pub async fn bind(settings: &Settings, roles: &[Role]) -> Result<Self, Failure> {
        let http = match roles.contains(&Role::Order) {
            true => Some(bind("http.listen", settings.http.listen).await?),
            false => None,
        };
        let simulators = match roles.contains(&Role::Simulators) {
            true => Some(SimulatorListeners {
                gateway: bind("simulators.gateway_listen", settings.simulators.gateway_listen).await?,
                smtp: bind("simulators.smtp_listen", settings.simulators.smtp_listen).await?,
                mail: bind("simulators.mail_listen", settings.simulators.mail_listen).await?,
                sms: bind("simulators.sms_listen", settings.simulators.sms_listen).await?,
            }),
            false => None,
        };
        let ops = Some(bind("ops.listen", settings.ops.listen).await?);
        Ok(Self { http, ops, simulators })
    }

    /// Where the order API answers.
    pub fn api_url(&self) -> Option<String> {
        self.http.as_ref().and_then(http_url)
    }

    /// Puts the real addresses into the settings: of ports that were left to the system to choose, and of simulators
    /// that run in this process, for whoever calls them.
    pub fn write_into(&self, settings: &mut Settings) {
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        if let Some(address) = address(&self.http) {
            settings.http.listen = address;
        }
        if let Some(address) = address(&self.ops) {
            settings.ops.listen = address;
        }
        if let Some(simulators) = &self.simulators {
            let set = |target: &mut SocketAddr, listener: &TcpListener| {
                if let Ok(address) = listener.local_addr() {
                    *target = address;
                }
            };
            set(&mut settings.simulators.gateway_listen, &simulators.gateway);
            set(&mut settings.simulators.smtp_listen, &simulators.smtp);
            set(&mut settings.simulators.mail_listen, &simulators.mail);
            set(&mut settings.simulators.sms_listen, &simulators.sms);
            settings.payment.gateway.url = format!("http://{}", settings.simulators.gateway_listen);
            settings.notification.email.url = format!("smtp://{}", settings.simulators.smtp_listen);
            settings.notification.sms.url = format!("http://{}", settings.simulators.sms_listen);
        }
    }
}

fn http_url(listener: &TcpListener) -> Option<String> {
    listener.local_addr().ok().map(|address| format!("http://{address}"))
}

/// Binds one address; the failure names the setting that moves it.
async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let free = SocketAddr::new(address.ip(), address.port().saturating_add(1));
        Failure::new(format!("{setting}: {address} cannot be used: {error}"))
            .remedy(format!("--set {setting}={free}, or end what listens there"))
            .code(millrace::codes::PORT_TAKEN)
    })
}
