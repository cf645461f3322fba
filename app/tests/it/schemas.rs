//! The contracts as files and documents, against what is committed and against a running installation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use contracts::orders::{OrderCancelled, OrderConfirmed};
use millrace::event::Event;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::eventually;

use super::support::cli::{Ran, millrace};
use super::support::{Backend, Installation, PATIENCE, order, sample};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn committed(path: &str) -> Value {
    let text = std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap()
}

async fn run_in(folder: &Path, args: &[&str]) -> Ran {
    millrace(folder, &[], args).await
}

async fn exported() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ran = run_in(folder.path(), &["schemas", "export", "--to", "schemas"]).await;
    assert_eq!(ran.code, 0, "{ran}");
    folder
}

fn git(folder: &Path, args: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"];
    let output = std::process::Command::new("git").args(identity).args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Changes one file of `schemas/`.
fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join("schemas").join(file);
    let mut schema: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut schema);
    std::fs::write(path, schema.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_committed_documents_are_what_the_binary_exports() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, path) in [("--asyncapi", "docs/asyncapi.json"), ("--openapi", "docs/openapi.json")] {
        let ran = run_in(folder.path(), &["schemas", "export", flag]).await;
        assert_eq!(ran.code, 0, "{ran}");
        if std::env::var_os("MILLRACE_REGENERATE").is_some() {
            std::fs::write(repository().join(path), &ran.stdout).unwrap();
        }
        assert!(
            ran.json() == committed(path),
            "{path} is not what the code says; write it anew with: cargo run -- schemas export {flag} > {path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_leaves_the_committed_files_as_they_are_and_takes_away_what_is_no_contract() {
    let folder = exported().await;
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder.join("schemas")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| compat::Contract::of_file(name).is_some()).collect()
    };
    assert_eq!(names(folder.path()), names(&repository()));
    for name in names(folder.path()) {
        let read = |folder: &Path| std::fs::read_to_string(folder.join("schemas").join(&name)).unwrap();
        assert!(read(folder.path()) == read(&repository()), "{name}");
    }
    std::fs::write(folder.path().join("schemas/orders.lost.v1.json"), "{}").unwrap();
    std::fs::write(folder.path().join("schemas/README.md"), "mine").unwrap();
    let again = run_in(folder.path(), &["--json", "schemas", "export", "--to", "schemas"]).await.json();
    assert_eq!(again["removed"], json!(["orders.lost.v1.json"]));
    assert_eq!(again["written"], json!([]));
    assert!(folder.path().join("schemas/README.md").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn list_and_show_know_every_contract_and_version() {
    let folder = tempfile::tempdir().unwrap();
    let set = ["--set", "contracts.retired=orders.created v1"];
    let listed = run_in(folder.path(), &[&set[..], &["--json", "schemas", "list"]].concat()).await.json();
    for row in listed.as_array().unwrap() {
        let (name, version) = (row["name"].as_str().unwrap(), row["version"].to_string());
        let shown = run_in(folder.path(), &["schemas", "show", name, "--version", &version]).await.json();
        assert_eq!(shown["$id"], row["id"]);
        assert_eq!(shown, committed(&format!("schemas/{}", row["file"].as_str().unwrap())));
        assert_eq!(row["retired"], name == "orders.created" && version == "1", "{row}");
    }
    assert_eq!(listed.as_array().unwrap().len(), contracts::documents::all().len());
    let newest = run_in(folder.path(), &["schemas", "show", "orders.created"]).await.json();
    assert_eq!(newest["title"], "orders.created v2");
    for wrong in [&["orders.create"][..], &["orders.created", "--version", "9"]] {
        let ran = run_in(folder.path(), &[&["schemas", "show"], wrong].concat()).await;
        assert!(ran.code == 2 && ran.stderr.contains("try: "), "{ran}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_break_is_exit_code_1_with_its_path_and_reason_and_a_new_version_is_none() {
    let folder = exported().await;
    let check = async |args: &[&str]| run_in(folder.path(), &[&["--json", "schemas", "check"], args].concat()).await;
    let same = check(&["--against", "schemas"]).await;
    assert!(same.code == 0 && same.json()["ok"] == true, "{same}");

    // What was there before had one field less that is needed now, and one value that is gone.
    edit(folder.path(), "orders.confirmed.v1.json", |schema| {
        schema["required"].as_array_mut().unwrap().retain(|name| name != "total");
    });
    let broken = check(&["--against", "schemas"]).await;
    assert_eq!(broken.code, 1, "{broken}");
    let told = broken.json();
    assert_eq!(told["broken"], json!(["orders.confirmed v1"]));
    let difference = &told["comparisons"][0]["changes"][0]["differences"][0];
    assert_eq!(difference["path"], "/required/total");
    assert_eq!(difference["verdict"], "for-writers");
    assert_eq!(difference["why"], "old data may lack `total`, which new readers refuse");
    // Old readers are not hurt by it.
    assert_eq!(check(&["--against", "schemas", "--direction", "writers"]).await.code, 0);
    assert_eq!(check(&["--against", "schemas", "--direction", "readers"]).await.code, 1);
    let text = run_in(folder.path(), &["schemas", "check", "--against", "schemas"]).await;
    assert!(text.stdout.contains("BREAK") && text.stdout.contains("/required/total"), "{text}");

    // As a new version, beside the old one, the same change is fine.
    let contract = |required: &[&str]| json!({ "properties": { "total": {} }, "required": required }).to_string();
    for (file, required) in [
        ("base/shop.opened.v1.json", &[][..]),
        ("now/shop.opened.v1.json", &[]),
        ("now/shop.opened.v2.json", &["total"]),
    ] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contract(required)).unwrap();
    }
    let fine = check(&["--against", "base", "--current", "now"]).await;
    assert_eq!(fine.code, 0, "{fine}");
    assert_eq!(fine.json()["comparisons"][0]["changes"][0]["version"], 2);
}

/// Each step is fine, and both together are a break: the streams still have what the first release wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_dropped_and_taken_up_again_for_something_else_breaks_the_release_before() {
    let folder = tempfile::tempdir().unwrap();
    let release = |name: &str, properties: Value| {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let contract = json!({ "type": "object", "properties": properties }).to_string();
        std::fs::write(folder.path().join(name).join("shop.opened.v1.json"), contract).unwrap();
    };
    release("first", json!({ "a": {}, "b": { "type": "integer" } }));
    release("second", json!({ "a": {} }));
    release("third", json!({ "a": {}, "b": { "type": "string" } }));
    for (current, against, code) in
        [("second", &["first"][..], 0), ("third", &["second"], 0), ("third", &["second", "first"], 1)]
    {
        let against = against.iter().flat_map(|release| ["--against", release]);
        let args: Vec<&str> = ["schemas", "check", "--current", current].into_iter().chain(against).collect();
        let ran = run_in(folder.path(), &args).await;
        assert_eq!(ran.code, code, "{args:?}: {ran}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_gone_is_a_break_unless_it_was_retired() {
    let folder = exported().await;
    std::fs::write(folder.path().join("schemas/orders.created.v0.json"), "{}").unwrap();
    let check = async |flags: &[&str]| {
        run_in(folder.path(), &[&["--json", "schemas", "check", "--against", "schemas"], flags].concat()).await
    };
    let gone = check(&[]).await;
    assert!(gone.code == 1 && gone.json()["broken"] == json!(["orders.created v0"]), "{gone}");
    let retired = check(&["--retired", "orders.created v0"]).await;
    assert_eq!(retired.code, 0, "{retired}");
    let another = check(&["--retired", "orders.created v9"]).await;
    assert_eq!(another.code, 1, "{another}");
    let misspelt = check(&["--retired", "orders.created.v0"]).await;
    assert!(misspelt.code == 2 && misspelt.stderr.contains("--retired"), "{misspelt}");
    // Where CI finds it too.
    let list = folder.path().join("schemas/retired.txt");
    std::fs::write(&list, "# Gone.\n\norders.created v0  # 2026-11: nobody was left\n").unwrap();
    let listed = check(&[]).await;
    assert_eq!(listed.code, 0, "{listed}");
    std::fs::write(&list, "orders.created\n").unwrap();
    let misspelt = check(&[]).await;
    assert!(misspelt.code == 2 && misspelt.stderr.contains("retired.txt"), "{misspelt}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_revision_is_a_baseline_and_one_without_contracts_is_not_taken_for_a_good_result() {
    let folder = exported().await;
    git(folder.path(), &["init", "-q"]);
    git(folder.path(), &["commit", "-q", "--allow-empty", "-m", "empty"]);
    git(folder.path(), &["tag", "empty"]);
    edit(folder.path(), "payments.declined.v1.json", |schema| {
        schema["properties"]["code"]["maxLength"] = json!(3);
    });
    git(folder.path(), &["add", "schemas"]);
    git(folder.path(), &["commit", "-q", "-m", "released"]);
    git(folder.path(), &["tag", "v1.0.0"]);
    let check =
        async |against: &str| run_in(folder.path(), &["--json", "schemas", "check", "--against", against]).await;
    // The folder goes on being what it was; the revision counts.
    let since_release = check("v1.0.0").await;
    assert_eq!(since_release.code, 1, "{since_release}");
    let difference = &since_release.json()["comparisons"][0]["changes"][0]["differences"][0];
    assert_eq!(
        (&difference["path"], &difference["verdict"]),
        (&json!("/properties/code/maxLength"), &json!("for-readers"))
    );
    for (nothing, said) in
        [("empty", "has no contracts"), ("v9", "neither a folder nor a revision"), ("-q", "--against")]
    {
        let ran = check(nothing).await;
        assert!(ran.code == 2 && ran.stderr.contains(said), "{nothing}: {ran}");
    }
    // Judged from a folder below, as a file in another place.
    std::fs::create_dir(folder.path().join("below")).unwrap();
    let below = folder.path().join("below");
    let args = ["schemas", "check", "--against", "v1.0.0", "--folder", "../schemas"];
    assert_eq!(run_in(&below, &args).await.code, 1);
}

/// Everything that was ever published in this run, of every stream with events.
async fn published(installation: &Installation) -> Vec<Value> {
    let told = installation.millrace(&["events", "tail", "--since", "1h", "--no-follow", "--json"]).await;
    assert_eq!(told.code, 0, "{told}");
    told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An order of every kind: fine, slow, declined, too much, given up, with a customer who cannot be reached, with a charge
/// that fails for good.
async fn orders_of_every_kind(installation: &Installation) {
    let shop = &installation.shop;
    for n in 0..10 {
        shop.place_number(n).await;
    }
    for (email, card) in [("bounce@example.org", "pm_card_visa"), ("someone@example.org", "pm_capture_fails")] {
        let mut order = order(0);
        order["email"] = json!(email);
        order["payment_method"] = json!(card);
        shop.place(&order).await;
    }
    // More than there is.
    let mut too_much = order(4);
    too_much["items"][0]["quantity"] = json!(50);
    shop.place(&too_much).await;
}

/// What other systems publish: the five fields of v1, and an order that is cancelled after it was paid for.
async fn foreign_orders(installation: &Installation) {
    let js = async_nats::jetstream::new(installation.nats.client().await);
    let publish = async |subject: &'static str, body: &Value| {
        js.publish(subject, body.to_string().into()).await.unwrap().await.unwrap();
    };
    publish("orders.created", &committed("schemas/orders.created.v1.json")["examples"][1]).await;

    let id = "01a1fc36-0000-7000-8000-000000000001";
    let of = |file: &str| {
        let mut body = committed(file)["examples"][0].clone();
        body["order_id"] = json!(id);
        body
    };
    let mut created = of("schemas/orders.created.v2.json");
    created["items"][0]["product_id"] = json!("mug");
    publish("orders.created.v2", &created).await;
    let newest = |event: &str, version: u32| format!("schemas/{event}.v{version}.json");
    let confirmed = of(&newest(OrderConfirmed::TYPE, OrderConfirmed::VERSION));
    publish(OrderConfirmed::SUBJECT, &confirmed).await;
    let captured = || async {
        let seen = published(installation).await;
        let of_order = |event: &&Value| event["subject"] == "payments.captured" && event["body"]["order_id"] == id;
        seen.iter().find(of_order).map(drop).ok_or("not captured yet")
    };
    eventually(PATIENCE, captured, "the foreign order to be paid for").await;
    publish(OrderCancelled::SUBJECT, &of(&newest(OrderCancelled::TYPE, OrderCancelled::VERSION))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_that_is_published_is_what_its_committed_file_says_and_none_is_never_published() {
    let products = sample();
    let installation = Installation::on(Backend::Sqlite, &products).await;
    orders_of_every_kind(&installation).await;
    foreign_orders(&installation).await;

    // Every event and version has a file; every one of them has to be met.
    let listed = installation.millrace(&["--json", "schemas", "list"]).await.json();
    let events = listed.as_array().unwrap().iter().filter(|row| row["kind"] == "event");
    let files: BTreeMap<String, Value> = events
        .map(|row| {
            let file = committed(&format!("schemas/{}", row["file"].as_str().unwrap()));
            (row["subject"].as_str().unwrap().to_owned(), file)
        })
        .collect();
    assert_eq!(files.len(), contracts::all_schemas().len());
    let all_seen = || async {
        let published = published(&installation).await;
        let seen: BTreeSet<&str> = published.iter().filter_map(|event| event["subject"].as_str()).collect();
        let missing: Vec<&String> = files.keys().filter(|subject| !seen.contains(subject.as_str())).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("never published: {missing:?}")) }
    };
    eventually(PATIENCE, all_seen, "every event and version to be published").await;
    installation.quiet().await;

    let published = published(&installation).await;
    for event in &published {
        let subject = event["subject"].as_str().unwrap();
        let file = files.get(subject).unwrap_or_else(|| panic!("{subject} has no file in schemas/: {event}"));
        let validator = millrace::event::Validator::new(subject, file).unwrap();
        if let Err(reason) = validator.check(event["body"].to_string().as_bytes()) {
            panic!("{reason}: {event}");
        }
        undeclared(file, file, &event["body"], subject);
        let headers = &event["headers"];
        if headers["ce-source"].as_str().is_some_and(|source| source.starts_with("/millrace/")) {
            assert_eq!(headers["ce-dataschema"], file["$id"], "{event}");
        }
    }
    every_answer_is_described(&installation).await;
    every_endpoint_is_described(&installation).await;
}

/// A tolerant schema lets a field through that nobody declared; ours publish none.
fn undeclared(document: &Value, schema: &Value, body: &Value, path: &str) {
    if let Some(target) = schema["$ref"].as_str() {
        return undeclared(document, document.pointer(&target[1..]).unwrap(), body, path);
    }
    if let (Some(properties), Some(members)) = (schema["properties"].as_object(), body.as_object()) {
        for (name, value) in members {
            let Some(property) = properties.get(name) else { panic!("{path}/{name} is in no schema: {body}") };
            undeclared(document, property, value, &format!("{path}/{name}"));
        }
    }
    for element in body.as_array().into_iter().flatten() {
        undeclared(document, &schema["items"], element, &format!("{path}/*"));
    }
}

/// Asks every endpoint with the example of its committed file, and holds the answer against the file of that.
async fn every_answer_is_described(installation: &Installation) {
    let client = installation.nats.client().await;
    let orders = installation.shop.orders().await.unwrap();
    for (subject, question) in [
        ("api.payment.process", json!({ "order_id": orders[0]["order_id"] })),
        ("api.inventory.stock", json!({ "product_id": "mug" })),
        ("api.inventory.adjust", {
            let mut adjustment = committed("schemas/api.inventory.adjust.request.v1.json")["examples"][0].clone();
            adjustment["product_id"] = json!("mug");
            adjustment
        }),
    ] {
        let answer = client.request(subject, question.to_string().into()).await.unwrap();
        let file = committed(&format!("schemas/{subject}.reply.v1.json"));
        let body: Value =
            serde_json::from_slice(&answer.payload).unwrap_or_else(|e| panic!("{subject}: {e}: {answer:?}"));
        millrace::event::Validator::new(subject, &file).unwrap().check(&answer.payload).unwrap();
        undeclared(&file, &file, &body, subject);
    }
}

/// Where this binary's own commands ask, some on a subject for each instance: free to change with it, and so no part of
/// what is published.
const OPERATORS: [&str; 5] =
    ["api.payment.list", "api.payment.retry", "api.payment.settle", "api.payment.release", "api.orders.replay"];

/// What running services say of themselves is what the published document says of them.
async fn every_endpoint_is_described(installation: &Installation) {
    let document = committed("docs/asyncapi.json");
    let described: BTreeSet<(String, String, String)> = document["operations"]
        .as_object()
        .unwrap()
        .values()
        .filter(|operation| operation["reply"].is_object())
        .map(|operation| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let channel = text(&operation["channel"]["$ref"]).replace("#/channels/", "");
            (text(&operation["tags"][0]["name"]), channel, text(&operation["bindings"]["nats"]["queue"]))
        })
        .collect();
    let client = installation.nats.client().await;
    let mut running = BTreeSet::new();
    for service in ["order", "payment", "inventory"] {
        let info = client.request(format!("$SRV.INFO.{service}"), "".into()).await.unwrap();
        let info: Value = serde_json::from_slice(&info.payload).unwrap();
        for endpoint in info["endpoints"].as_array().unwrap() {
            let text = |name: &str| endpoint[name].as_str().unwrap().to_owned();
            running.insert((service.to_owned(), text("subject"), text("queue_group")));
        }
    }
    running.retain(|(_, subject, _)| !OPERATORS.iter().any(|own| subject.starts_with(own)));
    assert_eq!(described, running);
}
