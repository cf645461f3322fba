//! Waiting until an HTTP server answers.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::eventually;

/// Waits until a GET of `url` (`http://host:port/path`) is answered with a 2xx status.
///
/// # Panics
/// When it is not within `limit`, quoting the last answer or error.
pub async fn wait_for_http(url: &str, limit: Duration) {
    let answered = || async move {
        match status(url).await {
            Ok(code) if (200..300).contains(&code) => Ok(()),
            Ok(code) => Err(format!("status {code}")),
            Err(error) => Err(error.to_string()),
        }
    };
    eventually(limit, answered, &format!("{url} to answer")).await;
}

/// The status of a plain GET. Written out here because a client library would be the largest dependency of this crate.
async fn status(url: &str) -> std::io::Result<u16> {
    let bad = |what: &str| std::io::Error::other(format!("{what}: {url}"));
    let rest = url.strip_prefix("http://").ok_or_else(|| bad("not an http:// URL"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = BufReader::new(TcpStream::connect(authority).await?);
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad("no HTTP answer"))
}
