//! The wire that misbehaves on request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::eventually;
use testkit::proxy::{Fault, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);
/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(150);

/// A server that says everything back, and how many bytes it heard.
async fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let heard = Arc::new(AtomicUsize::new(0));
    let hearing = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let hearing = hearing.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    hearing.fetch_add(read, Ordering::SeqCst);
                    if stream.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, heard)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.expect("the proxy listens")
}

async fn says(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.expect("a connection that takes bytes");
}

async fn hears(stream: &mut TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    timeout(LIMIT, stream.read_exact(&mut answer)).await.expect("an answer in time").expect("an answer");
    assert_eq!(answer, text);
}

async fn hears_nothing(stream: &mut TcpStream) {
    let read = timeout(SILENCE, stream.read(&mut [0; 64])).await;
    assert!(read.is_err(), "{read:?}");
}

async fn is_closed(stream: &mut TcpStream) {
    let read = timeout(LIMIT, stream.read(&mut [0; 64])).await.expect("an end in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn everything_passes_in_order_both_ways_while_nobody_reads_on_the_other_side() {
    let (server, _) = echo().await;
    let proxy = Proxy::start(server).await.expect("a proxy");
    let stream = connect(&proxy).await;
    let (mut from, mut to) = stream.into_split();
    // More than all buffers on the way take: whoever sends must be read from while it sends.
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    let all = sent.clone();
    // Its half is kept until it is joined: closing it would end the connection.
    let sending = tokio::spawn(async move { to.write_all(&all).await.map(|()| to) });
    let mut received = vec![0; sent.len()];
    timeout(LIMIT, from.read_exact(&mut received)).await.expect("in time").expect("everything");
    assert!(sent == received);
    sending.await.expect("no panic").expect("everything was sent");
}

#[tokio::test]
async fn a_delay_is_felt_and_ends() {
    let (server, _) = echo().await;
    let proxy = Proxy::start(server).await.expect("a proxy");
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::Delay { by: Duration::from_millis(60), jitter: Duration::from_millis(20) });
    let asked = Instant::now();
    says(&mut stream, b"slow").await;
    hears(&mut stream, b"slow").await;
    assert!(asked.elapsed() >= Duration::from_millis(120), "there and back: {:?}", asked.elapsed());
    proxy.set(Fault::Pass);
    says(&mut stream, b"quick").await;
    hears(&mut stream, b"quick").await;
}

#[tokio::test]
async fn a_cut_closes_every_connection_and_every_new_one_however_short_it_is() {
    let (server, _) = echo().await;
    let proxy = Proxy::start(server).await.expect("a proxy");
    let mut before = connect(&proxy).await;
    says(&mut before, b"1").await;
    hears(&mut before, b"1").await;
    proxy.set(Fault::Cut);
    proxy.set(Fault::Pass);
    is_closed(&mut before).await;
    proxy.set(Fault::Cut);
    is_closed(&mut connect(&proxy).await).await;
    proxy.set(Fault::Pass);
    let mut after = connect(&proxy).await;
    says(&mut after, b"2").await;
    hears(&mut after, b"2").await;
}

#[tokio::test]
async fn a_black_hole_swallows_and_what_lost_bytes_does_not_go_on_afterwards() {
    let (server, heard) = echo().await;
    let proxy = Proxy::start(server).await.expect("a proxy");
    let (mut talks, mut idles) = (connect(&proxy).await, connect(&proxy).await);
    for stream in [&mut talks, &mut idles] {
        says(stream, b"hello").await;
        hears(stream, b"hello").await;
    }
    proxy.set(Fault::BlackHole);
    let mut new = connect(&proxy).await;
    says(&mut talks, b"lost").await;
    says(&mut new, b"lost").await;
    hears_nothing(&mut talks).await;
    hears_nothing(&mut new).await;
    assert_eq!(heard.load(Ordering::SeqCst), 10);
    proxy.set(Fault::Pass);
    is_closed(&mut talks).await;
    is_closed(&mut new).await;
    says(&mut idles, b"still here").await;
    hears(&mut idles, b"still here").await;
}

#[tokio::test]
async fn questions_arrive_whose_answers_are_lost_and_then_the_connection_ends() {
    let (server, heard) = echo().await;
    let proxy = Proxy::start(server).await.expect("a proxy");
    let mut stream = connect(&proxy).await;
    says(&mut stream, b"hello").await;
    hears(&mut stream, b"hello").await;
    proxy.set(Fault::LoseAnswers { cut_after: 2 * SILENCE });
    says(&mut stream, b"charge the card").await;
    let all = || async { heard.load(Ordering::SeqCst) == 20 };
    eventually(LIMIT, all, "the server to hear the question").await;
    hears_nothing(&mut stream).await;
    is_closed(&mut stream).await;
    proxy.set(Fault::Pass);
    let mut again = connect(&proxy).await;
    says(&mut again, b"again").await;
    hears(&mut again, b"again").await;
}

#[tokio::test]
async fn without_a_server_connections_are_closed_and_with_the_proxy_they_end() {
    let (server, _) = echo().await;
    let proxy = Proxy::start(server).await.expect("a proxy");
    let mut stream = connect(&proxy).await;
    says(&mut stream, b"hello").await;
    hears(&mut stream, b"hello").await;
    drop(proxy);
    is_closed(&mut stream).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let proxy = Proxy::start(nobody).await.expect("a proxy");
    is_closed(&mut connect(&proxy).await).await;
}
