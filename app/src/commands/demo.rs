//! STUB until the demo lands.
#[derive(Debug, clap::Args)]
pub struct Args {}
pub async fn run(_: super::Context, _: Args) -> crate::failure::CommandResult { Err(crate::failure::Failure::new("not yet")) }
