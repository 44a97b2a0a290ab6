//! The load cut into units: what one transaction writes.
//!
//! Invariants: a unit stays below [`MAX_UNIT_ROWS`] rows and [`MAX_UNIT_BYTES`] of COPY text at the
//! specification's scale, because clusters limit the size of a transaction; its rows depend on the seed and
//! the unit alone, so a unit may be written again after a conflict, in any order and by any connection.

use super::rows;
use crate::random::TpccRandom;
use crate::scale::{DISTRICTS, Scale};

/// Rows of a unit, over all its tables.
pub const MAX_UNIT_ROWS: usize = 50_000;
/// Bytes of COPY text of a unit.
pub const MAX_UNIT_BYTES: usize = 8 << 20;

/// Rows of ITEM or STOCK per unit: 20,000 stock rows are about 6.3 MB.
const ROWS_PER_CHUNK: i32 = 20_000;

/// The rows that one transaction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Items `first ..= last`.
    Items {
        /// First item number.
        first: i32,
        /// Last item number.
        last: i32,
    },
    /// A warehouse row and its district rows.
    Warehouse {
        /// Warehouse number.
        warehouse: i32,
    },
    /// Stock of the items `first ..= last`.
    Stock {
        /// Warehouse number.
        warehouse: i32,
        /// First item number.
        first: i32,
        /// Last item number.
        last: i32,
    },
    /// Customers of a district, each with a history row.
    Customers {
        /// Warehouse number.
        warehouse: i32,
        /// District number.
        district: i32,
    },
    /// Orders of a district with their lines and new-order rows.
    Orders {
        /// Warehouse number.
        warehouse: i32,
        /// District number.
        district: i32,
    },
}

/// COPY text for one table.
#[derive(Debug)]
pub struct TableRows {
    /// Table name.
    pub table: &'static str,
    /// Rows in PostgreSQL's text format, newline after each, columns in the table's order.
    pub text: String,
    /// Number of rows in `text`.
    pub rows: usize,
}

/// All units of a load.
pub fn units(scale: &Scale) -> Vec<Unit> {
    let chunks = || {
        (1..=scale.items)
            .step_by(ROWS_PER_CHUNK as usize)
            .map(|first| (first, (first + ROWS_PER_CHUNK - 1).min(scale.items)))
    };
    let mut units: Vec<Unit> = chunks().map(|(first, last)| Unit::Items { first, last }).collect();
    for warehouse in 1..=scale.warehouses {
        units.push(Unit::Warehouse { warehouse });
        units.extend(chunks().map(|(first, last)| Unit::Stock { warehouse, first, last }));
        for district in 1..=DISTRICTS {
            units.push(Unit::Customers { warehouse, district });
            units.push(Unit::Orders { warehouse, district });
        }
    }
    units
}

impl Unit {
    /// The unit's rows. `timestamp` is the load's time in PostgreSQL's text format.
    pub fn rows(&self, scale: &Scale, seed: u64, stream: u64, timestamp: &str) -> Vec<TableRows> {
        let mut random = TpccRandom::new(seed, stream);
        match *self {
            Self::Items { first, last } => vec![rows::items(&mut random, first, last)],
            Self::Warehouse { warehouse } => rows::warehouse(&mut random, scale, warehouse),
            Self::Stock { warehouse, first, last } => vec![rows::stock(&mut random, warehouse, first, last)],
            Self::Customers { warehouse, district } => {
                rows::customers(&mut random, scale, warehouse, district, timestamp)
            }
            Self::Orders { warehouse, district } => {
                rows::orders(&mut random, scale, warehouse, district, timestamp)
            }
        }
    }
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Items { first, last } => write!(f, "loading items {first} to {last}"),
            Self::Warehouse { warehouse } => write!(f, "loading warehouse {warehouse} and its districts"),
            Self::Stock { warehouse, first, last } => {
                write!(f, "loading stock {first} to {last} of warehouse {warehouse}")
            }
            Self::Customers { warehouse, district } => {
                write!(f, "loading customers of warehouse {warehouse} district {district}")
            }
            Self::Orders { warehouse, district } => {
                write!(f, "loading orders of warehouse {warehouse} district {district}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    const NOW: &str = "2011-04-10 12:00:00.000000+00";

    #[test]
    fn units_cover_the_specified_cardinalities_within_the_limits() {
        let scale = Scale::specification(1);
        let mut totals = std::collections::BTreeMap::new();
        for (stream, unit) in (1..).zip(units(&scale)) {
            let tables = unit.rows(&scale, 7, stream, NOW);
            assert!(tables.iter().map(|table| table.rows).sum::<usize>() < MAX_UNIT_ROWS, "{unit}");
            assert!(tables.iter().map(|table| table.text.len()).sum::<usize>() < MAX_UNIT_BYTES, "{unit}");
            for table in tables {
                assert_eq!(table.text.lines().count(), table.rows, "{unit}");
                *totals.entry(table.table).or_insert(0) += table.rows;
            }
        }
        let lines = totals.remove("order_line").expect("order lines");
        assert!((295_000..=305_000).contains(&lines), "{lines}");
        let expected = [
            ("customer", 30_000),
            ("district", 10),
            ("history", 30_000),
            ("item", 100_000),
            ("new_order", 9_000),
            ("orders", 30_000),
            ("stock", 100_000),
            ("warehouse", 1),
        ];
        assert!(totals.into_iter().eq(expected));
    }

    #[test]
    fn a_unit_repeats_itself() {
        let scale = Scale { items: 50, customers_per_district: 20, ..Scale::specification(1) };
        let text = |seed| {
            let unit = Unit::Orders { warehouse: 1, district: 3 };
            unit.rows(&scale, seed, 5, NOW).into_iter().map(|table| table.text).collect::<String>()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn every_row_has_as_many_fields_as_its_table_has_columns() {
        let scale = Scale { items: 50, customers_per_district: 20, ..Scale::specification(1) };
        for unit in units(&scale) {
            for table in unit.rows(&scale, 1, 1, NOW) {
                let position =
                    schema::TABLES.iter().position(|name| *name == table.table).expect("a known table");
                let columns = schema::CREATE_TABLES[position]
                    .lines()
                    .skip(1)
                    .filter(|line| !line.trim().starts_with("PRIMARY KEY"))
                    .count();
                for line in table.text.lines() {
                    assert_eq!(line.split('\t').count(), columns, "{}: {line}", table.table);
                }
            }
        }
    }
}
