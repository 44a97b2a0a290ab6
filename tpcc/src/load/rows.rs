//! The initial rows of each table (clause 4.3.3.1), as COPY text.
//!
//! The alphabets of clause 4.3.2 hold no tab, newline or backslash, so no field needs escaping.

use std::fmt::Write;

use super::unit::TableRows;
use crate::random::{NuRandConstants, TpccRandom, last_name};
use crate::scale::{DISTRICTS, Scale};

const NULL: &str = "\\N";

/// H_AMOUNT and C_YTD_PAYMENT of every customer. D_YTD and W_YTD are its sums, so that conditions 1, 8 and 9
/// hold at any scale: 30,000.00 and 300,000.00 at the specification's.
const INITIAL_PAYMENT: i32 = 10;

impl TableRows {
    fn new(table: &'static str) -> Self {
        Self { table, text: String::new(), rows: 0 }
    }

    fn push(&mut self, row: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(row);
        self.text.push('\n');
        self.rows += 1;
    }
}

/// Cents as a decimal number.
struct Money(i32);

impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Ten-thousandths as a decimal number below one.
struct Rate(i32);

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0.{:04}", self.0)
    }
}

/// STREET_1, STREET_2, CITY, STATE, ZIP, tab-separated.
fn address(random: &mut TpccRandom) -> String {
    let street_1 = random.a_string(10, 20);
    let street_2 = random.a_string(10, 20);
    let city = random.a_string(10, 20);
    let state = random.state();
    let zip = random.zip();
    format!("{street_1}\t{street_2}\t{city}\t{state}\t{zip}")
}

pub(super) fn items(random: &mut TpccRandom, first: i32, last: i32) -> TableRows {
    let mut rows = TableRows::new("item");
    for id in first..=last {
        let image = random.between(1, 10_000);
        let name = random.a_string(14, 24);
        let price = Money(random.between(100, 10_000));
        let data = random.data();
        rows.push(format_args!("{id}\t{image}\t{name}\t{price}\t{data}"));
    }
    rows
}

pub(super) fn warehouse(random: &mut TpccRandom, scale: &Scale, warehouse: i32) -> Vec<TableRows> {
    let district_ytd = scale.customers_per_district * INITIAL_PAYMENT;
    let mut warehouses = TableRows::new("warehouse");
    let (name, address_, tax) = (random.a_string(6, 10), address(random), Rate(random.between(0, 2000)));
    let ytd = district_ytd * DISTRICTS;
    warehouses.push(format_args!("{warehouse}\t{name}\t{address_}\t{tax}\t{ytd}.00"));

    let mut districts = TableRows::new("district");
    let next_order = scale.customers_per_district + 1;
    for district in 1..=DISTRICTS {
        let (name, address_, tax) = (random.a_string(6, 10), address(random), Rate(random.between(0, 2000)));
        districts.push(format_args!(
            "{warehouse}\t{district}\t{name}\t{address_}\t{tax}\t{district_ytd}.00\t{next_order}"
        ));
    }
    vec![warehouses, districts]
}

pub(super) fn stock(random: &mut TpccRandom, warehouse: i32, first: i32, last: i32) -> TableRows {
    let mut rows = TableRows::new("stock");
    for item in first..=last {
        let quantity = random.between(10, 100);
        let dist = (0..DISTRICTS).map(|_| random.a_string(24, 24)).collect::<Vec<_>>().join("\t");
        let data = random.data();
        rows.push(format_args!("{warehouse}\t{item}\t{quantity}\t{dist}\t0\t0\t0\t{data}"));
    }
    rows
}

pub(super) fn customers(
    random: &mut TpccRandom,
    scale: &Scale,
    warehouse: i32,
    district: i32,
    timestamp: &str,
) -> Vec<TableRows> {
    let constants = NuRandConstants::for_load();
    let mut customers = TableRows::new("customer");
    let mut history = TableRows::new("history");
    for id in 1..=scale.customers_per_district {
        let first = random.a_string(8, 16);
        // The first thousand customers have all the names once, the others follow NURand.
        let last = if id <= 1000 {
            last_name(id as u32 - 1)
        } else {
            random.last_name(&constants, scale.customers_per_district)
        };
        let address_ = address(random);
        let phone = random.n_string(16, 16);
        let credit = if random.percent(10) { "BC" } else { "GC" };
        let discount = Rate(random.between(0, 5000));
        let data = random.a_string(300, 500);
        customers.push(format_args!(
            "{warehouse}\t{district}\t{id}\t{first}\tOE\t{last}\t{address_}\t{phone}\t{timestamp}\t{credit}\t\
             50000.00\t{discount}\t-{INITIAL_PAYMENT}.00\t{INITIAL_PAYMENT}.00\t1\t0\t{data}"
        ));
        let data = random.a_string(12, 24);
        history.push(format_args!(
            "{id}\t{district}\t{warehouse}\t{district}\t{warehouse}\t{timestamp}\t\
             {INITIAL_PAYMENT}.00\t{data}"
        ));
    }
    vec![customers, history]
}

pub(super) fn orders(
    random: &mut TpccRandom,
    scale: &Scale,
    warehouse: i32,
    district: i32,
    timestamp: &str,
) -> Vec<TableRows> {
    let mut orders = TableRows::new("orders");
    let mut new_orders = TableRows::new("new_order");
    let mut lines = TableRows::new("order_line");
    for (id, customer) in (1..).zip(random.permutation(scale.customers_per_district)) {
        let delivered = id <= scale.delivered_orders();
        let carrier = if delivered { random.between(1, 10).to_string() } else { NULL.to_owned() };
        let line_count = random.between(5, 15);
        orders.push(format_args!(
            "{warehouse}\t{district}\t{id}\t{customer}\t{timestamp}\t{carrier}\t{line_count}\t1"
        ));
        if !delivered {
            new_orders.push(format_args!("{warehouse}\t{district}\t{id}"));
        }
        for number in 1..=line_count {
            let item = random.between(1, scale.items);
            let delivery = if delivered { timestamp } else { NULL };
            let amount = Money(if delivered { 0 } else { random.between(1, 999_999) });
            let dist = random.a_string(24, 24);
            lines.push(format_args!(
                "{warehouse}\t{district}\t{id}\t{number}\t{item}\t{warehouse}\t{delivery}\t5\t\
                 {amount}\t{dist}"
            ));
        }
    }
    vec![orders, new_orders, lines]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_rates_are_exact_decimals() {
        assert_eq!(Money(1).to_string(), "0.01");
        assert_eq!(Money(999_999).to_string(), "9999.99");
        assert_eq!(Rate(2000).to_string(), "0.2000");
        assert_eq!(Rate(7).to_string(), "0.0007");
    }

    #[test]
    fn undelivered_orders_are_the_last_three_tenths() {
        let scale = Scale { customers_per_district: 100, ..Scale::specification(1) };
        let tables = orders(&mut TpccRandom::new(1, 1), &scale, 1, 1, "now");
        assert_eq!((tables[0].rows, tables[1].rows), (100, 30));
        assert!(tables[1].text.starts_with("1\t1\t71\n"));
        let without_carrier = tables[0].text.lines().filter(|line| line.contains(NULL)).count();
        assert_eq!(without_carrier, 30);
    }

    #[test]
    fn one_customer_in_ten_has_bad_credit() {
        let scale = Scale::specification(1);
        let tables = customers(&mut TpccRandom::new(1, 1), &scale, 1, 1, "now");
        let bad = tables[0].text.lines().filter(|line| line.contains("\tBC\t")).count();
        assert!((240..=360).contains(&bad), "{bad} of 3000");
    }
}
