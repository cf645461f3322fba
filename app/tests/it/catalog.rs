//! The catalog's bucket after a power cut.

use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Backend, Installation, PATIENCE, good_order, sample};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_orders_keep_the_prices_that_were_told_and_doctor_says_what_to_do() {
    let mut products = sample();
    let mut installation = Installation::on(Backend::Sqlite, &products).await;
    let before = installation.nats.copy_of_disk().await;
    products[0]["unit_price"]["minor"] = json!(1_234);
    installation.import(&products).await;
    let dearer = || async { price(&installation).await == 1_234 };
    eventually(PATIENCE, dearer, "the new price").await;

    installation.nats.lose_power(before).await;
    installation.nats.start().await.unwrap();
    let told = || async {
        let check = doctor_about_the_catalog(&installation).await;
        let said = check["found"].as_str().unwrap_or_default().contains("has lost");
        if said && check["warn"] == true && check["ok"] == true { Ok(()) } else { Err(check.to_string()) }
    };
    eventually(PATIENCE, told, "millrace doctor to name the loss").await;
    installation.ready().await;
    assert_eq!(price(&installation).await, 1_234);

    installation.import(&products).await;
    let whole = || async {
        let check = doctor_about_the_catalog(&installation).await;
        if check["warn"] == false { Ok(()) } else { Err(check.to_string()) }
    };
    eventually(PATIENCE, whole, "the catalog to be whole again").await;
    assert_eq!(price(&installation).await, 1_234);
}

/// What one mug costs.
async fn price(installation: &Installation) -> i64 {
    installation.shop.place(&good_order(0)).await.total_minor
}

async fn doctor_about_the_catalog(installation: &Installation) -> Value {
    let said = installation.millrace(&["doctor", "--json"]).await.json();
    let mut checks = said["checks"].as_array().unwrap().iter();
    checks.find(|check| check["name"] == "catalog").cloned().unwrap_or_default()
}
