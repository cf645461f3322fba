//! The scenarios, one file each. A scenario acts on the world, waits for what must follow, and looks at every side of it.

mod cancelled_by_customer;
mod card_declined;
mod confirmed;
mod foreign_order;
mod gateway_down;
mod nats_down;
mod out_of_stock;
mod same_key_twice;
mod undecodable;

use super::scenario::Scenario;

/// These do not disturb each other.
pub const SIDE_BY_SIDE: [&Scenario; 7] = [
    &confirmed::SCENARIO,
    &out_of_stock::SCENARIO,
    &card_declined::SCENARIO,
    &cancelled_by_customer::SCENARIO,
    &same_key_twice::SCENARIO,
    &foreign_order::SCENARIO,
    &undecodable::SCENARIO,
];

/// These take away what the others need.
pub const ONE_BY_ONE: [&Scenario; 2] = [&gateway_down::SCENARIO, &nats_down::SCENARIO];

/// The whole story, in the order it is told.
pub fn all() -> Vec<&'static Scenario> {
    SIDE_BY_SIDE.into_iter().chain(ONE_BY_ONE).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::all;

    #[test]
    fn no_two_scenarios_share_a_name_or_a_product() {
        let mut names = HashSet::new();
        let mut products = HashSet::new();
        for scenario in all() {
            assert!(names.insert(scenario.name), "{}", scenario.name);
            for ware in scenario.wares {
                ware.product().unwrap();
                assert!(products.insert(ware.id), "{}", ware.id);
            }
        }
    }
}
