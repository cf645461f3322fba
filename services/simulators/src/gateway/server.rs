//! One request's way: judge the mode, authenticate, claim the key, carry it out, keep the answer, write the ledger.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::answer::{Answer, Refusal};
use super::bank::Bank;
use super::idempotency::{Begin, Fingerprint};
use super::ledger::{self, Seen};
use super::operation::{self, Operation, Params};
use super::tokens::Fate;
use super::{Settings, intent::Intent};
use crate::control::ModeSwitch;
use crate::hangup::Hangup;
use crate::http::{self, unix_ms};

pub(super) async fn run(listener: TcpListener, settings: Settings, shutdown: CancellationToken) -> io::Result<()> {
    let switch = ModeSwitch::new(shutdown.clone());
    let gateway = Arc::new(Gateway {
        bank: Mutex::new(Bank::new(&settings)),
        slow: Duration::from_millis(settings.slow_ms),
        switch: Arc::clone(&switch),
        shutdown: shutdown.clone(),
    });
    let routes = Router::new().route("/_control/ledger", get(ledger::read)).fallback(handle).with_state(gateway);
    http::serve(listener, routes, switch, shutdown).await
}

pub(super) struct Gateway {
    bank: Mutex<Bank>,
    slow: Duration,
    switch: Arc<ModeSwitch>,
    shutdown: CancellationToken,
}

/// A request, read whole.
struct Call {
    method: Method,
    path: String,
    params: Params,
    headers: HeaderMap,
}

/// What became of an operation that changes something.
struct Outcome {
    /// None drops the connection.
    answer: Option<Answer>,
    /// The intent it took place on and the answer to keep; None when nothing took place.
    keep: Option<(String, Answer)>,
}

async fn handle(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(connection): ConnectInfo<Hangup>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let params = if method == Method::GET { parse(uri.query().unwrap_or_default().as_bytes()) } else { parse(&body) };
    let call = Call { method, path: uri.path().to_owned(), params, headers };
    // A task of its own: a client that gives up waiting does not undo what it asked for, here as in the real world.
    let answer = tokio::spawn(async move { gateway.answer(call).await }).await;
    http::deliver(answer.ok().flatten().map(Response::from), &connection)
}

fn parse(encoded: &[u8]) -> Params {
    form_urlencoded::parse(encoded).into_owned().collect()
}

