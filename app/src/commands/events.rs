//! `millrace events tail`: history first, merged over all streams in the order of time, then what happens now.

use std::process::ExitCode;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull::OrderedConfig};
use futures::StreamExt;
use millrace::config::HumanDuration;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::{output, stack};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print events: history, then live
    Tail(Tail),
}

#[derive(Debug, clap::Args)]
pub struct Tail {
    /// Only this subject; wildcards as in NATS: orders.>
    #[arg(long)]
    subject: Option<String>,
    /// Start this long ago: 90s, 1h, 7d [default: now]
    #[arg(long, conflicts_with = "from_seq")]
    since: Option<HumanDuration>,
    /// Start at this stream sequence; needs --subject, since each stream counts for itself
    #[arg(long, requires = "subject")]
    from_seq: Option<u64>,
    /// Only events of this order
    #[arg(long)]
    order: Option<String>,
    /// End after the history
    #[arg(long)]
    no_follow: bool,
}

/// Streams with events, by their subject prefix.
const STREAMS: [(&str, &str); 6] = [
    ("orders", "ORDERS"),
    ("payments", "PAYMENTS"),
    ("inventory", "INVENTORY"),
    ("notifications", "NOTIFICATIONS"),
    ("dead_letters", "DEAD_LETTERS"),
    ("audit", "AUDIT"),
];

pub async fn run(context: &Context, command: Command) -> CommandResult {
    let Command::Tail(args) = command;
    let connection = stack::connect(&context.settings, "events").await?;
    let mut sources = Vec::new();
    for stream in streams_for(args.subject.as_deref())? {
        sources.push(Source::open(connection.jetstream(), stream, &args).await?);
    }
    let matches = |message: &jetstream::Message| {
        args.order.as_ref().is_none_or(|order| header(message, "ce-subject") == Some(order.as_str()))
    };
    // History: of all heads the oldest goes first.
    loop {
        for source in &mut sources {
            source.fill().await?;
        }
        let oldest = sources.iter_mut().filter(|s| s.head.is_some()).min_by_key(|s| s.head.as_ref().map(|(at, _)| *at));
        let Some((_, message)) = oldest.and_then(|source| source.head.take()) else { break };
        if matches(&message) {
            show(context, &message);
        }
    }
    if args.no_follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut live = futures::stream::select_all(sources.into_iter().map(|source| source.messages));
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            _ = &mut stop => return Ok(ExitCode::SUCCESS),
            next = live.next() => match next {
                Some(Ok(message)) if matches(&message) => show(context, &message),
                Some(Ok(_)) => {}
                Some(Err(error)) => output::note(&format!("the stream was interrupted and goes on: {error}")),
                None => return Ok(ExitCode::SUCCESS),
            },
        }
    }
}

fn streams_for(subject: Option<&str>) -> Result<Vec<&'static str>, Failure> {
    let Some(subject) = subject else { return Ok(STREAMS[..4].iter().map(|(_, stream)| *stream).collect()) };
    let first = subject.split('.').next().unwrap_or_default();
    if first == "*" || first == ">" {
        return Ok(STREAMS.iter().map(|(_, stream)| *stream).collect());
    }
    STREAMS.iter().find(|(prefix, _)| *prefix == first).map(|(_, stream)| vec![*stream]).ok_or_else(|| {
        let known: Vec<String> = STREAMS.iter().map(|(prefix, _)| format!("{prefix}.>")).collect();
        Failure::new(format!("no stream has the subject {subject}"))
            .remedy(format!("one of {}", known.join(", ")))
            .usage()
    })
}

/// One stream being read in order.
struct Source {
    messages: jetstream::consumer::pull::Ordered,
    head: Option<(OffsetDateTime, jetstream::Message)>,
    history_left: u64,
}

impl Source {
    async fn open(js: &jetstream::Context, stream: &str, args: &Tail) -> Result<Self, Failure> {
        let failed = |e: &dyn std::fmt::Display| {
            Failure::new(format!("the stream {stream} cannot be read: {e}")).remedy("millrace topology plan")
        };
        let deliver_policy = match (&args.since, args.from_seq) {
            (Some(since), _) => {
                DeliverPolicy::ByStartTime { start_time: OffsetDateTime::now_utc() - Duration::from(*since) }
            }
            (None, Some(start_sequence)) => DeliverPolicy::ByStartSequence { start_sequence },
            (None, None) => DeliverPolicy::New,
        };
        let config = OrderedConfig {
            deliver_policy,
            filter_subject: args.subject.clone().unwrap_or_default(),
            metadata: millrace::usage::onlooker(),
            ..OrderedConfig::default()
        };
        let stream = js.get_stream(stream).await.map_err(|e| failed(&e))?;
        let mut consumer = stream.create_consumer(config).await.map_err(|e| failed(&e))?;
        let history_left = consumer.info().await.map_err(|e| failed(&e))?.num_pending;
        let messages = consumer.messages().await.map_err(|e| failed(&e))?;
        Ok(Self { messages, head: None, history_left })
    }

    /// Makes the next message of the history the head, if there is one.
    async fn fill(&mut self) -> Result<(), Failure> {
        while self.head.is_none() && self.history_left > 0 {
            let Some(next) = self.messages.next().await else { return Ok(()) };
            let message = next.map_err(|e| Failure::new(format!("reading events: {e}")))?;
            let info = message.info().map_err(|e| Failure::new(format!("reading events: {e}")))?;
            let (at, left) = (info.published, info.pending);
            self.history_left = left;
            self.head = Some((at, message));
        }
        Ok(())
    }
}

fn header<'a>(message: &'a jetstream::Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str())
}

fn show(context: &Context, message: &jetstream::Message) {
    let Ok(info) = message.info() else { return };
    let at = info.published.format(&Rfc3339).unwrap_or_default();
    let body: Value =
        serde_json::from_slice(&message.payload).unwrap_or_else(|_| json!(String::from_utf8_lossy(&message.payload)));
    if context.json {
        let headers: serde_json::Map<String, Value> = millrace::dead_letter::header_pairs(message.headers.as_ref())
            .into_iter()
            .map(|(n, v)| (n, json!(v)))
            .collect();
        output::json_line(&json!({
            "at": at, "stream": info.stream, "seq": info.stream_sequence, "subject": message.subject.as_str(),
            "headers": headers, "body": body,
        }));
        return;
    }
    let about = header(message, "ce-subject").unwrap_or("-");
    output::line(&format!("{at:<30} {:>8}  {:<24} {about}  {body}", info.stream_sequence, message.subject.as_str()));
}
