//! One way to make an HTTP client: TLS by rustls with the ring provider and the root certificates compiled in, so that it
//! works in a container image that holds nothing but the binary.

use std::sync::Arc;
use std::time::Duration;

/// The client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// rustls refused the configuration; a defect, nothing an operator can change.
    #[error("the TLS configuration was refused")]
    Tls(#[from] rustls::Error),
    /// reqwest refused the configuration.
    #[error("the HTTP client could not be set up")]
    Client(#[from] reqwest::Error),
}

/// A pooled client. `timeout` bounds a whole exchange including the body, `connect_timeout` the connection with its TLS
/// handshake.
///
/// Redirects are not followed: the services called here answer directly, and following one would send credentials and
/// bodies to an address nobody configured.
pub fn http_client(timeout: Duration, connect_timeout: Duration) -> Result<reqwest::Client, HttpClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(timeout)
        .connect_timeout(connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
        .build()?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_plain_request_is_answered_and_a_silent_server_times_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = first.read(&mut buffer).await.unwrap();
            first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await.unwrap();
            drop(first);
            let silent = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
            drop(silent);
        });
        let client = http_client(Duration::from_millis(500), Duration::from_millis(500)).unwrap();
        let url = format!("http://{address}/");
        assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), "ok");
        assert!(client.get(&url).send().await.unwrap_err().is_timeout());
        server.abort();
    }

    #[tokio::test]
    async fn https_works_without_a_process_wide_crypto_provider() {
        let client = http_client(Duration::from_secs(2), Duration::from_secs(2)).unwrap();
        // Nothing listens there; what matters is that the TLS client exists and fails with an error, not a panic.
        assert!(client.get("https://127.0.0.1:1/").send().await.unwrap_err().is_connect());
    }
}
