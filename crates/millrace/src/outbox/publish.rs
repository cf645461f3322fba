//! One message on its way to the broker.

use async_nats::HeaderMap;
use async_nats::HeaderValue;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;

use super::NewRow;
use crate::event::known_name;

/// Where the broker has a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) stream: String,
    pub(crate) stream_seq: u64,
    /// It had it before.
    pub(crate) before: bool,
}

/// Why a message is not with the broker, as far as is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("the header {0} cannot be sent")]
    Header(String),
    #[error("the connection changed before the acknowledgement was read")]
    Reconnected,
    #[error("its subject has another message already, and there may be one only")]
    Taken,
    #[error("the message that its subject has already cannot be read: {0}")]
    Unknown(String),
}

impl Refused {
    /// Nobody keeps what is published there: the stream is gone.
    pub(crate) fn is_no_stream(&self) -> bool {
        matches!(self, Self::Publish(error) if error.kind() == PublishErrorKind::StreamNotFound)
    }
}

/// Whether a message was refused because its subject has another one than the publisher took it to have.
pub(crate) fn refused_as_second(error: &PublishError) -> bool {
    error.kind() == PublishErrorKind::WrongLastSequence
}

/// Publishes and waits for the acknowledgement. A message whose subject may have one only, because its headers say so, is
/// with the broker also if that one is itself.
pub(crate) async fn publish(jetstream: &Context, message: &NewRow) -> Result<Stored, Refused> {
    let mut headers = HeaderMap::new();
    for (name, value) in &message.headers {
        let refused = || Refused::Header(name.clone());
        let name = match known_name(name) {
            Some(known) => known,
            None => name.parse().map_err(|_| refused())?,
        };
        headers.insert(name, value.parse::<HeaderValue>().map_err(|_| refused())?);
    }
    let sending = PublishMessage::build().payload(message.body.clone()).headers(headers);
    let sent = async { jetstream.send_publish(message.subject.clone(), sending).await?.await };
    match sent.await {
        Ok(ack) => Ok(Stored { stream: ack.stream, stream_seq: ack.sequence, before: ack.duplicate }),
        Err(error) if refused_as_second(&error) => only_one(jetstream, message).await,
        Err(error) => Err(error.into()),
    }
}

async fn only_one(jetstream: &Context, message: &NewRow) -> Result<Stored, Refused> {
    let unknown = |error: String| Refused::Unknown(error);
    let stream = jetstream.stream_by_subject(message.subject.clone()).await.map_err(|e| unknown(e.to_string()))?;
    let handle = jetstream.get_stream_no_info(&stream).await.map_err(|e| unknown(e.to_string()))?;
    let there = handle.get_last_raw_message_by_subject(&message.subject).await.map_err(|e| unknown(e.to_string()))?;
    if there.headers.get("Nats-Msg-Id").is_none_or(|id| id.as_str() != message.message_id) {
        return Err(Refused::Taken);
    }
    Ok(Stored { stream, stream_seq: there.sequence, before: true })
}
