//! The binary as its users run it, against real servers.

mod demo;
