//! A body in the user's own editor.

use std::io::Write;
use std::process::Command;

use super::json_text;
use crate::failure::Failure;

/// The body as the user left it.
pub async fn edited(id: u64, body: &[u8]) -> Result<Vec<u8>, Failure> {
    let text = std::str::from_utf8(body).map_err(|_| {
        Failure::new(format!("the body of dead letter {id} is no text"))
            .remedy("write it to a file, correct it there, and replay with --body FILE")
            .usage()
    })?;
    let shown = json_text::pretty(text).unwrap_or_else(|| text.to_owned());
    let editing = tokio::task::spawn_blocking(move || in_editor(id, shown));
    editing.await.map_err(|panic| Failure::new(panic.to_string()))?
}

fn in_editor(id: u64, shown: String) -> Result<Vec<u8>, Failure> {
    let no_file = |error: std::io::Error| Failure::new(format!("no file can be made to edit: {error}"));
    let mut file =
        tempfile::Builder::new().prefix(&format!("dead-letter-{id}-")).suffix(".json").tempfile().map_err(no_file)?;
    writeln!(file, "{shown}").map_err(no_file)?;
    let named = |name: &str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // Through a shell, since people write arguments into the variable: "code --wait".
    let ended = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file.path()).status();
    let broken = |reason: String| {
        Failure::new(format!("{editor}: {reason}; nothing was replayed")).remedy("set EDITOR, or use --body FILE")
    };
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(broken(status.to_string())),
        Err(error) => return Err(broken(error.to_string())),
    }
    // By its name: many editors write a new file in its place.
    let mut text = std::fs::read_to_string(file.path()).map_err(|e| broken(e.to_string()))?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text == shown {
        return Err(Failure::new("the body was not changed; nothing was replayed")
            .remedy("replay it without --edit")
            .usage());
    }
    Ok(text.into_bytes())
}