impl Gateway {
    pub(super) fn with_bank<T>(&self, work: impl FnOnce(&mut Bank) -> T) -> T {
        work(&mut self.bank.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn answer(&self, call: Call) -> Option<Answer> {
        let (at_ms, started) = (unix_ms(), Instant::now());
        let outage = |status| outage(status).into();
        let answer = http::obey(&self.switch, self.perform(&call), outage).await;
        let seen = Seen {
            at_ms,
            took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            idempotency_key: call.idempotency_key().map(str::to_owned),
            method: call.method.to_string(),
            path: call.path,
            params: call.params,
            status: answer.as_ref().map(|answer| answer.status.as_u16()),
            replayed: answer.as_ref().is_some_and(|answer| answer.replayed),
        };
        self.with_bank(|bank| bank.seen.push(seen));
        answer
    }

    async fn perform(&self, call: &Call) -> Option<Answer> {
        let operation = operation::authenticate(&call.headers).and_then(|()| Operation::find(&call.method, &call.path));
        match operation {
            Err(refusal) => Some(refusal.into()),
            Ok(Operation::List) => Some(self.list(&call.params)),
            Ok(Operation::Search) => Some(self.search(&call.params)),
            Ok(Operation::Retrieve(id)) => Some(self.retrieve(id, &call.params)),
            Ok(operation) => self.once(call, operation).await,
        }
    }

    /// Carries out an operation once per idempotency key.
    async fn once(&self, call: &Call, operation: Operation<'_>) -> Option<Answer> {
        let Some(key) = call.idempotency_key() else {
            return self.execute(call, operation).await.answer;
        };
        let fingerprint = Fingerprint::of(&call.path, &call.params);
        match self.with_bank(|bank| bank.begin(key, fingerprint)) {
            Err(refusal) => Some(refusal.into()),
            Ok(Begin::Answered(answer)) => Some(answer),
            Ok(Begin::Fresh) => {
                let Outcome { answer, keep } = self.execute(call, operation).await;
                self.with_bank(|bank| bank.finish(key, keep));
                answer
            }
        }
    }

    async fn execute(&self, call: &Call, operation: Operation<'_>) -> Outcome {
        let outcome = match operation {
            Operation::Create => return self.create(call).await,
            Operation::Capture(id) => self.capture(id, &call.params),
            Operation::Cancel(id) => self.change(id, Intent::cancel),
            Operation::Refund => self.refund(&call.params),
            Operation::List | Operation::Search | Operation::Retrieve(_) => {
                Err(Refusal::invalid("Reading changes nothing."))
            }
        };
        outcome.unwrap_or_else(Outcome::refused)
    }

    async fn create(&self, call: &Call) -> Outcome {
        let new = match operation::new_intent(&call.params) {
            Ok(new) => new,
            Err(refusal) => return Outcome::refused(refusal),
        };
        let fate = new.token.fate;
        match fate {
            Fate::Unreachable => return Outcome { answer: None, keep: None },
            Fate::Slow => {
                tokio::select! {
                    () = tokio::time::sleep(self.slow) => {}
                    () = self.shutdown.cancelled() => return Outcome { answer: None, keep: None },
                }
            }
            Fate::Flaky => {
                // Without a key the order is what a retry has in common with the first attempt.
                let order = new.metadata.get("order_id").map_or("", String::as_str);
                let key = call.idempotency_key().unwrap_or(order);
                if self.with_bank(|bank| bank.fails_once_more(key)) {
                    return Outcome::refused(outage(None));
                }
            }
            Fate::Approve | Fate::Decline(..) | Fate::CaptureFails | Fate::AnswerLost => {}
        }
        let opened = self.with_bank(|bank| {
            bank.open(new).map(|intent| match intent.decline() {
                None => Outcome::done(&intent.id, Answer::ok(&intent.to_json(operation::expands_charge(&call.params)))),
                Some(refusal) => Outcome::done(&intent.id, refusal.into()),
            })
        });
        let mut outcome = opened.unwrap_or_else(Outcome::refused);
        if fate == Fate::AnswerLost {
            outcome.answer = None;
        }
        outcome
    }

    fn capture(&self, id: &str, params: &Params) -> Result<Outcome, Refusal> {
        let amount = operation::amount(params, "amount_to_capture")?;
        self.change(id, |intent| intent.capture(amount))
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Intent) -> Result<(), Refusal>) -> Result<Outcome, Refusal> {
        self.with_bank(|bank| {
            let intent = bank.get_mut(id)?;
            let answer = change(intent).map_or_else(Answer::from, |()| Answer::ok(&intent.to_json(false)));
            Ok(Outcome::done(id, answer))
        })
    }

    fn refund(&self, params: &Params) -> Result<Outcome, Refusal> {
        let id = operation::required(params, "payment_intent")?;
        let amount = operation::amount(params, "amount")?;
        self.with_bank(|bank| {
            let intent = bank.get_mut(id)?;
            let answer = match intent.refund(amount) {
                Err(refusal) => refusal.into(),
                Ok(amount) => Answer::ok(&json!({
                    "id": format!("re_{}", Uuid::now_v7().simple()),
                    "object": "refund",
                    "amount": amount,
                    "charge": intent.charge_id(),
                    "created": unix_ms() / 1_000,
                    "currency": intent.new.currency,
                    "payment_intent": id,
                    "status": "succeeded",
                })),
            };
            Ok(Outcome::done(id, answer))
        })
    }

    fn retrieve(&self, id: &str, params: &Params) -> Answer {
        let expand = operation::expands_charge(params);
        self.with_bank(|bank| bank.get(id).map(|intent| Answer::ok(&intent.to_json(expand))))
            .unwrap_or_else(Answer::from)
    }

    fn list(&self, params: &Params) -> Answer {
        let page = |bank: &mut Bank| {
            let size = operation::page_size(params)?;
            let expand = operation::expands_charge(params);
            let mut intents = bank.newest_first(params.get("starting_after").map(String::as_str))?;
            let data: Vec<_> = intents.by_ref().take(size).map(|intent| intent.to_json(expand)).collect();
            let has_more = intents.next().is_some();
            Ok(json!({ "object": "list", "url": "/v1/payment_intents", "data": data, "has_more": has_more }))
        };
        self.with_bank(page).map_or_else(|refusal: Refusal| refusal.into(), |page| Answer::ok(&page))
    }

    fn search(&self, params: &Params) -> Answer {
        let found = |bank: &mut Bank| {
            let (order, expand) = (operation::searched_order(params)?, operation::expands_charge(params));
            let intents = bank.newest_first(None)?.filter(|intent| intent.order_id() == Some(order.as_str()));
            let data: Vec<_> = intents.map(|intent| intent.to_json(expand)).collect();
            Ok(json!({ "object": "search_result", "url": "/v1/payment_intents/search", "data": data,
                "has_more": false, "next_page": null }))
        };
        self.with_bank(found).map_or_else(|refusal: Refusal| refusal.into(), |found| Answer::ok(&found))
    }
}

impl Call {
    fn idempotency_key(&self) -> Option<&str> {
        // Stripe ignores the header on requests that change nothing.
        let header = self.headers.get("idempotency-key").filter(|_| self.method == Method::POST);
        header.and_then(|value| value.to_str().ok())
    }
}

impl Outcome {
    fn done(intent_id: &str, answer: Answer) -> Self {
        Self { answer: Some(answer.clone()), keep: Some((intent_id.to_owned(), answer)) }
    }

    fn refused(refusal: Refusal) -> Self {
        Self { answer: Some(refusal.into()), keep: None }
    }
}

/// The gateway is out of order. Nothing took place.
fn outage(status: Option<u16>) -> Refusal {
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    Refusal::new(status, "api_error", "The gateway is out of order at the moment; nothing was charged.")
}
