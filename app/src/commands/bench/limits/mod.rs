//! What the machine allows, measured in the same run: whoever is as fast as this cannot be faster.

pub mod clients;
pub mod handler;
