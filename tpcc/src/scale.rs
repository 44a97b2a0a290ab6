//! How much data there is: the specification's cardinalities (clause 1.2.1), or fewer for tests.

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::error::Error;
use crate::schema;

/// Districts of a warehouse; never scaled.
pub const DISTRICTS: i32 = 10;
/// Items, and stock rows per warehouse, by the specification.
pub const SPECIFICATION_ITEMS: i32 = 100_000;
/// Customers, and initial orders, per district by the specification.
pub const SPECIFICATION_CUSTOMERS: i32 = 3_000;
/// An order has at most 15 lines; fewer items than that would make distinct lines impossible.
const MIN_ITEMS: i32 = 20;
const MIN_CUSTOMERS: i32 = 10;
/// Keeps every row count within PostgreSQL's integer and the terminals' arithmetic.
const MAX_WAREHOUSES: i32 = 100_000;

/// The cardinalities of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// W.
    pub warehouses: i32,
    /// Items, and stock rows per warehouse.
    pub items: i32,
    /// Customers per district; a district starts with as many orders.
    pub customers_per_district: i32,
}

impl Scale {
    /// The specification's cardinalities for this many warehouses.
    pub fn specification(warehouses: i32) -> Self {
        Self { warehouses, items: SPECIFICATION_ITEMS, customers_per_district: SPECIFICATION_CUSTOMERS }
    }

    /// Whether the cardinalities are the specification's, so that results may be called TPC-C's.
    pub fn is_specification(&self) -> bool {
        *self == Self::specification(self.warehouses)
    }

    /// Orders of a district that are delivered from the start: 2100 of 3000 (4.3.3.1).
    pub fn delivered_orders(&self) -> i32 {
        self.customers_per_district * 7 / 10
    }

    /// # Errors
    /// [`Error::Options`] for cardinalities outside their limits.
    pub fn validate(&self) -> Result<(), Error> {
        let limits = [
            ("--warehouses", self.warehouses, 1, MAX_WAREHOUSES),
            ("--items", self.items, MIN_ITEMS, SPECIFICATION_ITEMS),
            ("--customers-per-district", self.customers_per_district, MIN_CUSTOMERS, SPECIFICATION_CUSTOMERS),
        ];
        for (option, value, low, high) in limits {
            if !(low..=high).contains(&value) {
                return Err(Error::Options(format!("{option} is {value}, it must lie in {low} .. {high}")));
            }
        }
        Ok(())
    }

    /// Reads the cardinalities of a loaded database.
    ///
    /// # Errors
    /// [`Error::NotLoaded`] if tables are missing or empty.
    pub async fn of_database(client: &Client) -> Result<Self, Error> {
        let existing = schema::existing_tables(client).await?;
        let missing: Vec<&str> = schema::TABLES
            .iter()
            .copied()
            .filter(|table| !existing.iter().any(|found| found == table))
            .collect();
        if !missing.is_empty() {
            return Err(Error::NotLoaded(format!("missing: {}", missing.join(", "))));
        }
        let sql = "SELECT (SELECT max(w_id) FROM warehouse), (SELECT max(i_id) FROM item), \
                   (SELECT max(c_id) FROM customer WHERE c_w_id = 1 AND c_d_id = 1)";
        let row = client.query_one(sql, &[]).await.map_err(Error::statement("reading the cardinalities"))?;
        let value = |index: usize, name: &str| {
            row.try_get::<_, Option<i32>>(index)
                .map_err(Error::statement("reading the cardinalities"))?
                .ok_or_else(|| Error::NotLoaded(format!("{name} is empty")))
        };
        Ok(Self {
            warehouses: value(0, "warehouse")?,
            items: value(1, "item")?,
            customers_per_district: value(2, "customer")?,
        })
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} warehouse{}", self.warehouses, if self.warehouses == 1 { "" } else { "s" })?;
        if !self.is_specification() {
            write!(
                f,
                ", SCALED DOWN to {} items and {} customers per district (not TPC-C's cardinalities)",
                self.items, self.customers_per_district
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_is_the_default_and_scaling_shows() {
        let full = Scale::specification(3);
        assert!(full.is_specification() && full.validate().is_ok());
        assert_eq!(full.delivered_orders(), 2100);
        let small = Scale { items: 100, ..full };
        assert!(!small.is_specification());
        assert!(small.to_string().contains("SCALED DOWN to 100 items"));
    }

    #[test]
    fn limits_name_their_option() {
        for (scale, option) in [
            (Scale::specification(0), "--warehouses"),
            (Scale { items: 5, ..Scale::specification(1) }, "--items"),
            (Scale { customers_per_district: 3001, ..Scale::specification(1) }, "--customers-per-district"),
        ] {
            let error = scale.validate().expect_err("outside the limits").to_string();
            assert!(error.starts_with(option), "{error}");
        }
    }
}
