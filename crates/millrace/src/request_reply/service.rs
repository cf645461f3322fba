//! Answering.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::service::{self, ServiceExt as _, endpoint};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::endpoint::{Handler, handler, json_handler};
use super::{
    CORRELATION_HEADER, Endpoint, REPLIES, REPLY_DURATION, RETRY_AFTER_HEADER, ReplyError, Request, ServiceError,
};
use crate::connection::{Closed, Connection};
use crate::telemetry::trace;

/// After the subscription ended, how long requests that were under way to us are still accepted.
const DRAIN: Duration = Duration::from_secs(1);
/// A header is one line, and a long one helps nobody.
const DESCRIPTION_MAX_CHARACTERS: usize = 500;

/// The entry to the server's side.
#[derive(Debug)]
pub struct Service;

impl Service {
    /// Begins a service: `name` of letters, digits, dashes and underscores, `version` as in 1.2.3.
    pub fn builder(name: impl Into<String>, version: impl Into<String>, description: impl Into<String>) -> Builder {
        Builder { name: name.into(), version: version.into(), description: description.into(), endpoints: Vec::new() }
    }
}

/// A service with its endpoints, not yet started.
pub struct Builder {
    name: String,
    version: String,
    description: String,
    endpoints: Vec<(Endpoint, Handler)>,
}

impl Builder {
    /// Adds an endpoint that reads and writes bytes.
    #[must_use]
    pub fn endpoint<F, Fut, Answer>(mut self, endpoint: Endpoint, handle: F) -> Self
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Answer, ReplyError>> + Send + 'static,
        Answer: Into<Bytes>,
    {
        self.endpoints.push((endpoint, handler(handle)));
        self
    }

    /// Adds an endpoint that reads and writes JSON. A body that is not a `Question` is answered with code 400 and the
    /// field at fault; an empty one counts as `null`.
    #[must_use]
    pub fn json_endpoint<F, Fut, Question, Answer>(mut self, endpoint: Endpoint, handle: F) -> Self
    where
        F: Fn(Question, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Answer, ReplyError>> + Send + 'static,
        Question: DeserializeOwned + Send + 'static,
        Answer: Serialize + Send + 'static,
    {
        self.endpoints.push((endpoint, json_handler(handle)));
        self
    }

    /// Registers the service and answers until `shutdown`. Works while NATS is away: it is registered once it answers.
    ///
    /// At shutdown no new request is taken, and those at hand are finished, each until its deadline at most.
    ///
    /// # Errors
    /// [`ServiceError::Register`] for a name, version or subject the framework does not take.
    pub async fn start(self, connection: &Connection, shutdown: CancellationToken) -> Result<Running, ServiceError> {
        let (service, id, servers) = tokio::select! {
            registered = self.register(connection) => registered?,
            // The client's queue of commands can be full while NATS is away.
            () = shutdown.cancelled() => return Ok(Running { id: String::new(), task: tokio::spawn(async { Ok(()) }) }),
        };
        tracing::info!(service.name = self.name, service.id = id, "The service answers requests.");
        let task = tokio::spawn(serve(service, servers, shutdown).in_current_span());
        Ok(Running { id, task })
    }

    async fn register(&self, connection: &Connection) -> Result<Registered, ServiceError> {
        let refused = |problem: String| ServiceError::Register { service: self.name.clone(), problem };
        let builder = connection.client().service_builder().description(&self.description);
        let service = builder.start(&self.name, &self.version).await.map_err(|error| refused(error.to_string()))?;
        let id = service.info().await.id;
        let mut servers = Vec::new();
        for (endpoint, handler) in &self.endpoints {
            let mut builder = service.endpoint_builder().metadata(endpoint.metadata.clone());
            if let Some(group) = &endpoint.queue_group {
                builder = builder.queue_group(group);
            }
            let requests = builder
                .add(&endpoint.subject)
                .await
                .map_err(|error| refused(format!("endpoint {}: {error}", endpoint.subject)))?;
            servers.push((requests, Arc::new(Server::new(&self.name, endpoint.clone(), handler.clone()))));
        }
        Ok((service, id, servers))
    }
}

type Registered = (service::Service, String, Vec<(endpoint::Endpoint, Arc<Server>)>);

/// A started service.
#[derive(Debug)]
pub struct Running {
    id: String,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    /// The id of this instance, as `nats micro ping` shows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until the service has stopped and every request at hand is answered.
    ///
    /// # Errors
    /// [`ServiceError::Closed`] when it stopped because the connection was closed and not because of the shutdown.
    pub async fn stopped(self) -> Result<(), ServiceError> {
        // The task neither panics nor is it aborted by anyone.
        self.task.await.unwrap_or(Err(ServiceError::Closed(Closed)))
    }
}

async fn serve(
    service: service::Service,
    servers: Vec<(endpoint::Endpoint, Arc<Server>)>,
    shutdown: CancellationToken,
) -> Result<(), ServiceError> {
    let tasks = TaskTracker::new();
    let loops = futures::future::join_all(
        servers
            .into_iter()
            .map(|(requests, server)| tokio::spawn(accept(requests, server, tasks.clone()).in_current_span())),
    );
    tokio::pin!(loops);
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        // Without a shutdown the subscriptions end only with the connection.
        _ = &mut loops => Err(ServiceError::Closed(Closed)),
    };
    // Fails only when nothing is subscribed any more.
    service.stop().await.ok();
    if outcome.is_ok() && timeout(DRAIN, &mut loops).await.is_err() {
        tracing::warn!("NATS is away, so the end of a subscription could not be confirmed; going on without.");
    }
    tasks.close();
    tasks.wait().await;
    outcome
}

