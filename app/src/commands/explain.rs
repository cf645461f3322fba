//! `millrace explain`: what an error code means and what to do, without any server or network.

use std::process::ExitCode;

use millrace::codes;
use serde_json::json;

use crate::failure::{CommandResult, Failure};
use crate::output;

pub fn run(code: Option<&str>, as_json: bool) -> CommandResult {
    match code {
        None if as_json => {
            output::json(&codes::ALL.iter().map(|c| json!({"code": c.code, "title": c.title()})).collect::<Vec<_>>())
        }
        None => {
            output::table(&["CODE", "TITLE"], codes::ALL.iter().map(|c| vec![c.code.to_owned(), c.title().to_owned()]))
        }
        Some(asked) => {
            let found = codes::lookup(asked).ok_or_else(|| {
                Failure::new(format!("there is no error code {asked}")).remedy("millrace explain").usage()
            })?;
            if as_json {
                output::json(&json!({"code": found.code, "title": found.title(), "page": found.page}));
            } else {
                output::line(found.page);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
