use millrace::kit::KitParts;
use tokio::net::TcpListener;

use crate::settings::Settings;

/// What a process can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    Order,
    Payment,
    Inventory,
    Notification,
    /// Payment gateway, mail server and SMS provider that stand in for the outside world
    Simulators,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Simulators, Self::Order, Self::Payment, Self::Inventory, Self::Notification];

    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Inventory => "inventory",
            Self::Notification => "notification",
            Self::Simulators => "simulators",
        }
    }

    /// Runs a service until its shutdown. The error says what an operator has to know.
    pub(super) async fn run(self, kit: KitParts, settings: Settings, http: Option<TcpListener>) -> Result<(), String> {
        let result = match self {
            Self::Order => {
                let Some(http) = http else { return Err("order: there is no listener for its API".into()) };
                order::run(order::Parts { kit, settings: settings.order, http }).await
            }
            Self::Payment => payment::run(payment::Parts { kit, settings: settings.payment }).await,
            Self::Inventory => inventory::run(inventory::Parts { kit, settings: settings.inventory }).await,
            Self::Notification => notification::run(notification::Parts { kit, settings: settings.notification }).await,
            Self::Simulators => Ok(()),
        };
        match result {
            Err(error @ millrace::kit::Error::StoppedBeforeStart { .. }) => {
                tracing::info!("{error}");
                Ok(())
            }
            other => other.map_err(|error| error.to_string()),
        }
    }
}
