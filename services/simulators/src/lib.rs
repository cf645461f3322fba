//! Stand-ins for the outside world: a payment gateway that speaks Stripe's PaymentIntents, a mail server, an SMS
//! provider.
//!
//! They exist so that `cargo run` needs nothing outside the machine, and so that the hard cases (an answer that is lost
//! after the card was charged, a provider that is down for a minute) can be produced at will and looked at afterwards.
//! Each is a real server on a listener it is handed, keeps everything in memory, and stops when its token is cancelled.
//!
//! Every one of them has `/livez` and a control plane, [`control`]: `GET` and `PUT /_control/mode`. The control plane
//! has no authentication: these servers belong on a developer's machine or inside a test network, nowhere else.

pub mod control;
pub mod gateway;
pub mod mail;
pub mod sms;

mod bounded;
mod hangup;
mod http;
