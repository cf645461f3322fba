//! The load's HTTP client: one request after the other on a connection that is kept, nothing parsed that is not needed.
//! A client for all purposes takes as long as the handler it asks, and would measure itself.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// Room for one answer; those that the load asks for take some hundred bytes.
const ROOM: usize = 4 * 1024;
const MOST: usize = 1024 * 1024;

pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

/// As much of an answer as the load needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Of the order in `Location`.
    pub order: Option<Uuid>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(ROOM) })
    }

    /// Sends a whole request and reads the whole answer.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = read(&self.answer)? {
                return Ok(answer);
            }
            if self.answer.len() > MOST {
                return Err(malformed("an answer that does not end"));
            }
        }
    }
}

/// `None` while it is not there whole.
fn read(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| malformed("a head that is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| malformed("no status"))?;
    let (mut length, mut order) = (None, None);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("location") {
            order = value.rsplit('/').next().and_then(|id| Uuid::parse_str(id).ok());
        }
    }
    let length = length.ok_or_else(|| malformed("no Content-Length"))?;
    Ok((bytes.len() >= end + 4 + length).then_some(Answer { status, order }))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_once_its_body_is_whole() {
        let id = Uuid::from_u128(7);
        let whole = format!("HTTP/1.1 202 Accepted\r\nlocation: /orders/{id}\r\nContent-Length: 2\r\n\r\n{{}}");
        for short in [0, 12, whole.len() - 3, whole.len() - 1] {
            assert_eq!(read(&whole.as_bytes()[..short]).unwrap(), None, "{short}");
        }
        assert_eq!(read(whole.as_bytes()).unwrap(), Some(Answer { status: 202, order: Some(id) }));
        assert!(read(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "its end could not be told");
    }
}