/// Takes requests until the subscription ends. Never waits for work, so nothing piles up unseen.
async fn accept(mut requests: endpoint::Endpoint, server: Arc<Server>, tasks: TaskTracker) {
    while let Some(incoming) = requests.next().await {
        let received = Instant::now();
        let Ok(slot) = server.slots.clone().try_acquire_owned() else {
            let full = ReplyError::unavailable(
                format!("{} works on {} requests already", server.endpoint.subject, server.endpoint.max_concurrent),
                server.endpoint.retry_after,
            );
            server.respond(&incoming, Err(full), received).await;
            continue;
        };
        let server = server.clone();
        let handling = async move {
            server.handle(incoming, received).await;
            drop(slot);
        };
        tasks.spawn(handling.in_current_span());
    }
}

/// One endpoint at work.
struct Server {
    service: String,
    endpoint: Endpoint,
    handler: Handler,
    slots: Arc<Semaphore>,
}

impl Server {
    fn new(service: &str, endpoint: Endpoint, handler: Handler) -> Self {
        let slots = Arc::new(Semaphore::new(endpoint.max_concurrent));
        Self { service: service.to_owned(), endpoint, handler, slots }
    }

    async fn handle(&self, incoming: service::Request, received: Instant) {
        let request = Request::read(&incoming.message, &self.endpoint, received);
        let correlation = request.headers.get(CORRELATION_HEADER).map(|id| id.as_str().to_owned());
        let span = tracing::info_span!(
            "request",
            nats.subject = %request.subject,
            correlation_id = correlation,
            reply.code = tracing::field::Empty
        );
        if let Some(context) = &request.trace {
            trace::continue_from(&span, context);
        }
        async {
            let answer = self.answer(request).await;
            let code = self.respond(&incoming, answer, received).await;
            tracing::Span::current().record("reply.code", code);
        }
        .instrument(span)
        .await;
    }

    async fn answer(&self, request: Request) -> Result<Bytes, ReplyError> {
        let deadline = request.deadline;
        if deadline <= Instant::now() {
            return Err(ReplyError::deadline_exceeded());
        }
        // A handler that panics must not leave its caller waiting, nor its slot taken. It owns what it works on.
        let work = AssertUnwindSafe(async { (self.handler)(request).await }).catch_unwind();
        match timeout_at(deadline, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                tracing::error!("A request handler panicked; its caller gets an internal error.");
                Err(ReplyError::internal("the handler failed unexpectedly"))
            }
            Err(_) => Err(ReplyError::deadline_exceeded()),
        }
    }

    /// Sends the answer and counts it; returns the code, 200 for success.
    async fn respond(&self, incoming: &service::Request, answer: Result<Bytes, ReplyError>, received: Instant) -> u16 {
        let mut code = answer.as_ref().err().map_or(200, |error| error.code);
        let sent = send(incoming, answer).await;
        let sent = match sent {
            Err(error) if error.kind() == async_nats::PublishErrorKind::MaxPayloadExceeded => {
                code = 500;
                send(incoming, Err(ReplyError::internal("the answer is larger than NATS takes"))).await
            }
            sent => sent,
        };
        if let Err(error) = sent {
            // Somebody published without asking for an answer, or the connection is closed.
            tracing::debug!(error.message = %error, "A request could not be answered.");
        }
        let labels = [
            ("service", self.service.clone()),
            ("endpoint", self.endpoint.subject.clone()),
            ("code", code.to_string()),
        ];
        metrics::counter!(REPLIES, &labels).increment(1);
        metrics::histogram!(REPLY_DURATION, &labels[..2]).record(received.elapsed().as_secs_f64());
        code
    }
}

async fn send(incoming: &service::Request, answer: Result<Bytes, ReplyError>) -> Result<(), async_nats::PublishError> {
    let mut headers = HeaderMap::new();
    let answer = answer.map_err(|error| {
        if let Some(pause) = error.retry_after {
            headers.insert(RETRY_AFTER_HEADER, pause.as_millis().to_string());
        }
        let status = error
            .description
            .chars()
            .take(DESCRIPTION_MAX_CHARACTERS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        service::error::Error { status, code: usize::from(error.code) }
    });
    incoming.respond_with_headers(answer, headers).await
}
