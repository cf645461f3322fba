//! The toolkit against real servers.

mod support;

mod connection;
mod request_reply;
mod topology;
